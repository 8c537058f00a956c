//! Whole frames, built by independent libraries: messages by hickory-proto, headers and checksums by etherparse.
//!
//! What the guard makes of a packet is compared with these, byte for byte.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, SingleVlanHeader, UdpHeader, VlanId, ether_type,
};
use hickory_proto::{
    op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, OpCode, Query as Asked, ResponseCode},
    rr::{RecordType, rdata::opt::EdnsOption},
};

use crate::question::Question;

/// The Extended DNS Error that the guard puts into an answer: INFO-CODE and EXTRA-TEXT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede(pub u16, pub &'static str);

/// Of the query that gives a loop away.
pub const LOOP: Ede = Ede(0, "dnsguard: query loop");
/// Of those after it.
pub const HELD: Ede = Ede(13, "dnsguard: query loop");
/// Of a query over budget.
pub const RATE_LIMIT: Ede = Ede(0, "dnsguard: rate limit");
/// Of a query for recursion by a stranger.
pub const PROHIBITED: Ede = Ede(18, "dnsguard: prohibited");

/// The code of the Extended DNS Error option (RFC 8914 section 2).
const OPTION_EDE: u16 = 15;
/// The message size that the guard says it takes (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1_232;

/// What lies in front of a message.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// VLAN tags, the outer one first: 802.1ad in front of 802.1Q where there are two.
    pub vlans: Vec<u16>,
    /// Hardware addresses of sender and receiver.
    pub stations: [[u8; 6]; 2],
    /// Sender.
    pub source: SocketAddr,
    /// Receiver, of the same family.
    pub destination: SocketAddr,
    /// The identification of an IPv4 packet, or the flow label of an IPv6 packet.
    pub mark: u16,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// Whether and how a query speaks EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edns0 {
    /// It does not.
    Without,
    /// With an OPT record.
    With {
        /// Whether DO is set.
        dnssec_ok: bool,
    },
}

/// A query in its envelope.
#[derive(Clone, Debug)]
pub struct Query {
    /// What lies in front of it.
    pub envelope: Envelope,
    /// What is asked.
    pub question: Question,
    /// The ID.
    pub id: u16,
    /// RD and CD.
    pub recursion_desired: bool,
    /// CD.
    pub checking_disabled: bool,
    /// EDNS.
    pub edns: Edns0,
}

impl Query {
    /// A query for type A from `source` to `destination`, with RD and an OPT record.
    pub fn new(name: &str, source: &str, destination: &str) -> Result<Self> {
        Ok(Self {
            envelope: Envelope {
                vlans: Vec::new(),
                stations: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
                source: source.parse().with_context(|| format!("source {source}"))?,
                destination: destination
                    .parse()
                    .with_context(|| format!("destination {destination}"))?,
                mark: 0x1234,
                ttl: 63,
            },
            question: Question::new(name, RecordType::A)?,
            id: 0xbeef,
            recursion_desired: true,
            checking_disabled: false,
            edns: Edns0::With { dnssec_ok: false },
        })
    }

    /// The message.
    pub fn message(&self) -> Result<Vec<u8>> {
        let mut message = Message::query();
        self.fill(&mut message);
        if let Edns0::With { dnssec_ok } = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN)
                .set_version(0)
                .set_dnssec_ok(dnssec_ok);
            message.set_edns(edns);
        }
        Ok(message.to_vec()?)
    }

    /// The frame.
    pub fn frame(&self) -> Result<Vec<u8>> {
        self.envelope.around(&self.message()?)
    }

    /// The message that the guard answers with.
    pub fn answer_message(&self, rcode: ResponseCode, ede: Ede) -> Result<Vec<u8>> {
        let mut message = Message::response(self.id, OpCode::Query);
        self.fill(&mut message);
        message.metadata.recursion_available = true;
        message.metadata.response_code = rcode;
        if let Edns0::With { dnssec_ok } = self.edns {
            let Ede(info_code, text) = ede;
            let mut option = info_code.to_be_bytes().to_vec();
            option.extend_from_slice(text.as_bytes());
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_PAYLOAD)
                .set_version(0)
                .set_dnssec_ok(dnssec_ok);
            edns.options_mut().insert(EdnsOption::Unknown(OPTION_EDE, option));
            message.set_edns(edns);
        }
        Ok(message.to_vec()?)
    }

    /// The frame that the guard answers with.
    pub fn answer_frame(&self, rcode: ResponseCode, ede: Ede) -> Result<Vec<u8>> {
        self.envelope.back().around(&self.answer_message(rcode, ede)?)
    }

    fn fill(&self, message: &mut Message) {
        message.metadata.id = self.id;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.add_query(Asked::query(self.question.name.clone(), self.question.kind));
    }
}

impl Envelope {
    /// The envelope of a reply: everything turned round, a TTL of its own.
    pub fn back(&self) -> Self {
        let [from, to] = self.stations;
        Self {
            stations: [to, from],
            source: self.destination,
            destination: self.source,
            ttl: 64,
            ..self.clone()
        }
    }

    /// The frame of a UDP datagram with this payload, checksums complete.
    pub fn around(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let mut udp = UdpHeader {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            length: u16::try_from(8 + payload.len())?,
            checksum: 0,
        };
        let (kind, ip) = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    udp.length,
                    self.ttl,
                    IpNumber::UDP,
                    source.octets(),
                    destination.octets(),
                )?;
                header.identification = self.mark;
                header.dont_fragment = true;
                header.header_checksum = header.calc_header_checksum();
                udp.checksum = udp.calc_checksum_ipv4(&header, payload)?;
                (ether_type::IPV4, header.to_bytes().to_vec())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    flow_label: u32::from(self.mark).try_into()?,
                    payload_length: udp.length,
                    next_header: IpNumber::UDP,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                udp.checksum = udp.calc_checksum_ipv6(&header, payload)?;
                (ether_type::IPV6, header.to_bytes().to_vec())
            }
            (source, destination) => anyhow::bail!("{source} and {destination} are of two families"),
        };
        let mut frame = self.link(kind)?;
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&udp.to_bytes());
        frame.extend_from_slice(payload);
        Ok(frame)
    }

    /// The Ethernet header and the VLAN tags in front of something of this type.
    pub fn link(&self, kind: EtherType) -> Result<Vec<u8>> {
        ensure!(self.vlans.len() <= 2, "two tags at most");
        let types = match self.vlans.len() {
            0 => vec![kind],
            1 => vec![ether_type::VLAN_TAGGED_FRAME, kind],
            _ => vec![ether_type::PROVIDER_BRIDGING, ether_type::VLAN_TAGGED_FRAME, kind],
        };
        let [source, destination] = self.stations;
        let ethernet = Ethernet2Header {
            source,
            destination,
            ether_type: types[0],
        };
        let mut frame = ethernet.to_bytes().to_vec();
        for (vlan, kind) in self.vlans.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*vlan)?,
                ether_type: *kind,
                ..SingleVlanHeader::default()
            };
            frame.extend_from_slice(&tag.to_bytes());
        }
        Ok(frame)
    }
}

/// Whether every checksum of a frame made by [`Envelope::around`] is right, by etherparse's reckoning.
pub fn checksums_hold(frame: &[u8]) -> Result<bool> {
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame)?;
    let payload = headers.payload.slice();
    let Some(etherparse::TransportHeader::Udp(udp)) = headers.transport else {
        anyhow::bail!("no UDP")
    };
    Ok(match headers.net.context("no IP")? {
        etherparse::NetHeaders::Ipv4(ip, _) => {
            ip.calc_header_checksum() == ip.header_checksum && udp.calc_checksum_ipv4(&ip, payload)? == udp.checksum
        }
        etherparse::NetHeaders::Ipv6(ip, _) => {
            udp.checksum != 0 && udp.calc_checksum_ipv6(&ip, payload)? == udp.checksum
        }
        etherparse::NetHeaders::Arp(_) => false,
    })
}

/// The frame as the kernel hands it to a card that completes checksums: in place of the UDP checksum the sum over the
/// pseudo header (`CHECKSUM_PARTIAL`, Documentation/networking/checksum-offloads.rst).
pub fn left_to_the_card(frame: &[u8]) -> Result<Vec<u8>> {
    use etherparse::checksum::u64_16bit_word::{add_2bytes, add_slice, ones_complement};
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame)?;
    let udp_len = 8 + headers.payload.slice().len();
    let addresses = match headers.net.context("no IP")? {
        etherparse::NetHeaders::Ipv4(ip, _) => [ip.source, ip.destination].concat(),
        etherparse::NetHeaders::Ipv6(ip, _) => [ip.source, ip.destination].concat(),
        etherparse::NetHeaders::Arp(_) => anyhow::bail!("no UDP"),
    };
    let sum = add_2bytes(add_slice(0, &addresses), u16::try_from(udp_len)?.to_be_bytes());
    let sum = !ones_complement(add_2bytes(sum, [0, IpNumber::UDP.0]));
    let mut frame = frame.to_vec();
    let checksum_at = frame.len() - udp_len + 6;
    frame[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_ne_bytes());
    Ok(frame)
}
