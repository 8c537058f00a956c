//! Which interfaces of this node lead to a pod: what the kernel says.
//!
//! Links and routes can be read without any capability, and no network namespace is entered.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use super::sandbox::Sandbox;
use crate::netlink::Netlink;

/// The interfaces whose other end is in another network namespace, as those of pods are, and bridges are not.
#[derive(Debug)]
pub(super) struct Ways {
    netlink: Netlink,
    names: HashMap<u32, String>,
    known: HashSet<String>,
}

impl Ways {
    /// Those of this moment, in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn look() -> io::Result<Self> {
        let netlink = Netlink::open()?;
        let links = netlink.links()?.into_iter().filter(|link| link.leads_elsewhere);
        let names: HashMap<_, _> = links.map(|link| (link.ifindex, link.name)).collect();
        Ok(Self {
            known: names.values().cloned().collect(),
            netlink,
            names,
        })
    }

    /// Those that lead to a pod: the ones that its network was made with, and the ones by which packets to it leave where
    /// each pod has a route of its own (Calico, AWS).
    pub(super) fn to(&self, sandbox: &Sandbox) -> Vec<String> {
        let made = sandbox.devices.iter().filter(|device| self.known.contains(*device));
        let mut devices: Vec<_> = made.cloned().collect();
        if devices.is_empty() {
            let routes = sandbox.addresses.iter();
            let routes = routes.filter_map(|address| self.netlink.route(*address).ok());
            devices.extend(routes.filter_map(|ifindex| self.names.get(&ifindex).cloned()));
            devices.dedup();
        }
        devices
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command, sync::mpsc, thread};

    use nix::{
        sched::{CloneFlags, unshare},
        unistd::{getpid, gettid},
    };

    use super::*;
    use crate::pods::Pod;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(status.unwrap().success(), "ip {arguments}");
    }

    /// Does `work` in a network namespace of its own, which knows the path of another.
    fn on_a_node(work: impl FnOnce(PathBuf) + Send) {
        thread::scope(|scope| {
            let (made, pod) = mpsc::channel();
            let (over, is_over) = mpsc::channel::<()>();
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                made.send(PathBuf::from(format!("/proc/{}/task/{}/ns/net", getpid(), gettid())))
                    .unwrap();
                let _ = is_over.recv();
            });
            let node = scope.spawn(move || {
                let pod = pod.recv().unwrap();
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                work(pod);
                drop(over);
            });
            node.join().unwrap();
        });
    }

    #[test]
    fn a_pod_is_behind_the_interface_that_was_made_for_it_or_that_its_route_has() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root for a network namespace");
            return;
        }
        on_a_node(|pod| {
            let pod = pod.display();
            for (device, peer) in [("cali1", "p1"), ("veth2", "p2")] {
                ip(&format!("link add {device} type veth peer name {peer}"));
                ip(&format!("link set {peer} netns {pod}"));
                ip(&format!("link set {device} up"));
            }
            ip("link add here type veth peer name there");
            ip("link add cni0 type bridge");
            ip("link set veth2 master cni0");
            ip("address add 10.1.0.1/24 dev cni0");
            ip("link set cni0 up");
            ip("address add 169.254.1.1/32 dev cali1");
            ip("route add 10.0.0.7/32 dev cali1 scope link");

            let ways = Ways::look().unwrap();
            let to = |address: &str, devices: &[&str]| {
                ways.to(&Sandbox {
                    pod: Pod::new(b"shop", b"cart-1").unwrap(),
                    addresses: vec![address.parse().unwrap()],
                    devices: devices.iter().map(|device| (*device).to_owned()).collect(),
                })
            };
            assert_eq!(to("10.0.0.7", &[]), ["cali1"]);
            assert_eq!(to("10.1.0.2", &["cni0", "veth2"]), ["veth2"]);
            // The bridge leads to all of them, and what stays on the node to none.
            let nobody: [&str; 0] = [];
            assert_eq!(to("10.1.0.2", &["cni0"]), nobody);
            assert_eq!(to("10.9.0.2", &["here", "gone"]), nobody);
        });
    }
}
