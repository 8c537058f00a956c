//! systemd-resolved: the stub resolver that most distributions put between programs and the network.

use std::net::SocketAddr;

use anyhow::Result;

use super::{Resolver, ready_name};
use crate::{Namespace, programs::locate};

/// A systemd-resolved without a cache, DNSSEC, LLMNR, mDNS, or a bus to be asked over.
#[derive(Clone, Copy, Debug)]
pub struct Resolved {
    /// Where it sends everything; has to answer every A query.
    pub server: SocketAddr,
}

impl Resolved {
    /// Where it listens, always: the address that its `resolv.conf` names.
    pub const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 53], 53);

    /// Starts it and waits until it answers, which here means that its server does.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        // It looks its own user up and becomes that. Here it stays root: the kernel forgets the death of a parent when
        // the user changes.
        namespace.cover(
            "passwd",
            "root:x:0:0::/:/bin/false\nsystemd-resolve:x:0:0::/:/bin/false\n",
        )?;
        namespace.cover("group", "root:x:0:\nsystemd-resolve:x:0:\n")?;
        let settings = namespace.file(
            "resolved.conf",
            &format!(
                "[Resolve]\nDNS={}\nDomains=~.\nCache=no\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n",
                self.server
            ),
        )?;
        let directory = "/run/systemd/resolved.conf.d";
        namespace.tool("mkdir", &format!("-p {directory}"))?;
        namespace.tool("cp", &format!("{} {directory}/lab.conf", settings.display()))?;
        let process = namespace.spawn(locate("systemd-resolved")?.command())?;
        Resolver::ready(namespace, process, Self::ADDRESS.into(), ready_name)
    }
}
