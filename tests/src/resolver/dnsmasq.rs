//! dnsmasq (package `dnsmasq-base`).

use anyhow::{Result, ensure};

use super::{Duties, LOCAL_ANSWER, READY, Resolver, first, ready_name};
use crate::{
    Namespace,
    programs::{DNSMASQ_0X20, locate},
};

/// A dnsmasq with nothing but the given duties; its defaults are those of the distribution.
#[derive(Clone, Debug, Default)]
pub struct Dnsmasq {
    /// What it does. All addresses share one port.
    pub duties: Duties,
    /// Further lines of its configuration file, such as `cache-size=0`.
    pub extra: Vec<String>,
}

impl Dnsmasq {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        self.start_as("dnsmasq", namespace)
    }

    /// The same, with a dnsmasq that knows 0x20 ([`DNSMASQ_0X20`]).
    pub fn start_newer(&self, namespace: &Namespace) -> Result<Resolver> {
        self.start_as(DNSMASQ_0X20, namespace)
    }

    fn start_as(&self, program: &str, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        let one_port = self.duties.listen.iter().all(|other| other.port() == address.port());
        ensure!(one_port, "dnsmasq listens on one port only");

        // It keeps user and group: the kernel forgets the death of a parent when they change.
        let mut lines: Vec<String> = [
            "user=root",
            "group=root",
            "pid-file=",
            "log-facility=-",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
        ]
        .map(str::to_owned)
        .to_vec();
        lines.push(format!("port={}", address.port()));
        for listen in &self.duties.listen {
            lines.push(format!("listen-address={}", listen.ip()));
        }
        for forward in &self.duties.forwards {
            let zone = match forward.zone.as_str() {
                "" => String::new(),
                zone => format!("/{zone}/"),
            };
            lines.push(format!("server={zone}{}#{}", forward.to.ip(), forward.to.port()));
        }
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            lines.push(format!("address=/{zone}/{LOCAL_ANSWER}"));
        }
        lines.extend(self.extra.iter().cloned());

        let config = namespace.file("dnsmasq.conf", &(lines.join("\n") + "\n"))?;
        let mut command = locate(program)?.command();
        command
            .arg("--keep-in-foreground")
            .arg(format!("--conf-file={}", config.display()));
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}
