//! What the kernel tells over netlink: links with their XDP programs, filters of clsact, routes, and that any of them
//! has changed.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlaBuffer, NlasIterator, parse_i32,
    parse_string, parse_u32,
};
use nix::libc::{
    AF_BRIDGE, AF_INET, AF_INET6, IFF_UP, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, IFLA_XDP, RT_TABLE_MAIN, RTA_DST, RTA_MULTIPATH, RTA_OIF, RTM_DELADDR, RTM_DELLINK, RTM_GETLINK,
    RTM_GETROUTE, RTM_GETTFILTER, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWTFILTER, RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK, RTN_UNICAST, TCA_KIND, TCA_OPTIONS,
};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv, send, setsockopt,
        socket, sockopt,
    },
};

use crate::attachment::Hook;

/// Room for a datagram of a dump; the kernel makes them 32 KiB at most.
const ROOM: usize = 64 << 10;

/// Room for news that nobody has read yet: thousands of interfaces that come at once.
const MONITOR_BYTES: usize = 4 << 20;

/// Bytes of `struct nlmsghdr`, and of what stands before the attributes: `struct ifinfomsg`, `tcmsg`, `rtmsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
const FILTER: usize = 20;
const ROUTE: usize = 12;

/// Attributes within `IFLA_XDP` (include/uapi/linux/if_link.h), and the mode in which each has its program.
const XDP_PROGRAMS: [(u16, &str); 3] = [(5, "driver"), (6, "generic"), (7, "hardware")];
/// Attributes of a BPF filter (include/uapi/linux/pkt_cls.h).
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// The two sides of a clsact qdisc, as parents of a filter (include/uapi/linux/pkt_sched.h).
const TC_H_INGRESS: u32 = 0xffff_fff2;
const TC_H_EGRESS: u32 = 0xffff_fff3;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    /// ARPHRD_* of include/uapi/linux/if_arp.h.
    pub(crate) link_type: u16,
    /// What software makes it, such as `veth`; empty where hardware does, and for `lo`.
    pub(crate) kind: String,
    /// Index of the bridge or bond that it is a port of; 0 if it is of none.
    pub(crate) master: u32,
    /// Whether its other end is in another network namespace.
    pub(crate) leads_elsewhere: bool,
    /// XDP programs: how each is attached, and its number.
    pub(crate) xdp: Vec<(&'static str, u32)>,
}

/// What has changed since the last look, as far as a list of all interfaces does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Interfaces that are gone for certain, by index. One of these indexes may be in use again.
    pub(crate) gone: BTreeSet<u32>,
    /// Addresses.
    pub(crate) addresses: bool,
}

/// A BPF filter at a clsact qdisc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// As whoever attached it called it.
    pub(crate) name: String,
    /// The number of its program.
    pub(crate) program: u32,
    /// Lower ones run first.
    pub(crate) priority: u16,
    /// One of those with this priority.
    pub(crate) handle: u32,
}

/// A socket in the network namespace of the thread that opened it. Asking takes no capability.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// What the kernel says to a socket.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = SockType::Raw;
        let socket = socket(
            AddressFamily::Netlink,
            kind,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn links(&self) -> io::Result<Vec<Link>> {
        let answers = self.ask(RTM_GETLINK, NLM_F_DUMP, &[0; LINK])?;
        Ok(answers.iter().filter_map(|answer| answer.link()).collect())
    }

    /// The BPF filters at one side of an interface, in the order in which they run.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn filters(&self, ifindex: u32, hook: Hook) -> io::Result<Vec<Filter>> {
        let parent = if matches!(hook, Hook::TcEgress) {
            TC_H_EGRESS
        } else {
            TC_H_INGRESS
        };
        // Family, interface, handle, parent, priority and protocol.
        let question = [0, ifindex, 0, parent, 0].map(u32::to_ne_bytes);
        let answers = self.ask(RTM_GETTFILTER, NLM_F_DUMP, question.as_flattened())?;
        let mut filters: Vec<_> = answers.iter().filter_map(|answer| answer.filter()).collect();
        filters.sort_by_key(|filter| filter.priority);
        Ok(filters)
    }

    /// The interface by which packets to this address leave.
    ///
    /// # Errors
    ///
    /// What the kernel says, such as that there is no route.
    pub(crate) fn route(&self, to: IpAddr) -> io::Result<u32> {
        let (family, octets) = match to {
            IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
        };
        let small = |number: usize| u8::try_from(number).map_err(io::Error::other);
        let mut question = vec![0; ROUTE];
        question[0] = u8::try_from(family).map_err(io::Error::other)?;
        question[1] = small(octets.len() * 8)?;
        // One attribute: its length, its kind, the address.
        let length = 4 + octets.len() as u16;
        question.extend(length.to_ne_bytes());
        question.extend(RTA_DST.to_ne_bytes());
        question.extend(octets);
        let answers = self.ask(RTM_GETROUTE, 0, &question)?;
        let found = answers.iter().find_map(Answer::route);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The interfaces by which the main routing table sends what it has no other route for.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn default_routes(&self) -> io::Result<BTreeSet<u32>> {
        let answers = self.ask(RTM_GETROUTE, NLM_F_DUMP, &[0; ROUTE])?;
        Ok(answers.iter().flat_map(Answer::default_route).collect())
    }

    /// Sends a question and gathers the answers.
    fn ask(&self, kind: u16, flags: u16, question: &[u8]) -> io::Result<Vec<Answer>> {
        let mut message = vec![0; HEADER + question.len()];
        let mut header = NetlinkBuffer::new(&mut message);
        header.set_length((HEADER + question.len()) as u32);
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | flags);
        header.payload_mut().copy_from_slice(question);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; ROOM];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut is_done = false;
            messages(buffer.get(..length).unwrap_or_default(), |kind, body| {
                match kind {
                    NLMSG_DONE => is_done = true,
                    NLMSG_ERROR => {
                        let code = body.get(..4).and_then(|code| parse_i32(code).ok()).unwrap_or_default();
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    kind => answers.push(Answer {
                        kind,
                        body: body.to_vec(),
                    }),
                }
                Ok(())
            })?;
            // Only a dump has an end of its own.
            if is_done || flags & NLM_F_DUMP == 0 {
                return Ok(answers);
            }
        }
    }
}

/// A socket that hears of every change of interfaces, addresses and routes.
#[derive(Debug)]
pub(crate) struct Monitor(OwnedFd);

impl Monitor {
    /// Opens it, in the network namespace of the thread that does.
    ///
    /// # Errors
    ///
    /// What the kernel says to a socket.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // As much as one may have: what does not fit is only told of.
        let _ = setsockopt(&socket, sockopt::RcvBuf, &MONITOR_BYTES);
        // A default route makes an interface lead outward.
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
        Ok(Self(socket))
    }

    /// Adds what has come since the last call.
    pub(crate) fn read(&self, changes: &mut Changes) {
        let mut buffer = vec![0; ROOM];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) | Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                // ENOBUFS: some was lost.
                Err(_) => {
                    changes.addresses = true;
                    return;
                }
                Ok(length) => {
                    let _ = messages(buffer.get(..length).unwrap_or_default(), |kind, body| {
                        match kind {
                            RTM_DELLINK => {
                                let ifindex = body.get(4..8).and_then(|ifindex| parse_u32(ifindex).ok());
                                // A bridge tells of a port that leaves it with the same message.
                                let is_bridge = body.first() == Some(&(AF_BRIDGE as u8));
                                changes.gone.extend(ifindex.filter(|_| !is_bridge));
                            }
                            RTM_NEWADDR | RTM_DELADDR => changes.addresses = true,
                            _ => {}
                        }
                        Ok(())
                    });
                }
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Hands on the kind and the body of each message in a datagram.
fn messages(mut rest: &[u8], mut each: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<()> {
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        each(message.message_type(), message.payload())?;
        let next = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(())
}

/// One message of an answer, without its header.
#[derive(Debug)]
struct Answer {
    kind: u16,
    body: Vec<u8>,
}

impl Answer {
    /// The attributes behind the fixed part.
    fn attributes(&self, fixed: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
        NlasIterator::new(self.body.get(fixed..).unwrap_or_default()).flatten()
    }

    /// A number in the fixed part.
    fn number(&self, at: usize) -> Option<u32> {
        parse_u32(self.body.get(at..at + 4)?).ok()
    }

    fn link(&self) -> Option<Link> {
        let mut link = Link {
            ifindex: self.number(4).filter(|_| self.kind == RTM_NEWLINK)?,
            link_type: u16::from_ne_bytes(self.body.get(2..4)?.try_into().ok()?),
            is_up: self.number(8)? & IFF_UP as u32 != 0,
            ..Link::default()
        };
        for attribute in self.attributes(LINK) {
            match attribute.kind() {
                IFLA_IFNAME => link.name = parse_string(attribute.value()).ok()?,
                IFLA_MASTER => link.master = parse_u32(attribute.value()).ok()?,
                IFLA_LINK_NETNSID => link.leads_elsewhere = true,
                IFLA_LINKINFO => {
                    let mut infos = NlasIterator::new(attribute.value()).flatten();
                    let kind = infos.find(|info| info.kind() == IFLA_INFO_KIND);
                    link.kind = kind
                        .and_then(|kind| parse_string(kind.value()).ok())
                        .unwrap_or_default();
                }
                IFLA_MTU => link.mtu = parse_u32(attribute.value()).ok()?,
                IFLA_XDP => {
                    for program in NlasIterator::new(attribute.value()).flatten() {
                        let mode = XDP_PROGRAMS.iter().find(|(kind, _)| *kind == program.kind());
                        let id = parse_u32(program.value()).ok().filter(|id| *id != 0);
                        link.xdp.extend(mode.zip(id).map(|((_, mode), id)| (*mode, id)));
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// A filter of the kind `bpf` that has a program. Each has a head without one, too.
    fn filter(&self) -> Option<Filter> {
        let mut found = Filter {
            // The upper half; the lower one is the protocol.
            handle: self.number(8)?,
            priority: (self.number(16).filter(|_| self.kind == RTM_NEWTFILTER)? >> 16) as u16,
            ..Filter::default()
        };
        let mut is_bpf = false;
        for attribute in self.attributes(FILTER) {
            match attribute.kind() {
                TCA_KIND => is_bpf = attribute.value() == b"bpf\0",
                TCA_OPTIONS => {
                    for option in NlasIterator::new(attribute.value()).flatten() {
                        match option.kind() {
                            TCA_BPF_NAME => found.name = parse_string(option.value()).unwrap_or_default(),
                            TCA_BPF_ID => found.program = parse_u32(option.value()).unwrap_or_default(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        (is_bpf && found.program != 0).then_some(found)
    }

    fn route(&self) -> Option<u32> {
        let mut attributes = self.attributes(ROUTE);
        let device = attributes.find(|attribute| attribute.kind() == RTA_OIF && self.kind == RTM_NEWROUTE)?;
        parse_u32(device.value()).ok()
    }

    /// The interfaces of a route for everything in the main table: one, or several that share it.
    fn default_route(&self) -> Vec<u32> {
        // `struct rtmsg`: family, length of the destination, of the source, TOS, table, protocol, scope, type.
        let [_, 0, _, _, RT_TABLE_MAIN, _, _, RTN_UNICAST, ..] = self.body.as_slice() else {
            return Vec::new();
        };
        let mut devices = Vec::new();
        for attribute in self.attributes(ROUTE).filter(|_| self.kind == RTM_NEWROUTE) {
            match attribute.kind() {
                RTA_OIF => devices.extend(parse_u32(attribute.value()).ok()),
                RTA_MULTIPATH => {
                    let mut hops = attribute.value();
                    // `struct rtnexthop`: length, flags, weight, interface; attributes behind it.
                    while let (Some(length), Some(device)) = (hops.get(..2), hops.get(4..8)) {
                        devices.extend(parse_u32(device).ok());
                        let length = u16::from_ne_bytes([length[0], length[1]]).max(8);
                        hops = hops.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
        devices
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, process::Command, thread};

    use nix::{
        net::if_::if_nametoindex,
        sched::{CloneFlags, unshare},
    };

    use super::*;

    #[test]
    fn loopback_is_a_link_and_the_way_to_itself() {
        let netlink = Netlink::open().unwrap();
        let links = netlink.links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.ifindex, lo.mtu, lo.xdp.len()), (1, 65_536, 0));
        assert_eq!(netlink.filters(lo.ifindex, Hook::TcIngress).unwrap(), []);
        assert_eq!(netlink.route(Ipv4Addr::LOCALHOST.into()).unwrap(), lo.ifindex);
        let gone = netlink.route("240.0.0.1".parse().unwrap());
        assert!(gone.is_err() || gone.is_ok_and(|ifindex| ifindex != lo.ifindex));
    }

    #[test]
    fn many_links_come_in_many_datagrams() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not run: needs root for a network namespace");
            return;
        }
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let ip = |arguments: &str| {
                let status = Command::new("ip").args(arguments.split(' ')).status();
                assert!(status.unwrap().success(), "ip {arguments}");
            };
            for number in 0..30 {
                ip(&format!("link add d{number} mtu 1400 type veth peer name p{number}"));
            }
            ip("link set d7 up");
            ip("link set p7 up");
            ip("address add 10.0.0.1/24 dev d7");
            let netlink = Netlink::open().unwrap();
            let links = netlink.links().unwrap();
            assert_eq!(links.len(), 61, "lo and those");
            let seven = links.iter().find(|link| link.name == "d7").unwrap();
            assert_eq!(
                (seven.mtu, seven.is_up, seven.ifindex),
                (1400, true, if_nametoindex("d7").unwrap())
            );
            assert_eq!(netlink.route("10.0.0.9".parse().unwrap()).unwrap(), seven.ifindex);
            assert!(netlink.route("10.0.1.9".parse().unwrap()).is_err());
        };
        thread::spawn(inside).join().unwrap();
    }
}
