//! What DNS queries pass through this network: a packet socket on all its interfaces at once.
//!
//! A filter in the kernel hands up only UDP packets that look like a DNS query, on whatever port. Ethernet or not, packets
//! come from their IP header on.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use guard_common::{
    packet::{Family, Packet},
    question::{FLAG_OPCODE, FLAG_QR, Message},
};
use nix::{
    errno::Errno,
    libc,
    net::if_::if_indextoname,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, getsockopt, recvfrom, setsockopt, socket,
        sockopt::{RcvBuf, RcvBufForce},
    },
};

use crate::sys;

/// Room for what comes while nobody reads.
const BUFFER: usize = 4 << 20;
/// Bytes of a packet that are read: the headers, the longest question, and more than any query has behind it.
const SNAP: u32 = 2_048;
/// Bytes of memory that the kernel counts for one DNS query, at most.
const MOST_OF_A_PACKET: usize = 8_192;
/// Bytes of an Ethernet header: what the walk of a frame expects in front.
const ETHERNET: usize = 14;

/// The socket.
#[derive(Debug)]
pub(super) struct Capture {
    socket: OwnedFd,
    frame: Vec<u8>,
    room: usize,
}

/// A DNS query on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'c> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// What is left of the TTL or hop limit.
    pub(super) ttl: u8,
    pub(super) id: u16,
    /// In wire form, as it is spelled.
    pub(super) name: &'c [u8],
    pub(super) qtype: u16,
    /// The DNS message.
    pub(super) message: &'c [u8],
    /// Index of the interface.
    pub(super) ifindex: u32,
}

impl Capture {
    /// Opens it in the network namespace of this thread. `None` where the kernel does not allow it: it takes `CAP_NET_RAW`.
    ///
    /// # Errors
    ///
    /// Whatever else the kernel says.
    pub(super) fn open() -> io::Result<Option<Self>> {
        // Linux knows no packet sockets without their module, and a seccomp filter may hide them.
        let refused = [Errno::EPERM, Errno::EACCES, Errno::EAFNOSUPPORT, Errno::ENOSYS];
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = match socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll) {
            Err(error) if refused.contains(&error) => return Ok(None),
            socket => socket?,
        };
        sys::attach_filter(socket.as_fd(), &mut filter())?;
        // More than the host's limit takes CAP_NET_ADMIN; up to it anybody may have.
        if setsockopt(&socket, RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &BUFFER)?;
        }
        let room = getsockopt(&socket, RcvBuf)? / MOST_OF_A_PACKET;
        Ok(Some(Self {
            room: room.max(1),
            socket,
            frame: vec![0; ETHERNET + SNAP as usize],
        }))
    }

    /// Reads one packet. `None` if there is none; `Some(None)` if it is no query after all.
    ///
    /// # Errors
    ///
    /// What the kernel says. That an interface went down is no error.
    pub(super) fn read(&mut self) -> io::Result<Option<Option<Query<'_>>>> {
        let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut self.frame[ETHERNET..]) {
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::ENETDOWN | Errno::EINTR) => return Ok(Some(None)),
            received => received?,
        };
        let Some(link) = from else {
            return Ok(Some(None));
        };
        // It is in network order already.
        self.frame[ETHERNET - 2..ETHERNET].copy_from_slice(&link.protocol().to_ne_bytes());
        let frame = &self.frame[..ETHERNET + length];
        Ok(Some(query(frame, link.ifindex() as u32)))
    }

    /// How many packets it has room for, at least.
    pub(super) const fn room(&self) -> usize {
        self.room
    }

    /// How many packets the kernel threw away since this was asked last, for want of room.
    pub(super) fn lost(&self) -> io::Result<u32> {
        sys::packets_lost(self.socket.as_fd())
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The name of an interface; its number, if it has gone.
pub(super) fn device(ifindex: u32) -> String {
    let name = if_indextoname(ifindex).ok();
    name.map_or_else(|| ifindex.to_string(), |name| name.to_string_lossy().into_owned())
}

/// Reads a frame as a query.
fn query(frame: &[u8], ifindex: u32) -> Option<Query<'_>> {
    let packet = Packet::walk(frame).ok()?;
    let (start, end) = packet.payload(frame)?;
    let message = Message::read(frame, start, end).ok()?;
    if message.header.is_response() {
        return None;
    }
    let (from, to) = packet.addresses(frame)?;
    let address = |octets: [u8; 16]| -> IpAddr { Ipv6Addr::from(octets).to_canonical() };
    let ttl_at = packet.ip_at + if packet.family == Family::V4 { 8 } else { 7 };
    let question = message.question;
    Some(Query {
        from: SocketAddr::new(address(from.octets()), packet.source_port),
        to: SocketAddr::new(address(to.octets()), packet.destination_port),
        ttl: *frame.get(ttl_at)?,
        id: message.header.id,
        name: frame.get(question.name_at..question.name_at + question.name_len)?,
        qtype: question.qtype,
        message: frame.get(start..end)?,
        ifindex,
    })
}

/// UDP that carries a header with QR and OPCODE clear and one question.
fn filter() -> [libc::sock_filter; 21] {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_BEHIND_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const X_IS_V4_HEADER: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    const X_IS: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const UDP: u32 = 17;
    const UDP_HEADER: u32 = 8;
    const FLAGS: u32 = (FLAG_QR | FLAG_OPCODE) as u32;
    /// Where the program says no.
    const NO: u8 = 20;
    let step = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // Jumps are counted from the step behind them.
    let test = |at: u8, k: u32, yes: u8, no: u8| libc::sock_filter {
        jt: yes - at - 1,
        jf: no - at - 1,
        ..step(IF_EQUAL, k)
    };
    // What would be read beyond the end of a packet ends the program with a no.
    [
        step(LOAD_BYTE, 0),
        step(AND, 0xf0),
        test(2, 0x40, 3, 8),
        // IPv4: 17 at byte 9, and no offset into a datagram that began elsewhere.
        step(LOAD_BYTE, 9),
        test(4, UDP, 5, NO),
        step(LOAD_HALF, 6),
        step(AND, 0x1fff),
        test(7, 0, 13, NO),
        // IPv6: no extension headers.
        test(8, 0x60, 9, NO),
        step(LOAD_BYTE, 6),
        test(10, UDP, 11, NO),
        step(X_IS, 40),
        step(GO, 1),
        step(X_IS_V4_HEADER, 0),
        // The DNS header: flags at byte 2, QDCOUNT at byte 4.
        step(LOAD_BEHIND_X, UDP_HEADER + 2),
        step(AND, FLAGS),
        test(16, 0, 17, NO),
        step(LOAD_BEHIND_X, UDP_HEADER + 4),
        test(18, 1, 19, NO),
        step(RETURN, SNAP),
        step(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 datagram with these ports and this payload, behind an Ethernet header.
    fn frame(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let udp_len = 8 + payload.len() as u16;
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + udp_len).to_be_bytes());
        frame.extend([0, 1, 0, 0, 63, 17, 0, 0, 10, 0, 0, 1, 127, 0, 0, 1]);
        frame.extend([from, to, udp_len, 0].map(u16::to_be_bytes).as_flattened());
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_query_is_read_with_whom_it_is_from_and_to() {
        let message = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06cOnSul\0\0\x2b\0\x01";
        let frame = frame(40_000, 8_600, message);
        let query = query(&frame, 7).unwrap();
        assert_eq!(
            format!("{} {} {}", query.from, query.to, query.ttl),
            "10.0.0.1:40000 127.0.0.1:8600 63"
        );
        assert_eq!((query.id, query.qtype, query.ifindex), (0x1234, 43, 7));
        assert_eq!((query.name, query.message), (&b"\x06cOnSul\0"[..], &message[..]));
    }

    #[test]
    fn a_response_is_no_query() {
        let message = b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0\x06consul\0\0\x2b\0\x01";
        assert!(query(&frame(53, 40_000, message), 1).is_none());
        assert!(query(&frame(53, 53, &message[..11]), 1).is_none());
    }
}
