//! kresd, the daemon of Knot Resolver (package `knot-resolver`), as a forwarder.

use anyhow::Result;

use super::{Duties, LOCAL_ANSWER, READY, Resolver, first, ready_name};
use crate::{Namespace, programs::locate};

/// A kresd with nothing but the given duties: no validation. It spells names at random (0x20).
#[derive(Clone, Debug, Default)]
pub struct KnotResolver {
    /// What it does.
    pub duties: Duties,
    /// Further lines of its configuration, before its own rules, such as `policy.add(...)`.
    pub extra: Vec<String>,
}

impl KnotResolver {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        let mut lines = vec![
            "modules = { 'policy' }".to_owned(),
            "trust_anchors.remove('.')".to_owned(),
            "cache.size = 10 * MB".to_owned(),
            "cache.min_ttl(0)".to_owned(),
        ];
        for listen in &self.duties.listen {
            lines.push(format!(
                "net.listen('{}', {}, {{ kind = 'dns' }})",
                listen.ip(),
                listen.port()
            ));
        }
        lines.extend(self.extra.iter().cloned());
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            lines.push(format!(
                "policy.add(policy.suffix(policy.ANSWER({{ [kres.type.A] = \
                 {{ rdata = kres.str2ip('{LOCAL_ANSWER}'), ttl = 0 }} }}), policy.todnames({{ '{zone}.' }})))"
            ));
        }
        for forward in &self.duties.forwards {
            let to = format!("{}@{}", forward.to.ip(), forward.to.port());
            lines.push(format!(
                "policy.add(policy.suffix(policy.FORWARD({{ '{to}' }}), policy.todnames({{ '{}.' }})))",
                forward.zone
            ));
        }
        bring_parts(namespace)?;
        let config = namespace.file("kresd.conf", &(lines.join("\n") + "\n"))?;
        let directory = "/run/kresd";
        namespace.tool("mkdir", &format!("-p {directory}"))?;
        let mut command = locate("kresd")?.command();
        command.args(["-n", "-c"]).arg(config).arg(directory);
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}

/// Shows its modules and data, inside only, where it looks for them, if it was not installed but unpacked.
fn bring_parts(namespace: &Namespace) -> Result<()> {
    let program = locate("kresd")?;
    let Some(theirs) = program.root() else {
        return Ok(());
    };
    let theirs = theirs.join("usr");
    let options = format!("lowerdir=/usr:{},ro", theirs.display());
    namespace
        .tool("mount", &format!("-t overlay -o {options} overlay /usr"))
        .map(drop)
}
