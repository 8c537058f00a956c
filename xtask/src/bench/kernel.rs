//! The kernel object: its programs packet by packet, two processors at once, a budget, and what it takes to be there.

use std::thread;

use anyhow::{Result, ensure};
use guard_tests::{
    bench::{Gate, beside_wires},
    speed::{
        BUDGET_PPS, Cost, Limited, Packet, Pair, Peer, Round, Shape, Spread, Subject, TABLES, Trial, line_of_memory,
        load_time, map_memory,
    },
};

use super::{
    plan::Plan,
    record::{Measure, PacketRecord, Record, rounded},
};
use crate::{
    number::grouped,
    progress::{Done, Progress},
    step,
};

/// Less of the time on both processors says that this machine is busy with something else.
pub(super) const UNDISTURBED: f64 = 0.9;
/// How often a budget is offered what may be too little.
const BUDGET_TRIES: u32 = 3;
/// Memory of which lines are read: as much as a cache near the processor may hold, and as much as the tables take in which
/// a query is looked up.
const MEMORY: [usize; 2] = [1 << 20, TABLES];
/// How often the object is loaded.
const LOADS: usize = 5;

/// Measures every packet of the plan, program by program.
pub(super) fn packets(plan: &Plan, rounds: usize) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for gate in Gate::ALL {
        let subjects: Vec<Subject> = plan
            .subjects
            .iter()
            .filter(|subject| subject.gate == gate)
            .copied()
            .collect();
        if subjects.is_empty() {
            continue;
        }
        let done = Done::nothing(subjects.len() as u64);
        let progress = Progress::counted(format!("{}, {} packets", gate.program(), subjects.len()), &done);
        let mut empty = Vec::new();
        for subject in &subjects {
            let (taken, verified) = beside_wires(|| {
                let trial = Trial::start(*subject)?;
                Ok((trial.rounds(rounds)?, trial.verified_instructions()?))
            })?;
            records.extend(of_packet(subject, &taken, verified));
            empty.extend(taken.iter().map(|round| round.empty));
            done.add(1);
        }
        let empty = Spread::of(empty);
        progress.done(&format!("an empty program: {:.1} ns", empty.median));
        records.push(Record::Other(Measure::Empty {
            program: gate.program().to_owned(),
            ns_median: rounded(empty.median, 10.0),
            ns_min: rounded(empty.min, 10.0),
            ns_max: rounded(empty.max, 10.0),
        }));
    }
    Ok(records)
}

/// Measures what the plan has for XDP, as far as it needs no guard, through the programs that are pinned there.
pub(super) fn peers(plan: &Plan, peers: &[Peer], rounds: usize) -> Result<Vec<Record>> {
    let of_xdp = plan.subjects.iter().filter(|subject| subject.gate == Gate::Xdp);
    let mut packets: Vec<Packet> = of_xdp.map(|subject| subject.packet).collect();
    packets.retain(|packet| packet.needs_no_state());
    packets.dedup();
    ensure!(
        peers.is_empty() || !packets.is_empty(),
        "no packet that a program of others could be measured on is among these; next: --only xdp/query"
    );
    let mut records = Vec::new();
    for peer in peers {
        let done = Done::nothing(packets.len() as u64);
        let progress = Progress::counted(format!("{}, {} packets", peer.name(), packets.len()), &done);
        for &packet in &packets {
            let taken = beside_wires(|| peer.rounds(packet, rounds))?;
            let (cost, verified) = (Cost::of(&taken), peer.verified_instructions());
            let record = PacketRecord::of(peer.name(), packet, 1, &cost, verified);
            records.push(Record::Other(Measure::Peer(record)));
            done.add(1);
        }
        progress.done("measured");
    }
    Ok(records)
}

/// How far memory is.
pub(super) fn memory(rounds: usize) -> Result<Vec<Record>> {
    let progress = Progress::start("lines of memory");
    let mut records = Vec::new();
    let mut said = Vec::new();
    for bytes in MEMORY {
        let ns = line_of_memory(bytes, rounds)?;
        let kib = bytes as u64 >> 10;
        said.push(format!("{:.0} ns of {} KiB", ns.median, grouped(kib)));
        records.push(Record::Other(Measure::Memory {
            kib,
            ns_median: rounded(ns.median, 10.0),
            ns_min: rounded(ns.min, 10.0),
            ns_max: rounded(ns.max, 10.0),
        }));
    }
    progress.done(&said.join(", "));
    Ok(records)
}

/// Two processors on one key, where there are two.
pub(super) fn pairs() -> Result<Vec<Record>> {
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        step::note("two processors on one key are left out: there is one");
        return Ok(Vec::new());
    }
    let shape = Shape::of(20);
    let mut records = Vec::new();
    for packet in [Packet::FreshQuery(shape), Packet::HeldDropped(shape)] {
        let progress = Progress::start(format!("two processors: {packet}"));
        let pair = beside_wires(|| Pair::measure(packet))?;
        progress.done(&format!(
            "{:.2} times the throughput of one, {} packets, all counted",
            pair.throughput_ratio(),
            grouped(pair.packets)
        ));
        if pair.undisturbed < UNDISTURBED {
            step::note(&format!(
                "others had a processor for {:.0} % of that time, when only one was at it: the ratio flatters",
                (1.0 - pair.undisturbed) * 100.0
            ));
        }
        records.push(Record::Other(Measure::TwoCpus {
            packet: packet.to_string(),
            ns_alone: pair.alone_ns.map(|ns| rounded(ns, 10.0)),
            ns_together: pair.together_ns.map(|ns| rounded(ns, 10.0)),
            throughput_ratio: rounded(pair.throughput_ratio(), 100.0),
            packets: pair.packets,
            undisturbed: rounded(pair.undisturbed, 100.0),
        }));
    }
    Ok(records)
}

/// A budget of a million packets a second.
pub(super) fn budget() -> Result<Record> {
    let progress = Progress::start(format!("a budget of {} packets/s", grouped(BUDGET_PPS.into())));
    let mut limited = beside_wires(Limited::measure)?;
    for _ in 1..BUDGET_TRIES {
        if limited.was_tested() {
            break;
        }
        limited = beside_wires(Limited::measure)?;
    }
    progress.done(&format!(
        "{} packets/s passed of {}",
        grouped(limited.passed_pps as u64),
        grouped(limited.offered_pps as u64)
    ));
    if !limited.was_tested() {
        step::note("this machine is too busy to offer more than the budget allows");
    }
    Ok(Record::Other(Measure::Budget {
        limit_pps: BUDGET_PPS,
        offered_pps: limited.offered_pps.round(),
        passed_pps: limited.passed_pps.round(),
    }))
}

/// Time to load, and memory.
pub(super) fn footprint() -> Result<Vec<Record>> {
    let progress = Progress::start("loading the kernel object");
    let loads = (0..LOADS).map(|_| Ok(load_time()?.as_secs_f64() * 1_000.0));
    let ms = Spread::of(loads.collect::<Result<Vec<f64>>>()?);
    let maps = map_memory()?;
    let bytes: u64 = maps.iter().map(|map| map.bytes).sum();
    progress.done(&format!("{:.0} ms, maps of {} KiB", ms.median, grouped(bytes / 1_024)));
    let load = Measure::Load {
        ms_median: rounded(ms.median, 10.0),
        ms_min: rounded(ms.min, 10.0),
        ms_max: rounded(ms.max, 10.0),
    };
    let maps = maps.into_iter().map(|map| Measure::Map {
        map: map.name,
        bytes: map.bytes,
    });
    Ok([load].into_iter().chain(maps).map(Record::Other).collect())
}

fn of_packet(subject: &Subject, rounds: &[Round], verified: Option<u32>) -> impl Iterator<Item = Record> {
    let cost = Cost::of(rounds);
    let packet = PacketRecord::of(
        subject.gate.program(),
        subject.packet,
        subject.live_keys,
        &cost,
        verified,
    );
    let feeder = subject.is_fed().then(|| {
        Record::Other(Measure::Feeder {
            program: packet.program.clone(),
            packet: packet.packet.clone(),
            live_keys: packet.live_keys,
            ns: rounded(cost.feeder, 10.0),
        })
    });
    [Record::Packet(packet)].into_iter().chain(feeder)
}
