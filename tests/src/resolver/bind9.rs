//! named of BIND 9 (package `bind9`), as a forwarder or as an authority.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Duties, READY, Resolver, everything_local, first, ready_name};
use crate::{Namespace, programs::locate};

/// A named with nothing but the given duties: no validation, no empty zones, one thread.
#[derive(Clone, Debug, Default)]
pub struct Bind9 {
    /// What it does. It listens only where a device has the address: on `lo`, at 127.0.0.1.
    pub duties: Duties,
    /// Further lines of its `options` block, such as `require-server-cookie yes;`.
    pub options: Vec<String>,
    /// Further blocks of its configuration file, such as keys and zones.
    pub blocks: Vec<String>,
}

impl Bind9 {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        let mut text = String::from(
            "options {\n directory \"/run\";\n pid-file none;\n session-keyfile none;\n lock-file none;\n \
             dnssec-validation no;\n empty-zones-enable no;\n recursion yes;\n allow-query { any; };\n \
             allow-recursion { any; };\n notify no;\n",
        );
        for listen in &self.duties.listen {
            let family = if listen.is_ipv6() { "-v6" } else { "" };
            writeln!(
                text,
                " listen-on{family} port {} {{ {}; }};",
                listen.port(),
                listen.ip()
            )?;
        }
        if self.duties.listen.iter().all(|listen| listen.is_ipv4()) {
            text.push_str(" listen-on-v6 { none; };\n");
        }
        for line in &self.options {
            writeln!(text, " {line}")?;
        }
        text.push_str("};\ncontrols { };\n");
        for forward in &self.duties.forwards {
            let zone = if forward.zone.is_empty() { "." } else { &forward.zone };
            let (ip, port) = (forward.to.ip(), forward.to.port());
            writeln!(
                text,
                "zone \"{zone}\" {{ type forward; forward only; forwarders {{ {ip} port {port}; }}; }};"
            )?;
        }
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            let file = namespace.file(&format!("{zone}.zone"), &everything_local())?;
            writeln!(
                text,
                "zone \"{zone}\" {{ type primary; file \"{}\"; }};",
                file.display()
            )?;
        }
        for block in &self.blocks {
            writeln!(text, "{block}")?;
        }
        let config = namespace.file("named.conf", &text)?;
        let mut command = locate("named")?.command();
        command.args(["-g", "-n", "1", "-c"]).arg(config);
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}
