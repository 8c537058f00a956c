//! consul: a server of its own on loopback, in memory, that answers for `consul.` and recurses the rest.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{LOCAL_ANSWER, PATIENCE, Resolver};
use crate::{Namespace, Process, http, programs::locate};

/// The service that every consul of the lab has: `x.service.consul.` is [`LOCAL_ANSWER`].
pub const SERVICE: &str = "x.service.consul.";

/// A consul agent. Its other ports lie right above `dns.port()`, so agents need some ten ports between them.
#[derive(Clone, Debug)]
pub struct Consul {
    /// Where it answers DNS, UDP and TCP.
    pub dns: SocketAddr,
    /// Where it sends what is not its own; it tries each in turn.
    pub recursors: Vec<SocketAddr>,
    /// A second name for its domain, without a dot: `x.service.<alias>.` is answered like [`SERVICE`].
    pub alias: Option<String>,
}

impl Consul {
    /// Starts it, registers the service, and waits until it answers for it.
    pub fn start(&self, namespace: &Namespace) -> Result<Resolver> {
        let port = self.dns.port();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let http = SocketAddr::new(loopback, port + 1);
        let client = match self.dns.ip() {
            ip if ip == loopback => ip.to_string(),
            ip => format!("{loopback} {ip}"),
        };
        let recursors: Vec<String> = self.recursors.iter().map(SocketAddr::to_string).collect();
        let config = json!({
            "node_name": format!("lab-{port}"),
            "bind_addr": loopback.to_string(),
            "client_addr": client,
            "domain": "consul",
            "alt_domain": self.alias.clone().unwrap_or_default(),
            "ports": {
                "dns": port, "http": port + 1, "https": -1, "grpc": port + 2,
                "serf_lan": port + 3, "serf_wan": port + 4, "server": port + 5,
            },
            "recursors": recursors,
            "disable_update_check": true,
            "disable_host_node_id": true,
            "log_level": "err",
        });
        let config = namespace.file("consul.json", &config.to_string())?;
        let mut command = locate("consul")?.command();
        command.arg("agent").arg("-dev").arg("-config-file").arg(config);
        let process = namespace.spawn(command)?;
        wait_for_leader(namespace, &process, http)?;
        let service = json!({ "Name": "x", "Address": LOCAL_ANSWER, "Port": 80 });
        http::request(
            namespace,
            http,
            "PUT",
            "/v1/agent/service/register",
            &service.to_string(),
        )
        .context("register a service with consul")?;
        Resolver::ready(namespace, process, self.dns, |_| SERVICE.to_owned())
    }
}

/// Until it leads, it refuses registrations.
fn wait_for_leader(namespace: &Namespace, process: &Process, http: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = http::request(namespace, http, "GET", "/v1/status/leader", "");
        if leader.is_ok_and(|address| address.trim().len() > 2) {
            return Ok(());
        }
        if let Some(status) = process.ended() {
            bail!("consul ended ({status}):\n{}", process.last_words());
        }
        if Instant::now() > deadline {
            bail!("consul elects no leader:\n{}", process.last_words());
        }
        sleep(Duration::from_millis(50));
    }
}
