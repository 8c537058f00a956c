//! Network namespaces beside the agent's own: a resolver in a container or pod loops on a `lo` of its own.
//!
//! They are found by who listens on a port of DNS in them, or named by the operator. The agent's number for one goes on top
//! of the index of its `lo` ([`NAMESPACE_SHIFT`]), so that neither interfaces nor questions of two are mistaken for each
//! other. Looking takes CAP_SYS_PTRACE, entering CAP_SYS_ADMIN.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
};

use guard_common::case::{LOOPBACK_IFINDEX, NAMESPACE_SHIFT};
use nix::sched::{CloneFlags, setns};

use crate::{config::Namespaces, device::Device, print, sockets};

/// Namespaces that can be guarded at once: as many as their numbers have room above an interface's index.
const MOST: u32 = (1 << (31 - NAMESPACE_SHIFT)) - 1;
/// The namespace of the thread that looks.
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespaces that are guarded, by their numbers.
#[derive(Debug)]
pub(super) struct Elsewhere {
    wanted: Namespaces,
    ports: BTreeSet<u16>,
    /// The number that the kernel gives each.
    known: BTreeMap<u32, u64>,
}

/// A namespace that is to be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its `lo`, by the agent's number for the namespace.
    pub(super) device: Device,
    /// Where it can be entered, while somebody is in it.
    pub(super) entrance: PathBuf,
}

/// What is different since the last look.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) found: Vec<Found>,
    /// The interfaces of those that nobody is in any more.
    pub(super) gone: Vec<u32>,
}

impl Elsewhere {
    /// Those that are wanted; who listens on one of `ports` is a resolver.
    pub(super) fn new(wanted: Namespaces, ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            wanted,
            ports: ports.into_iter().collect(),
            known: BTreeMap::new(),
        }
    }

    /// Looks who is where. A namespace stays known while anybody is in it, or while its path is there.
    pub(super) fn look(&mut self) -> News {
        let mut news = News::default();
        if self.wanted.is_empty() {
            return news;
        }
        let Some(own) = sockets::namespace(Path::new(OWN)) else {
            return news;
        };
        // Any process of each network namespace; only what one may see.
        let mut inhabited: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for pid in sockets::pids() {
            if let Some(network) = sockets::namespace(&entrance(pid)).filter(|network| *network != own) {
                inhabited.entry(network).or_default().push(pid);
            }
        }
        let named = self
            .wanted
            .paths
            .iter()
            .filter_map(|path| Some((sockets::namespace(path)?, path.clone())));
        let named: BTreeMap<u64, PathBuf> = named.filter(|(network, _)| *network != own).collect();
        let gone = self.known.extract_if(.., |_, network| {
            !inhabited.contains_key(network) && !named.contains_key(network)
        });
        news.gone.extend(gone.map(|(number, _)| ifindex(number)));
        for (network, path) in &named {
            if !self.knows(*network) {
                news.found.extend(self.add(*network, path.clone()));
            }
        }
        if self.wanted.resolvers {
            for (network, pids) in &inhabited {
                if self.knows(*network) {
                    continue;
                }
                if let Some(pid) = self.resolver(pids) {
                    news.found.extend(self.add(*network, entrance(pid)));
                }
            }
        }
        news
    }

    fn knows(&self, network: u64) -> bool {
        self.known.values().any(|known| *known == network)
    }

    /// Who listens on a port of DNS in the namespace of these.
    fn resolver(&self, pids: &[u32]) -> Option<u32> {
        let first = pids.first()?;
        let sockets = sockets::tables(&PathBuf::from(format!("/proc/{first}/net")), ["udp", "udp6"]);
        let listening = sockets
            .iter()
            .filter(|socket| !socket.connected && self.ports.contains(&socket.local.port()));
        let listening: BTreeSet<u64> = listening.map(|socket| socket.inode).collect();
        if listening.is_empty() {
            return None;
        }
        let owns = |pid: &&u32| sockets::descriptors(**pid).any(|inode| listening.contains(&inode));
        pids.iter().find(owns).or(Some(first)).copied()
    }

    fn add(&mut self, network: u64, entrance: PathBuf) -> Option<Found> {
        let number = (1..=MOST).find(|number| !self.known.contains_key(number))?;
        let device = Device {
            name: format!("lo@{}", name(&entrance)),
            ifindex: ifindex(number),
            physical: false,
            loopback: true,
            outward: false,
        };
        self.known.insert(number, network);
        Some(Found { device, entrance })
    }

    /// Forgets one that could not be entered: it is looked for again.
    pub(super) fn forget(&mut self, device: &Device) {
        self.known.remove(&(device.ifindex >> NAMESPACE_SHIFT));
    }
}

/// Does something in another network namespace.
///
/// # Errors
///
/// It cannot be entered: it takes CAP_SYS_ADMIN, and somebody who is still in it.
///
/// # Panics
///
/// There is no way back, which never was: the thread is of no use then.
pub(super) fn within<T>(entrance: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let own = File::open(OWN)?;
    setns(File::open(entrance)?, CloneFlags::CLONE_NEWNET)?;
    let done = work();
    setns(own, CloneFlags::CLONE_NEWNET).expect("a thread may go back to where it came from");
    Ok(done)
}

const fn ifindex(number: u32) -> u32 {
    number << NAMESPACE_SHIFT | LOOPBACK_IFINDEX
}

fn entrance(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// What a namespace is called: the process by whose path it is known, and its number, or the last part of another path.
fn name(path: &Path) -> String {
    let pid = path
        .strip_prefix("/proc")
        .ok()
        .and_then(|rest| rest.iter().next()?.to_str()?.parse().ok());
    match pid {
        Some(pid) => format!("{}:{pid}", sockets::name(pid)),
        None => print::harmless(&path.file_name().unwrap_or_default().to_string_lossy()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_called_by_its_process_or_its_path() {
        assert_eq!(name(Path::new("/run/netns/blue")), "blue");
        let pid = std::process::id();
        let named = name(Path::new(&format!("/proc/{pid}/ns/net")));
        assert_eq!(named, format!("{}:{pid}", sockets::name(pid)));
    }

    #[test]
    fn the_own_namespace_is_none_beside_it_and_what_is_not_there_is_none_at_all() {
        let wanted = Namespaces {
            resolvers: false,
            paths: vec![PathBuf::from("/proc/self/ns/net"), PathBuf::from("/run/netns/no-such")],
        };
        let news = Elsewhere::new(wanted, [53]).look();
        assert!(news.found.is_empty() && news.gone.is_empty(), "{news:?}");
    }

    #[test]
    fn numbers_leave_room_for_an_index() {
        assert_eq!(ifindex(1), 0x0100_0001);
        assert!(ifindex(MOST) < 1 << 31);
    }
}
