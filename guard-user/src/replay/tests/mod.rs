pub(super) mod file;
mod packets;

use std::fs;

use serde_json::Value;

use self::{
    file::{Order, Packet, enhanced, interface, option, pcap, section},
    packets::{Family, START_NS, looped, query, udp},
};
use super::*;

/// What a replay prints, and how it ends.
struct Replayed {
    ended: Result<u8, Stopped>,
    out: String,
}

/// How it is called, beside the capture.
#[derive(Clone, Debug, Default)]
struct Call {
    toml: &'static str,
    mode: Option<Mode>,
    interface: Option<&'static str>,
    locals: &'static [&'static str],
    output: Format,
}

impl Call {
    fn on(&self, capture: &[u8]) -> Replayed {
        let mut out = Vec::new();
        let ended = self.guarded().and_then(|guarded| {
            let out = anstream::StripStream::new(&mut out);
            guarded.replay(Path::new("night.pcap"), capture, Progress::new(None), out, self.output)
        });
        let out = String::from_utf8(out).unwrap();
        Replayed { ended, out }
    }

    fn guarded(&self) -> Result<Guarded, Stopped> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), self.toml).unwrap();
        let args = Args {
            file: PathBuf::new(),
            config: None,
            mode: self.mode,
            interfaces: self.interface.iter().map(|text| Given::parse(text).unwrap()).collect(),
            locals: self.locals.iter().map(|text| Local::parse(text).unwrap()).collect(),
            output: self.output,
        };
        let config = adapted(Config::load(file.path()).unwrap(), &args);
        Guarded::new(config, &args.interfaces, &args.locals)
    }
}

impl Replayed {
    /// The exit code.
    fn code(&self) -> u8 {
        match &self.ended {
            Ok(code) => *code,
            Err(stopped) => stopped.code(),
        }
    }

    fn lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn summary(&self) -> Value {
        self.lines().pop().unwrap()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["event"] == kind);
        lines
    }
}

fn jsonl() -> Call {
    Call {
        output: Format::Jsonl,
        ..Call::default()
    }
}

/// Packets with something in front of each.
fn behind(header: &[u8], packets: &[Packet]) -> Vec<Packet> {
    let behind = |packet: &Packet| Packet {
        data: [header, &packet.data].concat(),
        ..packet.clone()
    };
    packets.iter().map(behind).collect()
}

fn ethernet(link: u32, header: &[u8], packets: &[Packet]) -> Vec<u8> {
    pcap(Order::Little, 1, link, &behind(header, packets))
}

/// An Ethernet header of `lo` with such EtherTypes and tags.
fn on_lo(types: &[u8]) -> Vec<u8> {
    [&[0; 12], types].concat()
}

#[test]
fn the_same_packets_tell_the_same_whatever_they_were_captured_with() {
    let order = Order::Little;
    for (family, ethertype, bsd) in [(Family::V4, [0x08, 0x00], 2_u32), (Family::V6, [0x86, 0xdd], 30)] {
        let packets = looped(family, 60);
        let call = Call {
            interface: Some("lo"),
            ..jsonl()
        };
        let expected = call.on(&ethernet(1, &on_lo(&ethertype), &packets));
        assert_eq!(expected.code(), exit::FOUND, "{}", expected.out);
        let trips = expected.events("trip");
        assert_eq!(trips.len(), 1, "{}", expected.out);
        let (first, next) = match family {
            Family::V4 => ("127.0.0.1:53", "127.0.0.2:53"),
            Family::V6 => ("[fd00::1]:53", "[fd00::2]:53"),
        };
        assert_eq!(trips[0]["loop"].as_array().unwrap().len(), 2, "{}", trips[0]);
        for server in [first, next] {
            assert!(
                trips[0]["loop"].as_array().unwrap().contains(&server.into()),
                "{}",
                trips[0]
            );
        }

        let mut sll = vec![0, 0, 0x03, 0x04, 0, 6];
        sll.extend([0; 8]);
        sll.extend(ethertype);
        let mut sll2 = ethertype.to_vec();
        sll2.extend([0, 0, 0, 0, 0, 1, 0x03, 0x04, 0, 6]);
        sll2.extend([0; 8]);
        let tagged = [&[0x81, 0x00, 0, 7], &ethertype[..]].concat();
        let twice = [&[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 8], &ethertype[..]].concat();
        let mut sll_tagged = sll.clone();
        sll_tagged.truncate(14);
        sll_tagged.extend_from_slice(&tagged);
        let only = match family {
            Family::V4 => 228,
            Family::V6 => 229,
        };
        for (link, header) in [
            (1, on_lo(&tagged)),
            (1, on_lo(&twice)),
            (0, bsd.to_le_bytes().to_vec()),
            (0, bsd.to_be_bytes().to_vec()),
            (108, bsd.to_be_bytes().to_vec()),
            (12, vec![]),
            (14, vec![]),
            (101, vec![]),
            (only, vec![]),
            (113, sll),
            (113, sll_tagged),
            (276, sll2),
        ] {
            let file = ethernet(link, &header, &packets);
            let replayed = call.on(&file);
            assert_eq!(
                replayed.out, expected.out,
                "{family:?}, link type {link}, {header:02x?}"
            );
            assert_eq!(replayed.code(), exit::FOUND);
            assert_eq!(call.on(&file).out, replayed.out, "not the same twice");
        }

        let framed = behind(&on_lo(&ethertype), &packets);
        for order in [order, Order::Big] {
            assert_eq!(call.on(&pcap(order, 1, 1, &framed)).out, expected.out);
            assert_eq!(
                call.on(&pcap(order, 1_000, 1, &framed)).out,
                expected.out,
                "they are on whole microseconds"
            );
            let mut ng = section(order);
            ng.extend(interface(order, 1, &[option(order, 2, b"lo")]));
            for packet in &framed {
                ng.extend(enhanced(order, 0, packet.at_ns / 1_000, packet, &[]));
            }
            assert_eq!(call.on(&ng).out, expected.out);
        }
    }
}

#[test]
fn an_event_has_its_frame_its_time_and_what_the_agent_says() {
    let capture = ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    let replayed = jsonl().on(&capture);
    let trip = &replayed.events("trip")[0];
    let frame = trip["frame"].as_u64().unwrap();
    assert!((8..=32).contains(&frame), "{trip}");
    assert_eq!(trip["seconds"].as_f64().unwrap(), (frame - 1) as f64 * 0.000_2);
    let time = rfc3339_of(frame - 1);
    assert_eq!(trip["time"], time.as_str());
    assert_eq!((trip["schema"].as_u64(), trip["id"].as_u64()), (Some(1), Some(0xbeef)));
    assert_eq!(
        (trip["proof"].as_str(), trip["verdict"].as_str()),
        (Some("suspected"), Some("would_answer"))
    );
    let summary = replayed.summary();
    assert_eq!(
        (summary["event"].as_str(), summary["schema"].as_u64()),
        (Some("summary"), Some(1))
    );
    assert_eq!(
        (summary["packets"].as_u64(), summary["queries"].as_u64()),
        (Some(61), Some(61))
    );
    assert_eq!(summary["first"], rfc3339_of(0).as_str());
    assert_eq!(summary["loops"][0]["frame"].as_u64(), Some(frame));
    assert_eq!(summary["loops"][0]["held"].as_u64(), Some(61 - frame + 1), "{summary}");
}

fn rfc3339_of(number: u64) -> String {
    crate::events::rfc3339_ns(START_NS + number * 200_000)
}

#[test]
fn json_is_one_document() {
    let call = Call {
        output: Format::Json,
        ..Call::default()
    };
    let capture = ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    for (capture, events) in [(capture, 1), (pcap(Order::Little, 1, 1, &[]), 0)] {
        let document: Value = serde_json::from_str(&call.on(&capture).out).unwrap();
        assert_eq!(document["schema"], 1);
        assert_eq!(document["events"].as_array().unwrap().len(), events);
        assert_eq!(document["summary"]["file"], "night.pcap");
    }
}

#[test]
fn a_table_tells_people_what_came_of_it() {
    let capture = ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60));
    let replayed = Call::default().on(&capture);
    let lines: Vec<_> = replayed.out.lines().collect();
    assert!(lines[0].trim_start().starts_with("FRAME  TIME"), "{}", replayed.out);
    assert!(
        lines[1].contains("suspected loop: query x.consul. A seems to go round between"),
        "{}",
        replayed.out
    );
    assert!(
        replayed.out.contains("night.pcap, judged in observe mode"),
        "{}",
        replayed.out
    );
    assert!(
        replayed.out.contains("61 queries, 0 answers, 0 errors"),
        "{}",
        replayed.out
    );
    let quiet = Call::default().on(&ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 3)));
    assert_eq!(quiet.code(), exit::DONE);
    assert!(quiet.out.starts_with("no loop, no storm"), "{}", quiet.out);
}

#[test]
fn in_enforce_mode_the_words_are_those_of_enforce_mode() {
    let call = Call {
        mode: Some(Mode::Enforce),
        ..jsonl()
    };
    let replayed = call.on(&ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60)));
    assert_eq!(replayed.events("trip")[0]["verdict"], "answer");
    let summary = replayed.summary();
    assert_eq!(summary["mode"], "enforce");
    let notes = summary["notes"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note.as_str().unwrap().contains("goes on in the capture all the same")),
        "{summary}"
    );
}

#[test]
fn a_loop_that_the_configuration_allows_is_told_and_not_held() {
    let call = Call {
        toml: "mode = 'enforce'\nallow = ['x.consul. A']\n",
        ..jsonl()
    };
    let replayed = call.on(&ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60)));
    assert_eq!(
        replayed.events("trip")[0]["verdict"],
        "would_answer",
        "{}",
        replayed.out
    );
    let summary = replayed.summary();
    for judged in summary["verdicts"].as_array().unwrap() {
        assert!(judged["verdict"].as_str().unwrap().starts_with("would_"), "{summary}");
    }
}

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

const ONE_A_SECOND: &str = "[attach]\ninterfaces = ['lo', 'eth0', 'eth1']\n[[budget]]\nname = 'few'\nscope = 'all'\nlimit = 1\n\
                            interfaces = ['eth0']\ndirection = 'both'\n";

/// Queries for different names, one every 10 ms, from one host to another.
fn load(from: u8, to: u8) -> Vec<Packet> {
    let packet = |number: u16| {
        let name = format!("n{number}.example.");
        let data = query(Family::V4, (from, 2_000 + number), (to, 53), number, &name);
        Packet::new(START_NS + u64::from(number) * 10_000_000, data)
    };
    (0..200).map(packet).collect()
}

#[test]
fn a_budget_finds_its_interface_by_name() {
    let call = Call {
        toml: ONE_A_SECOND,
        ..jsonl()
    };
    let order = Order::Little;
    let named = |name: &[u8]| {
        let mut ng = [section(order), interface(order, 101, &[option(order, 2, name)])].concat();
        for packet in load(4, 5) {
            ng.extend(enhanced(order, 0, packet.at_ns / 1_000, &packet, &[]));
        }
        ng
    };
    let replayed = call.on(&named(b"eth0"));
    assert_eq!(replayed.code(), exit::FOUND);
    let summary = replayed.summary();
    assert_eq!(
        (
            summary["budgets"][0]["budget"].as_str(),
            summary["budgets"][0]["within"].as_u64()
        ),
        (Some("few"), Some(2))
    );
    let storms = replayed.events("over_budget");
    assert_eq!(
        (storms[0]["device"].as_str(), storms[0]["zones"][0]["zone"].as_str()),
        (Some("eth0"), Some("example."))
    );
    assert_eq!(call.on(&named(b"eth7")).code(), exit::DONE);

    // Several are guarded, and the capture does not say which one it is of.
    let unnamed = ethernet(101, &[], &load(4, 5));
    let unknown = call.on(&unnamed);
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"].to_string().contains("--interface NAME"),
        "{}",
        unknown.out
    );
    let given = Call {
        interface: Some("eth0"),
        ..call
    };
    assert_eq!(given.on(&unnamed).code(), exit::FOUND);

    // All interfaces at once, with their indexes.
    let mut header = vec![0x08, 0x00, 0, 0, 0, 0, 0, 7, 0, 1, 0, 6];
    header.extend([0; 8]);
    let any = ethernet(276, &header, &load(4, 5));
    let unknown = given.on(&any);
    assert_eq!(unknown.summary()["interfaces"][0]["device"], "#7");
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"]
            .to_string()
            .contains("--interface INDEX=NAME"),
        "{}",
        unknown.out
    );
    let named = Call {
        interface: Some("7=eth0"),
        ..given
    };
    assert_eq!(named.on(&any).code(), exit::FOUND);
}

#[test]
fn what_is_local_goes_out() {
    let call = Call {
        toml: "[attach]\ninterfaces = ['eth0']\n",
        locals: &["127.0.0.4", "fd00::/64"],
        ..jsonl()
    };
    let directions = |capture: &[u8]| {
        let summary = call.on(capture).summary();
        let one = &summary["interfaces"][0];
        assert_eq!(one["device"], "eth0", "{summary}");
        (one["incoming"].as_u64().unwrap(), one["outgoing"].as_u64().unwrap())
    };
    assert_eq!(directions(&ethernet(101, &[], &load(4, 5))), (0, 200));
    assert_eq!(directions(&ethernet(101, &[], &load(5, 4))), (200, 0));
    assert_eq!(directions(&ethernet(101, &[], &looped(Family::V6, 5))), (0, 6));
    let station = [&[2; 12], &[0x81, 0x00, 0, 7, 0x08, 0x00][..]].concat();
    assert_eq!(directions(&ethernet(1, &station, &load(4, 5))), (0, 200));
}

#[test]
fn the_leaving_copy_of_a_packet_on_lo_is_left_out() {
    let mut header = vec![0x08, 0x00, 0, 0, 0, 0, 0, 1, 0x03, 0x04, 4, 6];
    header.extend([0; 8]);
    let mut packets = Vec::new();
    for packet in looped(Family::V4, 60) {
        packets.extend(behind(&header, std::slice::from_ref(&packet)));
        header[10] = 0;
        packets.extend(behind(&header, std::slice::from_ref(&packet)));
        header[10] = 4;
    }
    let replayed = jsonl().on(&pcap(Order::Little, 1, 276, &packets));
    let once = jsonl().on(&ethernet(1, &on_lo(&[0x08, 0x00]), &looped(Family::V4, 60)));
    let fields = |replayed: &Replayed| {
        let trip = &replayed.events("trip")[0];
        ["time", "recirculated", "hops", "evidence", "device"].map(|field| trip[field].clone())
    };
    assert_eq!(fields(&replayed), fields(&once));
    assert_eq!(replayed.summary()["unread"][0]["packets"], 61);
}

const AWS: &str = "[attach]\ninterfaces = ['eth0']\n[[budget]]\npreset = 'aws-link-local'\nlimit = 10\n";

#[test]
fn the_link_local_budget_needs_to_know_the_vpc_and_which_way_packets_go() {
    let call = Call { toml: AWS, ..jsonl() };
    let error = call.on(&[]).ended.unwrap_err();
    assert_eq!(error.code(), exit::BAD_USAGE);
    assert!(error.to_string().contains("set vpc = "), "{error}");

    const WITH_VPC: &str = "[attach]\ninterfaces = ['eth0']\n[[budget]]\npreset = 'aws-link-local'\nlimit = 10\n\
                            vpc = '127.0.0.0/16'\n";
    let call = Call { toml: WITH_VPC, ..call };
    let capture = ethernet(101, &[], &load(4, 2));
    let unknown = call.on(&capture);
    assert_eq!(unknown.code(), exit::DONE);
    assert!(
        unknown.summary()["notes"].to_string().contains("--local ADDRESS"),
        "{}",
        unknown.out
    );
    let call = Call {
        locals: &["127.0.0.4"],
        ..call
    };
    let replayed = call.on(&capture);
    assert_eq!(replayed.code(), exit::FOUND);
    let summary = replayed.summary();
    let budget = &summary["budgets"][0];
    assert_eq!(budget["budget"], "aws-link-local", "{summary}");
    let (within, over) = (budget["within"].as_u64().unwrap(), budget["over"].as_u64().unwrap());
    assert_eq!(within + over, 200, "{summary}");
    assert!((10..=40).contains(&within), "10/s for 2 s: {summary}");
}

#[test]
fn own_addresses_have_to_be_said() {
    let call = Call {
        toml: "[hygiene]\nsources = ['own']\n",
        ..jsonl()
    };
    let error = call.on(&[]).ended.unwrap_err();
    assert_eq!(error.code(), exit::BAD_USAGE);
    assert!(error.to_string().contains("--local ADDR"), "{error}");
    let call = Call {
        locals: &["10.0.0.1"],
        ..call
    };
    assert!(call.guarded().is_ok());
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
