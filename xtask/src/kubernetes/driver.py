"""Renders a Helm chart with Helm's own library, and holds the objects against the API's schemas.

One request on standard input, one response on standard output, both JSON; helm.rs has their shapes.
"""

import json
import sys

import kubernetes_validate
import yaml
from helm_python import HelmError, _native
from helm_python.chart import Chart, lint

# Helm's severities; below is what is only recommended.
WARNING = 2


def render(chart, values, release, version):
    """Helm's own names for the files, and their text."""
    # Chart.render does not pass the cluster's version on, which the library takes.
    options = {"name": release, "namespace": release, "kube_version": version}
    rendered = _native.call_string("helm_render", chart._raw(), json.dumps(values), json.dumps(options))
    return {path.rpartition("/")[2]: text for path, text in json.loads(rendered).items()}


def objects(files):
    for name, text in files.items():
        if name.endswith(".yaml"):
            for thing in yaml.safe_load_all(text):
                if thing is not None:
                    yield name, thing


def judge(case, path, chart, release):
    values = yaml.safe_load(case["values"]) or {}
    try:
        chart.validate_schema(values)
    except HelmError as refusal:
        return {"refused": str(refusal)}
    problems, unchecked, checked, files, configuration = [], set(), 0, {}, None
    for version in case["versions"]:
        report = lint(path, values, strict=True, namespace=release, kube_version=version)
        found = [message for message in report["messages"] if message["severity"] >= WARNING]
        problems += [f"{message['path']}: {message['error']}" for message in found]
        files = render(chart, values, release, version)
        for name, thing in objects(files):
            configuration = (thing.get("data") or {}).get("dnsguard.toml", configuration)
            try:
                kubernetes_validate.validate(thing, version, strict=True)
                checked += 1
            except kubernetes_validate.SchemaNotFoundError:
                unchecked.add(thing["kind"])
            except kubernetes_validate.ValidationError as error:
                place = ".".join(str(step) for step in error.path)
                problems.append(f"{name}, Kubernetes {version}: {place}: {error.message}")
    return {
        "files": files,
        "problems": problems,
        "unchecked": sorted(unchecked),
        "checked": checked,
        "configuration": configuration,
    }


def main():
    request = json.load(sys.stdin)
    path = request["chart"]
    with Chart.load(path) as chart:
        told = {"chart": chart.metadata, "cases": []}
        for case in request["cases"]:
            told["cases"].append(judge(case, path, chart, request["release"]))
    json.dump(told, sys.stdout)


main()
