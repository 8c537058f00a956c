//! unbound, as a forwarder or as an authority for zones of one address.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Duties, LOCAL_ANSWER, READY, Resolver, first, ready_name};
use crate::{Namespace, programs::locate};

/// An unbound with nothing but the given duties: no validation, one thread.
#[derive(Clone, Debug, Default)]
pub struct Unbound {
    /// What it does.
    pub duties: Duties,
    /// Further lines of the `server:` section, such as `use-caps-for-id: yes`; they win over its own.
    pub extra: Vec<String>,
}

impl Unbound {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        // It keeps its user: the kernel forgets the death of a parent when it changes.
        let mut text = String::from(
            "server:\n username: \"\"\n chroot: \"\"\n directory: \"/run\"\n pidfile: \"\"\n logfile: \"\"\n \
             use-syslog: no\n module-config: \"iterator\"\n do-not-query-localhost: no\n num-threads: 1\n \
             access-control: 0.0.0.0/0 allow\n access-control: ::/0 allow\n",
        );
        for listen in &self.duties.listen {
            writeln!(text, " interface: {}@{}", listen.ip(), listen.port())?;
        }
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            writeln!(text, " local-zone: \"{zone}.\" redirect")?;
            writeln!(text, " local-data: \"{zone}. 0 A {LOCAL_ANSWER}\"")?;
        }
        for line in &self.extra {
            writeln!(text, " {line}")?;
        }
        text.push_str("remote-control:\n control-enable: no\n");
        for forward in &self.duties.forwards {
            let (ip, port) = (forward.to.ip(), forward.to.port());
            writeln!(
                text,
                "forward-zone:\n name: \"{}.\"\n forward-addr: {ip}@{port}",
                forward.zone
            )?;
        }
        let config = namespace.file("unbound.conf", &text)?;
        let mut command = locate("unbound")?.command();
        command.arg("-d").arg("-c").arg(config);
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}
