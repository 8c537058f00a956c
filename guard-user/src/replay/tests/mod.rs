//! Whole replays: what goes in, what is printed, how it ends.

pub(super) mod file;
mod packets;
mod place;
mod poor;

use std::fs;

use serde_json::Value;

use self::{
    file::{Order, Packet, enhanced, interface, option, pcap, section},
    packets::{Family, START_NS, looped},
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
