//! What is not understood passes as it came, and is counted by its kind.

use anyhow::{Result, ensure};
use guard_common::counter::{COUNTERS, Counter};
use guard_tests::frame::{Edns0, Query};

use guard_tests::bench::{Bench, Gate, Outcome};

fn v4() -> Result<Query> {
    Query::new("www.example.com", "192.0.2.1:40000", "192.0.2.2:53")
}

fn v6() -> Result<Query> {
    Query::new("www.example.com", "[2001:db8::1]:40000", "[2001:db8::2]:53")
}

/// The frame passes every gate unchanged, and adds one to this counter alone.
fn passes(bench: &mut Bench, what: &str, frame: &[u8], counted: Option<Counter>) -> Result<()> {
    for gate in Gate::ALL {
        let before = bench.counters()?.0;
        let outcome = bench.run(gate, frame)?;
        assert_eq!(
            outcome,
            Outcome {
                returned: gate.pass(),
                frame: frame.to_vec()
            },
            "{gate:?}: {what}"
        );
        let after = bench.counters()?.0;
        for index in 0..COUNTERS {
            let grown = after[index] - before[index];
            let due = u64::from(counted.is_some_and(|counter| counter as usize == index));
            ensure!(
                grown == due,
                "{gate:?}: {what} added {grown} to counter {index}, not {due}"
            );
        }
    }
    Ok(())
}

/// The query with its message changed.
fn with_message(query: &Query, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
    let mut message = query.message()?;
    change(&mut message);
    query.envelope.around(&message)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_no_plain_question_passes_and_is_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for query in [v4()?, v6()?] {
        for opcode in [1_u8, 2, 4, 5, 6, 15] {
            let frame = with_message(&query, |message| message[2] |= opcode << 3)?;
            passes(&mut bench, "an opcode", &frame, Some(Counter::OtherOpcode))?;
        }
        for count in [0_u8, 2, 255] {
            let frame = with_message(&query, |message| message[5] = count)?;
            passes(&mut bench, "a QDCOUNT", &frame, Some(Counter::QuestionCount))?;
        }
        for label in [0x40, 0x80, 0xc0, 0xff] {
            let frame = with_message(&query, |message| message[12] = label)?;
            passes(&mut bench, "a label type", &frame, Some(Counter::BadName))?;
            let frame = with_message(&query, |message| message[16] = label)?;
            passes(&mut bench, "a label type further on", &frame, Some(Counter::BadName))?;
        }
        let frame = with_message(&query, |message| {
            let long: Vec<u8> = [vec![63], vec![b'a'; 63]].concat().repeat(4);
            message.splice(12..12, long);
        })?;
        passes(
            &mut bench,
            "a name of more than 255 bytes",
            &frame,
            Some(Counter::BadName),
        )?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_message_cut_short_passes_and_is_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for mut query in [v4()?, v6()?] {
        query.edns = Edns0::Without;
        let whole = query.message()?.len();
        for len in [0, 1, 11, 12, 13, 20, 28, 29, 30, whole - 1] {
            let frame = with_message(&query, |message| message.truncate(len))?;
            passes(
                &mut bench,
                &format!("{len} bytes of a message"),
                &frame,
                Some(Counter::ShortMessage),
            )?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn fragments_pass_and_are_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for flags in [[0x20, 0], [0, 1], [0x20, 185]] {
        let mut frame = v4()?.frame()?;
        frame[20..22].copy_from_slice(&flags);
        passes(&mut bench, "an IPv4 fragment", &frame, Some(Counter::Fragments))?;
    }
    for header in [[17, 0, 0, 1, 0, 0, 0, 7], [17, 0, 5, 200, 0, 0, 0, 7]] {
        let mut frame = v6()?.frame()?;
        frame[20] = 44;
        frame[19] += 8;
        frame.splice(54..54, header);
        passes(&mut bench, "an IPv6 fragment", &frame, Some(Counter::Fragments))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn headers_that_contradict_themselves_pass_and_are_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let changed = |query: Query, at: usize, byte: u8| -> Result<Vec<u8>> {
        let mut frame = query.frame()?;
        frame[at] = byte;
        Ok(frame)
    };
    for (what, frame) in [
        ("an IPv4 header of 16 bytes", changed(v4()?, 14, 0x44)?),
        ("version 5", changed(v4()?, 14, 0x55)?),
        ("version 4 under the type of IPv6", changed(v6()?, 14, 0x45)?),
        ("a UDP length of 7", changed(v4()?, 39, 7)?),
        ("a UDP length beyond the packet", changed(v6()?, 58, 1)?),
        ("a UDP header cut short", v4()?.frame()?[..36].to_vec()),
    ] {
        passes(&mut bench, what, &frame, Some(Counter::BadHeader))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_frame_cut_anywhere_passes_unchanged() -> Result<()> {
    let bench = Bench::new(|_| ())?;
    for (query, ip_end) in [(v4()?, 34), (v6()?, 54)] {
        let frame = query.frame()?;
        // The question needs to be there; the OPT record after it need not.
        let question_end = frame.len() - 11;
        for gate in Gate::ALL {
            // For TC, a test run takes no IP header that is cut.
            let (first, step) = if gate == Gate::Xdp { (14, 7) } else { (ip_end, 1) };
            for len in (first..question_end).step_by(step) {
                let outcome = bench.run(gate, &frame[..len])?;
                assert_eq!(
                    outcome,
                    Outcome {
                        returned: gate.pass(),
                        frame: frame[..len].to_vec()
                    },
                    "{gate:?} {len}"
                );
            }
        }
    }
    let counters = bench.counters()?;
    assert_eq!(counters.get(Counter::QueriesV4) + counters.get(Counter::QueriesV6), 0);
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn tcp_passes_and_its_segments_are_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for (ports, payload, counted) in [
        ((40_000, 53), 40, true),
        ((53, 40_000), 40, true),
        ((40_000, 53), 0, false),
        ((40_000, 80), 40, false),
    ] {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(ports.0, ports.1, 1, 512)
            .write(&mut frame, &vec![0; payload])?;
        let counted = counted.then_some(Counter::TcpSegments);
        passes(
            &mut bench,
            &format!("TCP {ports:?} with {payload} bytes"),
            &frame,
            counted,
        )?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_not_dns_passes_and_is_not_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let other_port = Query::new("www.example.com", "192.0.2.1:40000", "192.0.2.2:5353")?;
    passes(&mut bench, "another port", &other_port.frame()?, None)?;
    // A query that comes from port 53 and goes to a port that is not guarded.
    let from_dns_port = Query::new("www.example.com", "192.0.2.1:53", "192.0.2.2:40000")?;
    passes(&mut bench, "a query to a client's port", &from_dns_port.frame()?, None)?;
    let mut arp = other_port.envelope.link(etherparse::ether_type::ARP)?;
    arp.extend_from_slice(&[0; 28]);
    passes(&mut bench, "ARP", &arp, None)?;
    let mut icmp = v4()?.frame()?;
    icmp[23] = 1;
    passes(&mut bench, "ICMP", &icmp, None)?;
    let mut tagged = v4()?.frame()?;
    tagged.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]);
    passes(&mut bench, "three VLAN tags", &tagged, None)?;
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn responses_pass_and_are_counted() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    for (rcode, counter) in [
        (0, Counter::Answers),
        (3, Counter::Answers),
        (2, Counter::Errors),
        (5, Counter::Errors),
        (9, Counter::Errors),
    ] {
        for query in [v4()?, v6()?] {
            let mut message = query.message()?;
            message[2] |= 0x80;
            message[3] = 0x80 | rcode;
            passes(
                &mut bench,
                "a response",
                &query.envelope.back().around(&message)?,
                Some(counter),
            )?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn queries_behind_options_tags_and_extension_headers_are_read() -> Result<()> {
    let bench = Bench::new(|_| ())?;
    let mut number = 0;
    for (mut query, counter) in [(v4()?, Counter::QueriesV4), (v6()?, Counter::QueriesV6)] {
        for vlans in [&[][..], &[7], &[7, 8]] {
            for options in 0..=4 {
                number += 1;
                query.envelope.vlans = vlans.to_vec();
                let mut frame = query.frame()?;
                let ip_at = 14 + vlans.len() * 4;
                if query.envelope.source.is_ipv4() {
                    let words = options * 10 / 4;
                    frame[ip_at] += words as u8;
                    frame[ip_at + 3] += words as u8 * 4;
                    frame.splice(ip_at + 20..ip_at + 20, vec![1; words * 4]);
                } else if options > 0 {
                    // Destination options of 8 bytes each, the last of them in front of UDP.
                    let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(options);
                    chain[options * 8 - 8] = 17;
                    frame[ip_at + 6] = 60;
                    frame[ip_at + 5] += options as u8 * 8;
                    frame.splice(ip_at + 40..ip_at + 40, chain);
                }
                let question = frame.len() - query.message()?.len();
                for gate in Gate::ALL {
                    // A name of its own, so that nothing else is worth counting.
                    frame[question + 13..question + 16]
                        .copy_from_slice(format!("{number:02}{}", gate as u8).as_bytes());
                    let before = bench.counters()?.0;
                    let outcome = bench.run(gate, &frame)?;
                    assert_eq!(
                        outcome,
                        Outcome {
                            returned: gate.pass(),
                            frame: frame.clone()
                        }
                    );
                    let after = bench.counters()?.0;
                    let grown: Vec<usize> = (0..COUNTERS).filter(|index| after[*index] != before[*index]).collect();
                    assert_eq!(grown, [counter as usize], "{gate:?} {vlans:?} {options}");
                }
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn when_the_lease_is_over_everything_passes() -> Result<()> {
    let mut bench = Bench::new(|_| ())?;
    let query = v4()?;
    bench.cut(Gate::TcIn, &query)?;
    bench.set_lease(0)?;
    passes(&mut bench, "a held query", &query.frame()?, Some(Counter::LeaseOver))?;
    bench.set_lease(u64::MAX)?;
    assert_eq!(
        bench.ask(Gate::TcIn, &query)?.returned,
        Gate::TcIn.answer(),
        "the breaker was not forgotten"
    );
    Ok(())
}
