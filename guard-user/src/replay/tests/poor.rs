//! Captures that are not what one would wish.

use super::{
    file::{Order, Packet, pcap},
    packets::{Family, START_NS, looped, query, udp},
    *,
};

#[test]
fn a_truncated_capture_is_judged_up_to_there_and_ends_with_one() {
    let whole = ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    let mut packets = looped(Family::V4, 60);
    packets.pop();
    let shorter = ethernet(1, &on_lo(&[0x08, 0x00]), &packets);
    let replayed = jsonl().on(&whole[..whole.len() - 5]);
    let expected = jsonl().on(&shorter);
    assert_eq!(replayed.code(), exit::FAILED);
    let message = replayed.ended.as_ref().unwrap_err().to_string();
    assert!(message.starts_with("night.pcap: ends within the record"), "{message}");
    assert!(message.contains("frame 60 was the last before it"), "{message}");
    assert_eq!(replayed.events("trip"), expected.events("trip"));
    let mut summary = replayed.summary();
    assert!(message.ends_with(summary["damage"].as_str().unwrap()), "{summary}");
    summary.as_object_mut().unwrap().remove("damage");
    assert_eq!(summary, expected.summary());
}

#[test]
fn an_empty_file_is_an_error_and_an_empty_capture_is_none() {
    assert_eq!(jsonl().on(&[]).code(), exit::FAILED);
    let empty = jsonl().on(&pcap(Order::Big, 1_000, 113, &[]));
    assert_eq!(
        (empty.code(), empty.summary()["packets"].as_u64()),
        (exit::DONE, Some(0))
    );
}

#[test]
fn packets_that_are_cut_within_the_question_are_told_with_the_remedy() {
    let mut packets = behind(&on_lo(&[0x08, 0x00]), &looped(Family::V4, 9));
    // Behind the question of one, within the name, the header of the message, the ports, the IP header of others; and one
    // that is shorter than it says, without being cut.
    let length = packets[0].data.len();
    for (packet, captured) in packets
        .iter_mut()
        .zip([length - 1, length - 8, 14 + 20 + 8 + 5, 14 + 20 + 2, 14 + 9])
    {
        packet.cut = packet.data.len() - captured;
    }
    packets[9].data.truncate(length - 8);
    let summary = jsonl().on(&pcap(Order::Little, 1, 1, &packets)).summary();
    let unread = summary["unread"].as_array().unwrap();
    let of = |what: &str| unread.iter().find(|one| one["what"].as_str().unwrap().contains(what));
    assert_eq!(of("tcpdump -s 0").unwrap()["packets"], 5, "{summary}");
    assert_eq!(
        unread.iter().map(|one| one["packets"].as_u64().unwrap()).sum::<u64>(),
        6,
        "{summary}"
    );
    assert_eq!(summary["queries"], 4);
    // What is behind the question may be missing.
    let options = |packet: &mut Packet| {
        packet.data.extend([0; 40]);
        packet.cut = 40;
    };
    let mut packets = behind(&on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    packets.iter_mut().for_each(options);
    let replayed = jsonl().on(&pcap(Order::Little, 1, 1, &packets));
    assert_eq!(
        (replayed.code(), replayed.summary()["queries"].as_u64()),
        (exit::FOUND, Some(61))
    );
}

#[test]
fn a_clock_that_goes_back_stands_still_and_is_told() {
    let mut packets = behind(&on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    packets[10].at_ns -= 3_600_000_000_000;
    let replayed = jsonl().on(&pcap(Order::Little, 1, 1, &packets));
    assert_eq!(replayed.events("trip").len(), 1);
    let notes = replayed.summary()["notes"].to_string();
    assert!(
        notes.contains("1 packets are stamped earlier than one before them"),
        "{notes}"
    );
}

#[test]
fn a_night_without_packets_takes_no_time() {
    let mut packets = behind(&on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    packets.push(Packet {
        at_ns: u64::from(u32::MAX) * 1_000_000_000,
        ..packets[0].clone()
    });
    let replayed = jsonl().on(&pcap(Order::Little, 1, 1, &packets));
    let expired = &replayed.events("expire")[0];
    // The hold, and some seconds in which somebody might have asked again.
    let seconds = expired["seconds"].as_f64().unwrap();
    assert!((11.0..13.0).contains(&seconds), "{expired}");
    assert_eq!(expired["frame"], 61, "{expired}");
}

#[test]
fn link_types_that_are_not_known_are_named_and_counted() {
    let summary = jsonl().on(&ethernet(127, &[], &looped(Family::V4, 2))).summary();
    assert_eq!(summary["unread"][0]["what"], "link type 127 (802.11 with radiotap)");
    assert_eq!(
        (summary["unread"][0]["packets"].as_u64(), summary["packets"].as_u64()),
        (Some(3), Some(3))
    );
}

#[test]
fn what_is_no_dns_is_not_judged() {
    let mut packets = looped(Family::V4, 1);
    packets.push(Packet::new(START_NS, udp(Family::V4, (1, 123), (2, 123), &[0; 48])));
    packets.push(Packet::new(START_NS, vec![0x45]));
    packets.push(Packet::new(START_NS, vec![]));
    for link in [0, 1, 101, 113, 276] {
        let replayed = jsonl().on(&ethernet(link, &[], &packets));
        assert_eq!(replayed.summary()["packets"], 5, "link type {link}");
        assert_eq!(replayed.code(), exit::DONE);
    }
}

#[test]
fn names_cannot_steer_the_terminal() {
    let evil = "\u{1b}[2J.consul.";
    let packets: Vec<_> = looped(Family::V4, 60)
        .into_iter()
        .enumerate()
        .map(|(number, packet)| {
            let (from, to) = if number.is_multiple_of(2) { (1, 2) } else { (2, 1) };
            let data = query(Family::V4, (from, 50_000 + u16::from(from)), (to, 53), 9, evil);
            Packet { data, ..packet }
        })
        .collect();
    for output in [Format::Table, Format::Json, Format::Jsonl] {
        let call = Call {
            output,
            ..Call::default()
        };
        let replayed = call.on(&ethernet(101, &[], &packets));
        assert_eq!(replayed.code(), exit::FOUND);
        assert!(
            !replayed.out.contains('\u{1b}') && replayed.out.contains("consul."),
            "{}",
            replayed.out
        );
    }
}
