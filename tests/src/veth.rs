//! A wire between two namespaces.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::Namespace;

/// How long a new wire may take: IPv6 repeats a lost neighbour solicitation after 1 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Joins two namespaces with a veth pair, called `device` on both sides.
///
/// `addresses` are pairs of (left, right) with their prefix length, IPv4 or IPv6 alike, e.g.
/// `("10.53.0.1/24", "10.53.0.2/24")`. Returns once a packet got over between each pair: from then on none waits
/// for a neighbour to be found.
pub fn veth(left: &Namespace, right: &Namespace, device: &str, addresses: &[(&str, &str)]) -> Result<()> {
    let there = right.net_path();
    left.ip(&format!(
        "link add {device} type veth peer name {device} netns {}",
        there.display()
    ))?;
    for &(near, far) in addresses {
        add(left, device, near)?;
        add(right, device, far)?;
    }
    left.ip(&format!("link set {device} up"))?;
    right.ip(&format!("link set {device} up"))?;
    for &(near, far) in addresses {
        knock(left, near, right, far).with_context(|| format!("from {near} to {far}"))?;
    }
    Ok(())
}

/// Lays a wire, `link0` to `link1`, that leads to AWS's resolver at 169.254.169.253: what is sent there leaves, and nobody
/// is there.
pub fn lay_link_local(namespace: &Namespace) -> Result<()> {
    for command in [
        "link add link0 type veth peer name link1",
        "addr add 10.0.0.5/24 dev link0",
        "link set link0 up",
        "link set link1 up",
        "neigh add 169.254.169.253 lladdr 02:00:00:00:00:01 dev link0 nud permanent",
        "route add 169.254.169.253/32 dev link0",
    ] {
        namespace.ip(command)?;
    }
    Ok(())
}

/// The hardware address of a device.
pub fn station(namespace: &Namespace, device: &str) -> Result<[u8; 6]> {
    let path = format!("/sys/class/net/{device}/address");
    let text = namespace
        .run(|| fs::read_to_string(&path))
        .with_context(|| format!("read {path}"))?;
    let bytes: Vec<u8> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    bytes.try_into().ok().with_context(|| format!("{path} is not 6 bytes"))
}

/// Gives `device` one more address; one of IPv6 can be bound at once, for duplicates are not looked for.
pub(crate) fn add(namespace: &Namespace, device: &str, address: &str) -> Result<()> {
    let detection = if address.contains(':') { "nodad" } else { "" };
    namespace.ip(&format!("address add {address} dev {device} {detection}"))
}

/// Sends datagrams until one arrives.
fn knock(left: &Namespace, near: &str, right: &Namespace, far: &str) -> Result<()> {
    let server = right.udp(any_port(far)?)?;
    let client = left.udp(any_port(near)?)?;
    server.set_read_timeout(Some(Duration::from_millis(20)))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        client.send_to(b"knock", server.local_addr()?)?;
        match server.recv_from(&mut [0; 8]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("nothing gets over the veth in {PATIENCE:?}")
}

fn any_port(address: &str) -> Result<SocketAddr> {
    let (ip, _) = address.split_once('/').context("an address without a prefix length")?;
    Ok(SocketAddr::new(ip.parse::<IpAddr>()?, 0))
}
