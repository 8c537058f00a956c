//! dnsdist: a load balancer that forwards every query by itself, without merging equal ones.

use anyhow::Result;

use super::{Duties, LOCAL_ANSWER, READY, Resolver, first, ready_name};
use crate::{Namespace, programs::locate};

/// A dnsdist with nothing but the given duties, and no cache.
#[derive(Clone, Debug, Default)]
pub struct Dnsdist {
    /// What it does.
    pub duties: Duties,
    /// Further lines of its configuration file, before its own rules, such as `setMaxUDPOutstanding(1000)`.
    pub extra: Vec<String>,
}

impl Dnsdist {
    /// Starts it and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let address = first(&self.duties)?;
        // Its look-up of known security holes would leave this network, and fail.
        let mut lines = vec![
            "setSecurityPollSuffix('')".to_owned(),
            "setServFailWhenNoServer(true)".to_owned(),
            "setACL({'0.0.0.0/0', '::/0'})".to_owned(),
        ];
        for listen in &self.duties.listen {
            lines.push(format!("addLocal('{listen}')"));
        }
        lines.extend(self.extra.iter().cloned());
        for zone in self.duties.answers.iter().map(String::as_str).chain([READY]) {
            lines.push(format!("addAction('{zone}.', SpoofAction('{LOCAL_ANSWER}'))"));
        }
        for forward in &self.duties.forwards {
            // A pool per zone. Taken for up: health checks would ask for names that are not part of the picture.
            let zone = &forward.zone;
            lines.push(format!(
                "newServer({{address='{}', pool='{zone}'}}):setUp()",
                forward.to
            ));
            if !zone.is_empty() {
                lines.push(format!("addAction('{zone}.', PoolAction('{zone}'))"));
            }
        }
        let config = namespace.file("dnsdist.conf", &(lines.join("\n") + "\n"))?;
        let mut command = locate("dnsdist")?.command();
        command.arg("--supervised").arg("--config").arg(config);
        let process = namespace.spawn(command)?;
        Resolver::ready(namespace, process, address, ready_name)
    }
}
