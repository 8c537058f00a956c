{{- define "dnsguard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "dnsguard.fullname" -}}
{{- $name := include "dnsguard.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "dnsguard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "dnsguard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dnsguard.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "dnsguard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dnsguard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "dnsguard.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "dnsguard.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* Where the kubelet, which is on the node, reaches the endpoint. */}}
{{- define "dnsguard.probeHost" -}}
{{- has .Values.metrics.address (list "0.0.0.0" "::") | ternary "127.0.0.1" .Values.metrics.address }}
{{- end }}

{{- define "dnsguard.listen" -}}
{{- if contains ":" .Values.metrics.address }}
{{- printf "[%s]:%d" .Values.metrics.address (int .Values.metrics.port) }}
{{- else }}
{{- printf "%s:%d" .Values.metrics.address (int .Values.metrics.port) }}
{{- end }}
{{- end }}

{{/* The part of dnsguard.toml that takes a restart. JSON's strings and lists of strings are TOML's. */}}
{{- define "dnsguard.config.fixed" -}}
[attach]
{{- with .Values.preset }}
preset = {{ toJson . }}
{{- end }}
{{- with .Values.interfaces }}
interfaces = {{ toJson . }}
{{- end }}
{{- with .Values.excludeInterfaces }}
exclude = {{ toJson . }}
{{- end }}
at_stop = {{ toJson .Values.atStop }}
{{- if .Values.netns.enabled }}
namespaces = ["auto"]
{{- end }}

[metrics]
listen = {{ include "dnsguard.listen" . | toJson }}
top = {{ int .Values.metrics.top }}
{{- if .Values.pods.enabled }}

[pods]
source = "cri"
socket = {{ toJson .Values.pods.socket }}
{{- end }}
{{- end }}

{{- define "dnsguard.config" -}}
{{- if .Values.config.content -}}
{{ .Values.config.content | trim }}
{{- else -}}
mode = {{ toJson .Values.mode }}
ports = [{{ join ", " .Values.ports }}]
{{- with .Values.allow }}
allow = {{ toJson . }}
{{- end }}

{{ include "dnsguard.config.fixed" . }}
{{- with .Values.config.extra }}

{{ trim . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What ServiceMonitor and PodMonitor say of an endpoint in the same words. */}}
{{- define "dnsguard.scrape" -}}
honorLabels: false
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Root without rights but these: bpf(2), attaching, and what the verifier allows only to those who may trace. */}}
{{- define "dnsguard.securityContext" -}}
{{- $capabilities := list "BPF" "NET_ADMIN" "PERFMON" }}
{{- if .Values.netns.enabled }}
{{- $capabilities = concat $capabilities (list "SYS_ADMIN" "SYS_PTRACE") }}
{{- end }}
{{- $context := dict
  "runAsUser" 0
  "runAsGroup" 0
  "allowPrivilegeEscalation" false
  "readOnlyRootFilesystem" true
  "capabilities" (dict "drop" (list "ALL") "add" (concat $capabilities .Values.extraCapabilities | uniq))
  "seccompProfile" (dict "type" "RuntimeDefault")
}}
{{- with .Values.seLinuxOptions }}
{{- $_ := set $context "seLinuxOptions" . }}
{{- end }}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}
{{- $_ := set $context "appArmorProfile" .Values.appArmorProfile }}
{{- end }}
{{- toYaml (mergeOverwrite $context (deepCopy .Values.securityContext)) }}
{{- end }}
