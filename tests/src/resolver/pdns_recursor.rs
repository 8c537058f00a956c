//! pdns_recursor, the recursor of PowerDNS (package `pdns-recursor`), as a forwarder.

use anyhow::Result;

use super::{Duties, READY, Resolver, everything_local, first, ready_name};
use crate::{Namespace, programs::locate};

/// A recursor with nothing but the given duties, and no packet cache.
#[derive(Clone, Debug, Default)]
pub struct PdnsRecursor {
    /// What it does.
    pub duties: Duties,
    /// Further lines of its configuration file, such as `lowercase-outgoing=yes`.
    pub extra: Vec<String>,
}

impl PdnsRecursor {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        let listen: Vec<String> = self.duties.listen.iter().map(ToString::to_string).collect();
        // Its look-up of known security holes would leave this network, and fail.
        let mut lines: Vec<String> = [
            "allow-from=0.0.0.0/0, ::/0",
            "daemon=no",
            "disable-packetcache=yes",
            "disable-syslog=yes",
            "dont-query=",
            "security-poll-suffix=",
            "socket-dir=/run",
            "threads=1",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.push(format!("local-address={}", listen.join(", ")));
        let mut zones = Vec::new();
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            let file = namespace.file(&format!("{zone}.zone"), &everything_local())?;
            zones.push(format!("{zone}={}", file.display()));
        }
        lines.push(format!("auth-zones={}", zones.join(", ")));
        let forwards: Vec<String> = self
            .duties
            .forwards
            .iter()
            .map(|forward| format!("{}.={}", forward.zone, forward.to))
            .collect();
        lines.push(format!("forward-zones-recurse={}", forwards.join(", ")));
        lines.extend(self.extra.iter().cloned());

        // It takes a directory for its configuration.
        let directory = "/run/pdns-recursor";
        namespace.tool("mkdir", &format!("-p {directory}"))?;
        let config = namespace.file("recursor.conf", &(lines.join("\n") + "\n"))?;
        namespace.tool("cp", &format!("{} {directory}/recursor.conf", config.display()))?;
        let mut command = locate("pdns_recursor")?.command();
        command.arg(format!("--config-dir={directory}"));
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}
