//! Who runs on this host, in which network, and who of them listens where DNS is spoken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{loops::Program, roots::Roots};
use crate::sockets::{self, Socket, namespace};

/// A process, as far as one may look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its name, in printable ASCII.
    pub(super) name: String,
    /// What follows the program on its command line.
    pub(super) arguments: Vec<String>,
    /// Its network namespace.
    pub(super) network: u64,
    /// Whether its files are not those of this process.
    is_elsewhere: bool,
}

/// A place where somebody listens for DNS over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    /// The network namespace that it is in.
    pub(super) network: u64,
    /// Whose it is; none where one may not look.
    pub(super) pids: Vec<u32>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    by_pid: BTreeMap<u32, Process>,
    /// The network namespace of the thread that looked.
    pub(super) own_network: u64,
    pub(super) listeners: Vec<Listener>,
}

impl Processes {
    /// Looks through `/proc`. Who listens on one of `ports` is taken for a DNS server; a resolver is one on any port on
    /// which it listens over TCP, too.
    pub(super) fn read(ports: &BTreeSet<u16>) -> Self {
        let own_network = namespace(Path::new("/proc/thread-self/ns/net")).unwrap_or_default();
        let own_files = namespace(Path::new("/proc/thread-self/ns/mnt"));
        let read = |pid: u32| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            let line = fs::read(folder.join("cmdline")).ok().filter(|line| !line.is_empty())?;
            let words = line.split(|byte| *byte == 0).skip(1);
            let files = namespace(&folder.join("ns/mnt"));
            let process = Process {
                pid,
                name: sockets::name(pid),
                arguments: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
                network: namespace(&folder.join("ns/net")).unwrap_or(own_network),
                is_elsewhere: files.is_some() && files != own_files,
            };
            Some((pid, process))
        };
        let by_pid: BTreeMap<u32, Process> = sockets::pids().filter_map(read).collect();
        let listeners = listeners(&by_pid, own_network, ports);
        Self {
            by_pid,
            own_network,
            listeners,
        }
    }

    /// Forgets where a process listens beside these ports: for something else than DNS.
    pub(super) fn keep_ports(&mut self, pid: u32, ports: &BTreeSet<u16>) {
        let is_kept = |listener: &Listener| !listener.pids.contains(&pid) || ports.contains(&listener.address.port());
        self.listeners.retain(is_kept);
    }

    /// A process by its number.
    pub(super) fn get(&self, pid: u32) -> Option<&Process> {
        self.by_pid.get(&pid)
    }

    /// The processes of one program; of those that fork, who has a listener, else the first.
    pub(super) fn of(&self, program: Program) -> impl Iterator<Item = &Process> {
        let mut all: Vec<_> = self
            .by_pid
            .values()
            .filter(|process| Program::of_process(&process.name) == Some(program))
            .collect();
        let listens = |process: &Process| {
            self.listeners
                .iter()
                .any(|listener| listener.pids.contains(&process.pid))
        };
        if all.iter().any(|process| listens(process)) {
            all.retain(|process| listens(process));
        }
        // A fork that shares every socket is the same resolver.
        let mut seen = BTreeSet::new();
        all.retain(|process| {
            let own: Vec<_> = self
                .listeners
                .iter()
                .filter(|listener| listener.pids.contains(&process.pid))
                .collect();
            let key = own.first().map(|listener| (listener.network, listener.address));
            key.is_none_or(|key| seen.insert(key))
        });
        all.into_iter()
    }
}

impl Process {
    /// Where its files are.
    pub(super) fn roots(&self) -> Roots {
        if self.is_elsewhere {
            Roots::below(format!("/proc/{}/root", self.pid))
        } else {
            Roots::host()
        }
    }

    /// The directory that its relative paths begin at.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }
}

fn listeners(processes: &BTreeMap<u32, Process>, own_network: u64, ports: &BTreeSet<u16>) -> Vec<Listener> {
    let mut networks: BTreeMap<u64, PathBuf> = BTreeMap::new();
    networks.insert(own_network, PathBuf::from("/proc/thread-self/net"));
    for process in processes.values() {
        let folder = || PathBuf::from(format!("/proc/{}/net", process.pid));
        networks.entry(process.network).or_insert_with(folder);
    }
    let mut owners: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for pid in processes.keys() {
        for inode in sockets::descriptors(*pid) {
            owners.entry(inode).or_default().push(*pid);
        }
    }
    let is_resolver = |pids: &[u32]| {
        let names = pids.iter().filter_map(|pid| processes.get(pid));
        names
            .into_iter()
            .any(|process| Program::of_process(&process.name).is_some())
    };
    let mut found: Vec<Listener> = Vec::new();
    for (network, folder) in networks {
        let tcp: BTreeSet<u16> = unconnected(&folder, ["tcp", "tcp6"])
            .map(|socket| socket.local.port())
            .collect();
        for socket in unconnected(&folder, ["udp", "udp6"]) {
            let (address, port) = (socket.local, socket.local.port());
            let pids = owners.get(&socket.inode).cloned().unwrap_or_default();
            let is_dns = ports.contains(&port) || is_resolver(&pids) && tcp.contains(&port);
            if !is_dns {
                continue;
            }
            // A server may have a socket for each of its threads.
            match found
                .iter_mut()
                .find(|known| known.network == network && known.address == address)
            {
                Some(known) => {
                    let news = pids.into_iter().filter(|pid| !known.pids.contains(pid));
                    let news: Vec<_> = news.collect();
                    known.pids.extend(news);
                }
                None => found.push(Listener { address, network, pids }),
            }
        }
    }
    found.sort_by_key(|listener| (listener.network, listener.address));
    found
}

fn unconnected(network: &Path, names: [&str; 2]) -> impl Iterator<Item = Socket> {
    sockets::tables(network, names)
        .into_iter()
        .filter(|socket| !socket.connected)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, process};

    use super::*;

    #[test]
    fn whoever_listens_on_a_port_of_dns_is_found_with_its_process() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = Processes::read(&BTreeSet::from([address.port()]));
        let listener = found
            .listeners
            .iter()
            .find(|listener| listener.address == address)
            .unwrap();
        assert_eq!(
            (&listener.pids[..], listener.network),
            (&[process::id()][..], found.own_network)
        );
        let own = found.get(process::id()).unwrap();
        assert_eq!((own.network, own.roots()), (found.own_network, Roots::host()));
        assert_eq!(own.directory(), std::env::current_dir().ok());
        let none = Processes::read(&BTreeSet::new());
        assert!(none.listeners.iter().all(|listener| listener.address != address));
    }
}
