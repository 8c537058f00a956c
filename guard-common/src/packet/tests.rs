use std::{net::IpAddr, vec, vec::Vec};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6RawExtHeader, NetHeaders, PacketHeaders,
    TransportHeader, ether_type,
};
use guard_tests::frame::Query;
use proptest::prelude::*;

use super::*;

const V4: [&str; 2] = ["192.0.2.1:40000", "192.0.2.2:53"];
const V6: [&str; 2] = ["[2001:db8::1]:40000", "[2001:db8::2]:53"];

fn query(ends: [&str; 2], vlans: &[u16]) -> Query {
    let mut query = Query::new("www.example.com", ends[0], ends[1]).unwrap();
    query.envelope.vlans = vlans.to_vec();
    query
}

fn walk(frame: &[u8]) -> Result<Packet, Stop> {
    Packet::walk(frame)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// An IPv4 packet with that header around a UDP query, behind an Ethernet header.
fn with_v4_header(change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let query = query(V4, &[]);
    let plain = query.frame().unwrap();
    let (mut header, datagram) = Ipv4Header::from_slice(&plain[14..]).unwrap();
    change(&mut header);
    header.total_len = (header.header_len() + datagram.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&plain[..14], &header.to_bytes(), datagram].concat()
}

/// An IPv6 packet whose headers go `first`, then the extension headers in `chain`, then UDP.
fn with_extensions(first: IpNumber, chain: &[u8]) -> Vec<u8> {
    let mut frame = query(V6, &[]).frame().unwrap();
    let payload_len = u16::from_be_bytes([frame[18], frame[19]]) + chain.len() as u16;
    frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
    frame[20] = first.0;
    frame.splice(54..54, chain.iter().copied());
    frame
}

fn extension(next: IpNumber, payload_len: usize) -> Vec<u8> {
    Ipv6RawExtHeader::new_raw(next, &vec![0; payload_len])
        .unwrap()
        .to_bytes()
        .to_vec()
}

#[test]
fn the_ports_are_found_behind_any_number_of_tags_up_to_two() {
    for (ends, family, ip_header_len) in [(V4, Family::V4, 20), (V6, Family::V6, 40)] {
        for vlans in [&[][..], &[7], &[7, 4094]] {
            let query = query(ends, vlans);
            let frame = query.frame().unwrap();
            let packet = walk(&frame).unwrap();
            let ip_at = 14 + vlans.len() * 4;
            let transport_at = ip_at + ip_header_len;
            assert_eq!(
                packet,
                Packet {
                    family,
                    transport: Transport::Udp,
                    ip_at,
                    transport_at,
                    ip_len: frame.len() - ip_at,
                    source_port: 40_000,
                    destination_port: 53,
                }
            );
            assert_eq!(packet.payload(frame.as_slice()), Some((transport_at + 8, frame.len())));
            assert_eq!(frame[transport_at + 8..], query.message().unwrap());
            let (source, destination) = packet.addresses(frame.as_slice()).unwrap();
            assert_eq!(source.octets(), octets(query.envelope.source.ip()));
            assert_eq!(destination.octets(), octets(query.envelope.destination.ip()));
            assert!(!packet.has_ip_options());
        }
    }
}

#[test]
fn a_third_tag_and_what_is_not_ip_is_none_of_ours() {
    let mut frame = query(V4, &[7, 8]).frame().unwrap();
    frame.splice(12..12, [0x88, 0xa8, 0, 6]);
    assert_eq!(walk(&frame), Err(Stop::Other));
    let mut arp = query(V4, &[]).envelope.link(ether_type::ARP).unwrap();
    arp.extend_from_slice(&[0; 28]);
    assert_eq!(walk(&arp), Err(Stop::Other));
    for protocol in [IpNumber::ICMP, IpNumber::GRE, IpNumber::SCTP] {
        assert_eq!(
            walk(&with_v4_header(|header| header.protocol = protocol)),
            Err(Stop::Other)
        );
        assert_eq!(walk(&with_extensions(protocol, &[])), Err(Stop::Other));
    }
}

#[test]
fn ipv4_options_are_stepped_over() {
    for words in 1..=10 {
        let frame = with_v4_header(|header| header.options = Ipv4Options::try_from(&[1; 40][..words * 4]).unwrap());
        let packet = walk(&frame).unwrap();
        assert_eq!((packet.source_port, packet.destination_port), (40_000, 53));
        assert_eq!(packet.transport_at, 34 + words * 4);
        assert_eq!(packet.payload(frame.as_slice()).unwrap().1, frame.len());
        assert!(packet.has_ip_options());
    }
}

#[test]
fn an_ipv4_header_shorter_than_itself_is_malformed() {
    for words in 0..5 {
        let mut frame = query(V4, &[]).frame().unwrap();
        frame[14] = 0x40 | words;
        assert_eq!(walk(&frame), Err(Stop::Malformed));
    }
    let mut frame = query(V4, &[]).frame().unwrap();
    frame[14] = 0x65;
    assert_eq!(walk(&frame), Err(Stop::Malformed), "version 6 under the type of IPv4");
    let mut frame = query(V6, &[]).frame().unwrap();
    frame[14] = 0x45;
    assert_eq!(walk(&frame), Err(Stop::Malformed), "version 4 under the type of IPv6");
}

#[test]
fn fragments_of_a_datagram_are_told_from_the_rest() {
    let first = with_v4_header(|header| header.more_fragments = true);
    let last = with_v4_header(|header| header.fragment_offset = IpFragOffset::try_new(185).unwrap());
    for frame in [first, last] {
        assert_eq!(walk(&frame), Err(Stop::Fragment));
    }
    let of_tcp = with_v4_header(|header| {
        header.more_fragments = true;
        header.protocol = IpNumber::TCP;
    });
    assert_eq!(walk(&of_tcp), Err(Stop::Other));

    let fragment = |next, offset, more| {
        Ipv6FragmentHeader::new(next, IpFragOffset::try_new(offset).unwrap(), more, 7)
            .to_bytes()
            .to_vec()
    };
    for (offset, more) in [(0, true), (185, true), (185, false)] {
        let chain = fragment(IpNumber::UDP, offset, more);
        assert_eq!(
            walk(&with_extensions(IpNumber::IPV6_FRAGMENTATION_HEADER, &chain)),
            Err(Stop::Fragment)
        );
        let behind_options = [extension(IpNumber::IPV6_FRAGMENTATION_HEADER, 6), chain].concat();
        assert_eq!(
            walk(&with_extensions(IpNumber::IPV6_DESTINATION_OPTIONS, &behind_options)),
            Err(Stop::Fragment)
        );
    }
    let of_tcp = fragment(IpNumber::TCP, 0, true);
    assert_eq!(
        walk(&with_extensions(IpNumber::IPV6_FRAGMENTATION_HEADER, &of_tcp)),
        Err(Stop::Other)
    );
}

#[test]
fn up_to_four_ipv6_extension_headers_are_stepped_over() {
    const KINDS: [IpNumber; 4] = [
        IpNumber::IPV6_HEADER_HOP_BY_HOP,
        IpNumber::IPV6_DESTINATION_OPTIONS,
        IpNumber::IPV6_ROUTE_HEADER,
        IpNumber::IPV6_DESTINATION_OPTIONS,
    ];
    for count in 1..=4 {
        for payload_len in [6, 14, 62] {
            let mut chain = Vec::new();
            for index in 0..count {
                let next = if index + 1 == count {
                    IpNumber::UDP
                } else {
                    KINDS[index + 1]
                };
                chain.extend(extension(next, payload_len));
            }
            let frame = with_extensions(KINDS[0], &chain);
            let packet = walk(&frame).unwrap();
            assert_eq!((packet.source_port, packet.destination_port), (40_000, 53));
            assert_eq!(packet.payload(frame.as_slice()), Some((62 + chain.len(), frame.len())));
            assert!(packet.has_ip_options());
        }
    }
    let mut five = extension(IpNumber::UDP, 6);
    for _ in 0..4 {
        five = [extension(IpNumber::IPV6_DESTINATION_OPTIONS, 6), five].concat();
    }
    assert_eq!(
        walk(&with_extensions(IpNumber::IPV6_DESTINATION_OPTIONS, &five)),
        Err(Stop::Other)
    );
}

#[test]
fn a_tcp_segment_tells_how_much_it_carries() {
    for (payload, options) in [(0, 0), (1, 0), (40, 12), (1_400, 40)] {
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40_000, 53, 1, 512)
            .options_raw(&vec![1; options])
            .unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![0; payload]).unwrap();
        let packet = walk(&frame).unwrap();
        assert_eq!(packet.transport, Transport::Tcp);
        assert_eq!(packet.segment_len(frame.as_slice()), Some(payload));
        // The padding that Ethernet adds to short frames is no payload.
        frame.resize(frame.len() + 6, 0);
        assert_eq!(packet.segment_len(frame.as_slice()), Some(payload));
        frame[packet.transport_at + 12] = 0x40;
        assert_eq!(packet.segment_len(frame.as_slice()), None);
    }
}

#[test]
fn lengths_that_contradict_each_other_give_no_payload() {
    let frame = query(V4, &[]).frame().unwrap();
    let packet = walk(&frame).unwrap();
    for (udp_len, fits) in [
        (0, false),
        (7, false),
        (8, true),
        (frame.len() - 34, true),
        (frame.len() - 33, false),
    ] {
        let mut frame = frame.clone();
        frame[38..40].copy_from_slice(&(udp_len as u16).to_be_bytes());
        assert_eq!(packet.payload(frame.as_slice()).is_some(), fits, "UDP length {udp_len}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_never_read_past_its_end() {
    for (ends, vlans) in [(V4, &[][..]), (V4, &[7, 8]), (V6, &[]), (V6, &[7])] {
        let frame = query(ends, vlans).frame().unwrap();
        let whole = walk(&frame).unwrap();
        for len in 0..frame.len() {
            let cut = &frame[..len];
            let packet = walk(cut);
            assert_eq!(packet.is_ok(), len >= whole.transport_at + 4, "{len} bytes");
            let Ok(packet) = packet else { continue };
            assert_eq!(packet, whole);
            assert_eq!(packet.payload(cut).is_some(), len >= whole.transport_at + 6);
        }
    }
}

/// Frames of every kind, as they are and with some bytes changed.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let seeds = vec![
        query(V4, &[]).frame().unwrap(),
        query(V4, &[7]).frame().unwrap(),
        query(V6, &[7, 8]).frame().unwrap(),
        with_v4_header(|header| header.options = Ipv4Options::from([1; 8])),
        with_extensions(
            IpNumber::IPV6_HEADER_HOP_BY_HOP,
            &[
                extension(IpNumber::IPV6_DESTINATION_OPTIONS, 6),
                extension(IpNumber::UDP, 14),
            ]
            .concat(),
        ),
    ];
    let changes = prop::collection::vec((0..80_usize, any::<u8>()), 0..4);
    (prop::sample::select(seeds), changes, any::<prop::sample::Index>()).prop_map(|(mut frame, changes, cut)| {
        for (at, byte) in changes {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        frame.truncate(frame.len() - cut.index(frame.len()) / 8);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_glance_tells_what_a_walk_tells(
        rest in prop::collection::vec(any::<u8>(), 0..80),
        ethertype in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x0060]),
        first in prop::sample::select(vec![0x45_u8, 0x44, 0x46, 0x60, 0x6f, 0x00]),
        protocol in prop::sample::select(vec![17_u8, 6, 1, 58, 0, 43, 44, 60]),
        fragment in prop::sample::select(vec![0_u16, 0x4000, 0x2000, 0x0001, 0x1fff]),
    ) {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(&rest);
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(14, &[first]);
        if ethertype == 0x0800 {
            put(20, &fragment.to_be_bytes());
            put(23, &[protocol]);
        } else {
            put(20, &[protocol]);
        }
        match glance(frame.as_slice()) {
            Glance::Unclear => {}
            Glance::Other => prop_assert_eq!(walk(&frame), Err(Stop::Other)),
            Glance::Segment(ports) => {
                let packet = walk(&frame).unwrap();
                prop_assert_eq!((packet.transport, packet.ports()), (Transport::Tcp, ports));
            }
            Glance::Datagram(family, ports) => {
                let packet = walk(&frame).unwrap();
                let plain = !packet.has_ip_options() && packet.ip_at == 14;
                prop_assert_eq!((packet.transport, packet.family, plain), (Transport::Udp, family, true));
                prop_assert_eq!(packet.ports(), ports);
            }
        }
    }

    #[test]
    fn a_glance_is_enough_for_plain_queries(v6: bool, port: u16) {
        let mut query = query(if v6 { V6 } else { V4 }, &[]);
        query.envelope.source.set_port(port);
        let family = if v6 { Family::V6 } else { Family::V4 };
        let frame = query.frame().unwrap();
        prop_assert_eq!(glance(frame.as_slice()), Glance::Datagram(family, Ports::new(port, 53)));
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = walk(&frame) {
            packet.payload(frame.as_slice());
            packet.segment_len(frame.as_slice());
            packet.addresses(frame.as_slice());
        }
    }

    /// Two parsers that share no code. etherparse is the stricter one: where it finds ports, so do we, and the same.
    #[test]
    fn what_etherparse_reads_is_what_we_read(frame in frames()) {
        let ours = walk(&frame);
        let Ok(theirs) = PacketHeaders::from_ethernet_slice(&frame) else { return Ok(()) };
        let fragment = match &theirs.net {
            Some(NetHeaders::Ipv4(ip, _)) => ip.is_fragmenting_payload(),
            Some(NetHeaders::Ipv6(_, extensions)) => extensions.fragment.is_some(),
            _ => false,
        };
        // It goes through more headers than we do: three tags, MACsec, authentication headers.
        let plain = match &theirs.net {
            Some(NetHeaders::Ipv4(_, extensions)) => extensions.auth.is_none(),
            Some(NetHeaders::Ipv6(_, extensions)) => extensions.auth.is_none(),
            _ => false,
        } && theirs.link_exts.len() <= 2 && theirs.link_exts.iter().all(|tag| tag.header_len() == 4);
        if !plain {
            return Ok(());
        }
        match theirs.transport {
            Some(TransportHeader::Udp(udp)) if !fragment => {
                let ours = ours.expect("etherparse found ports");
                prop_assert_eq!(ours.transport, Transport::Udp);
                prop_assert_eq!((ours.source_port, ours.destination_port), (udp.source_port, udp.destination_port));
                if let Some((start, end)) = ours.payload(frame.as_slice()) && end <= frame.len() {
                    prop_assert_eq!(&frame[start..end], &theirs.payload.slice()[..end - start]);
                }
                let (source, destination) = ours.addresses(frame.as_slice()).unwrap();
                let (theirs_source, theirs_destination) = match theirs.net.unwrap() {
                    NetHeaders::Ipv4(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
                    NetHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
                    NetHeaders::Arp(_) => unreachable!("there was UDP"),
                };
                prop_assert_eq!(source.octets(), octets(theirs_source));
                prop_assert_eq!(destination.octets(), octets(theirs_destination));
            }
            Some(TransportHeader::Tcp(tcp)) if !fragment => {
                let ours = ours.expect("etherparse found ports");
                prop_assert_eq!(ours.transport, Transport::Tcp);
                prop_assert_eq!((ours.source_port, ours.destination_port), (tcp.source_port, tcp.destination_port));
            }
            _ => prop_assert!(ours.is_err()),
        }
    }
}
