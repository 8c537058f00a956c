use super::*;
use crate::replay::tests::file::{Order, Packet, block, enhanced, interface, option, pcap, section, simple};

const AT_NS: u64 = 1_795_000_000_123_456_789;

/// A record without its data, and the data.
type Seen = (
    u64,
    Option<u64>,
    Option<(usize, u32, Option<String>)>,
    Option<bool>,
    usize,
    Vec<u8>,
);

/// Gives one byte at a time, as a pipe may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(room.len()).min(1);
        room[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Everything that can be read, and why no more.
fn read(file: &[u8]) -> (Vec<Seen>, Option<String>) {
    let whole = read_from(file);
    let bit_by_bit = read_from(Trickle(file));
    assert_eq!(whole, bit_by_bit);
    whole
}

fn read_from(input: impl Read) -> (Vec<Seen>, Option<String>) {
    let mut capture = match Capture::open(input) {
        Ok(capture) => capture,
        Err(damage) => return (Vec::new(), Some(damage.to_string())),
    };
    let mut seen = Vec::new();
    loop {
        match capture.next() {
            Ok(Some(record)) => seen.push((
                record.number,
                record.at_ns,
                record.interface.map(|(place, one)| (place, one.link, one.name.clone())),
                record.outgoing,
                record.wire_len,
                record.data.to_vec(),
            )),
            Ok(None) => return (seen, None),
            Err(damage) => return (seen, Some(damage.to_string())),
        }
    }
}

fn packets() -> [Packet; 2] {
    [
        Packet::new(AT_NS, b"the first".to_vec()),
        Packet {
            cut: 3,
            ..Packet::new(AT_NS + 1_000, b"the second packet".to_vec())
        },
    ]
}

fn damage(file: &[u8]) -> String {
    read(file).1.expect("it is damaged")
}

#[test]
fn pcap_is_read_in_both_orders_and_units() {
    for order in [Order::Little, Order::Big] {
        for unit_ns in [1, 1_000] {
            let (seen, damage) = read(&pcap(order, unit_ns, 113, &packets()));
            assert_eq!(damage, None, "{order:?}, {unit_ns} ns");
            let at_ns = AT_NS / unit_ns * unit_ns;
            let interface = Some((0, 113, None));
            let expected = [
                (1, Some(at_ns), interface.clone(), None, 9, b"the first".to_vec()),
                (2, Some(at_ns + 1_000), interface, None, 17, b"the second pac".to_vec()),
            ];
            assert_eq!(seen, expected, "{order:?}, {unit_ns} ns");
        }
    }
}

#[test]
fn the_length_of_a_check_sequence_is_no_part_of_the_link_type() {
    let (seen, _) = read(&pcap(Order::Little, 1, 0x2400_0001, &packets()));
    assert_eq!(seen[0].2, Some((0, 1, None)));
}

#[test]
fn pcapng_is_read_with_names_resolutions_and_directions() {
    for order in [Order::Little, Order::Big] {
        let [first, second] = packets();
        let ns = option(order, 9, &[9]);
        let name = option(order, 2, b"eth0");
        let offset = option(
            order,
            14,
            &match order {
                Order::Little => 1_795_000_000_i64.to_le_bytes(),
                Order::Big => 1_795_000_000_i64.to_be_bytes(),
            },
        );
        // 2^-10 seconds, counted from the offset.
        let binary = option(order, 9, &[0x8a]);
        let flags = |way: u32| [option(order, 2, &order.u32(way))];
        let file = [
            section(order),
            interface(order, 1, &[name, ns]),
            interface(order, 276, &[binary, offset]),
            interface(order, 101, &[]),
            block(order, 5, &[0; 12]),
            enhanced(order, 0, AT_NS, &first, &flags(2)),
            enhanced(order, 1, 512, &second, &flags(1)),
            enhanced(order, 2, AT_NS / 1_000, &first, &[]),
            simple(order, &first),
        ]
        .concat();
        let (seen, damage) = read(&file);
        assert_eq!(damage, None, "{order:?}");
        let data = b"the first".to_vec();
        let eth0 = Some((0, 1, Some("eth0".to_owned())));
        let expected = [
            (1, Some(AT_NS), eth0.clone(), Some(true), 9, data.clone()),
            (
                2,
                Some(1_795_000_000_500_000_000),
                Some((1, 276, None)),
                Some(false),
                17,
                b"the second pac".to_vec(),
            ),
            (
                3,
                Some(AT_NS / 1_000 * 1_000),
                Some((2, 101, None)),
                None,
                9,
                data.clone(),
            ),
            (4, None, eth0, None, 9, data),
        ];
        assert_eq!(seen, expected, "{order:?}");
    }
}

#[test]
fn each_section_has_interfaces_and_an_order_of_its_own() {
    let [first, _] = packets();
    let of = |order, link| {
        let stamp = AT_NS / 1_000;
        [
            section(order),
            interface(order, link, &[]),
            enhanced(order, 0, stamp, &first, &[]),
        ]
        .concat()
    };
    let (seen, damage) = read(&[of(Order::Little, 1), of(Order::Big, 113)].concat());
    assert_eq!(damage, None);
    let interfaces: Vec<_> = seen.iter().map(|seen| seen.2.clone()).collect();
    assert_eq!(interfaces, [Some((0, 1, None)), Some((1, 113, None))]);
}

#[test]
fn frames_that_are_no_packets_keep_the_numbers_of_wireshark() {
    let order = Order::Little;
    let [first, _] = packets();
    let file = [
        section(order),
        interface(order, 1, &[]),
        block(order, 2, &[0; 24]),
        enhanced(order, 0, 0, &first, &[]),
    ];
    let (seen, damage) = read(&file.concat());
    assert_eq!(damage, None);
    assert_eq!((seen[0].0, seen[0].2.clone()), (1, None));
    assert_eq!((seen[1].0, seen[1].5.as_slice()), (2, &b"the first"[..]));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_read_up_to_there() {
    let order = Order::Little;
    let [first, second] = packets();
    let ng = [
        section(order),
        interface(order, 1, &[]),
        enhanced(order, 0, 0, &first, &[]),
        enhanced(order, 0, 0, &second, &[]),
    ];
    let boundaries_ng = [0, ng[0].len(), ng[..2].concat().len(), ng[..3].concat().len()];
    for (file, boundaries) in [
        (pcap(order, 1, 1, &packets()), &[0, 24, 24 + 16 + 9][..]),
        (ng.concat(), &boundaries_ng),
    ] {
        for length in 0..file.len() {
            let (seen, damage) = read(&file[..length]);
            let whole = boundaries.iter().filter(|boundary| **boundary <= length).count();
            assert_eq!(seen.len(), whole.saturating_sub(boundaries.len() - 1), "{length}");
            match damage {
                None => assert!(length > 0 && boundaries.contains(&length), "{length}"),
                Some(damage) if length == 0 => assert!(damage.starts_with("is empty: no capture"), "{damage}"),
                Some(damage) => assert!(
                    damage.contains("ends within the record that begins at byte"),
                    "{damage}"
                ),
            }
        }
    }
}

#[test]
fn a_truncated_capture_says_where_it_ends() {
    let file = pcap(Order::Little, 1, 1, &packets());
    assert_eq!(
        damage(&file[..file.len() - 1]),
        "ends within the record that begins at byte 49; frame 1 was the last before it, and all up to there were judged; \
         copy it once more, or wait until whoever writes it has ended"
    );
}

#[test]
fn garbage_behind_good_records_is_found() {
    let mut file = pcap(Order::Little, 1, 1, &packets());
    let end = file.len();
    file.extend([0x58; 4_096]);
    let (seen, found) = read(&file);
    assert_eq!(seen.len(), 2);
    let found = found.unwrap();
    let told =
        format!("is damaged at byte {end}: a packet of 1482184792 bytes, 1048576 at most are possible; frame 2 was");
    assert!(found.starts_with(&told), "{found}");
    // A length that could be one, and a time stamp that cannot.
    file.truncate(end);
    file.extend([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 4, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4]);
    assert!(damage(&file).contains("a time stamp of 4294967295 parts of a second that has 1000000000"));
}

#[test]
fn blocks_that_contradict_themselves_are_found() {
    let order = Order::Little;
    let [first, _] = packets();
    let start = [section(order), interface(order, 1, &[])].concat();
    let good = enhanced(order, 0, 0, &first, &[]);
    let with = |last: Vec<u8>| [start.clone(), good.clone(), last].concat();
    let mut other_end = good.clone();
    *other_end.last_mut().unwrap() ^= 1;
    let mut longer = good.clone();
    longer[20] = 200;
    let mut endless = good.clone();
    endless[7] = 0x7f;
    let mut tiny = good.clone();
    tiny[4] = 8;
    let strange = block(order, 0x0a0d_0d0a, &[7; 16]);
    for (bytes, told) in [
        (other_end, "a block of type 0x6 that contradicts itself"),
        (longer, "a block of type 0x6 that contradicts itself"),
        (endless, "a block of 2130706476 bytes, 12 to 16777216 are possible"),
        (tiny, "a block of 8 bytes, 12 to 16777216 are possible"),
        (strange, "a section in an unknown order of bytes"),
        (
            enhanced(order, 3, 0, &first, &[]),
            "a packet of interface 3, where 1 are described",
        ),
        (
            interface(order, 1, &[option(order, 9, &[127])]),
            "an interface with time stamps of resolution 0x7f",
        ),
    ] {
        let (seen, damage) = read(&with(bytes));
        assert_eq!(seen.len(), 1, "{told}");
        let damage = damage.unwrap();
        let place = format!("at byte {}: {told}; frame 1 was the last", start.len() + good.len());
        assert!(damage.contains(&place), "{damage}");
    }
}

#[test]
fn what_is_no_capture_is_told_with_what_to_do() {
    for (bytes, told) in [
        (&b""[..], "is empty: no capture"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gunzip -c FILE | dnsguard replay -"),
        (b"snoop\0\0\0", "editcap -F pcapng"),
        (&[b'#'; 100], "is neither pcap nor pcapng"),
    ] {
        assert!(damage(bytes).contains(told), "{}", damage(bytes));
    }
}

#[test]
fn a_reader_that_fails_is_told_with_its_place() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::IsADirectory.into())
        }
    }
    let file = pcap(Order::Little, 1, 1, &packets());
    let (seen, damage) = read_from(file.chain(Fails));
    assert_eq!(seen.len(), 2);
    let damage = damage.unwrap();
    assert!(
        damage.starts_with(&format!("cannot be read from byte {} on: is a directory", file.len())),
        "{damage}"
    );
}
