//! Real traffic between two hosts: the agent beside it, the programs inside the running kernel, and floods.

use std::time::Duration;

use anyhow::Result;
use guard_tests::{
    flood::{Asked, Hook, Pace, Protection},
    speed::{AgentCost, RunTime},
};

use super::record::{Flood, Measure, Record, rounded};
use crate::{
    demo::flood::measurement::Measurement,
    number::{grouped, share},
    progress::Progress,
};

/// Packets/s that pass beside the agent.
const AGENT_PPS: [u32; 4] = [0, 10_000, 100_000, 1_000_000];
/// For how long its processor time is counted: the kernel tells hundredths of a second.
const AGENT_LENGTH: Duration = Duration::from_secs(20);

/// The floods, from the one that a server stands.
const PACES: [Pace; 3] = [Pace::PerSecond(300_000), Pace::PerSecond(1_000_000), Pace::Full];
/// For how long good clients ask.
const FLOOD_LENGTH: Duration = Duration::from_secs(2);

/// Those that stand between a flood and its server.
pub(super) const PROTECTIONS: [Protection; 8] = [
    Protection::None,
    Protection::NftIngress,
    Protection::Iptables,
    Protection::DnsdistName,
    Protection::DnsdistBlock,
    Protection::Guard(Hook::Auto),
    Protection::Guard(Hook::Driver),
    Protection::Guard(Hook::Generic),
];

/// The agent's processor time and memory.
pub(super) fn agent() -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for pps in AGENT_PPS {
        let progress = Progress::start(format!("the agent, {} packets/s without an event", grouped(pps.into())));
        let cost = AgentCost::measure(pps, AGENT_LENGTH)?;
        progress.done(&format!(
            "{:.2} % of a core, {} KiB",
            cost.cpu_ratio * 100.0,
            grouped(cost.rss_kib)
        ));
        records.push(Record::Other(Measure::Agent {
            pps: cost.pps.round(),
            cpu_ratio: rounded(cost.cpu_ratio, 100_000.0),
            rss_kib: cost.rss_kib,
        }));
    }
    Ok(records)
}

/// What the guard takes inside the running kernel.
pub(super) fn run_times() -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for hook in [Hook::Driver, Hook::Generic, Hook::Auto] {
        let progress = Progress::start(format!("inside the running kernel: {hook}"));
        let RunTime { empty, filter, guard } = RunTime::measure(hook)?;
        progress.done(&format!(
            "{:.0} ns, a filter {:.0} ns, an empty program {:.0} ns",
            guard.ns, filter.ns, empty.ns
        ));
        records.push(Record::Other(Measure::RunTime {
            hook: hook.to_string(),
            empty_ns: rounded(empty.ns, 10.0),
            filter_ns: rounded(filter.ns, 10.0),
            guard_ns: rounded(guard.ns, 10.0),
            ratio: rounded(guard.ns / empty.ns, 100.0),
            filter_pps: filter.per_second.round(),
            guard_pps: guard.per_second.round(),
        }));
    }
    Ok(records)
}

/// Every flood on every protection, so often; medians. Each is measured once in every round, so that a busy moment of
/// this machine spoils one round only.
pub(super) fn floods(rounds: usize) -> Result<Vec<Record>> {
    let mut cases = Vec::new();
    for asked in [Asked::OneName, Asked::RandomNames] {
        for pace in PACES {
            cases.extend(PROTECTIONS.map(|protection| (asked, pace, protection, Vec::new())));
        }
    }
    for round in 1..=rounds {
        for (asked, pace, protection, taken) in &mut cases {
            let progress = Progress::start(format!(
                "round {round} of {rounds}: {protection}, {asked}, {}",
                paced(*pace)
            ));
            let measurement = Measurement::quiet(*protection, *asked, *pace, FLOOD_LENGTH)?;
            progress.done(&format!(
                "good clients answered: {}",
                measurement.answered.map(share).join(", ")
            ));
            taken.push(measurement);
        }
    }
    let flood = |(asked, pace, protection, taken): (Asked, Pace, Protection, Vec<Measurement>)| {
        let median = Measurement::median(&taken);
        Record::Other(Measure::Flood(Flood {
            asked,
            protection: protection.to_string(),
            told: protection.is_told(),
            pps: match pace {
                Pace::PerSecond(pps) => Some(pps),
                Pace::Full => None,
            },
            offered_pps: median.offered_pps.round(),
            taken_pps: median.taken_pps.round(),
            answered: median.answered.map(|ratio| rounded(ratio, 10_000.0)),
            p50_us: median.p50_us,
            p99_us: median.p99_us,
            busy: rounded(median.busy, 100.0),
            receiving: rounded(median.receiving, 100.0),
            undisturbed: median.is_undisturbed(pace),
        }))
    };
    Ok(cases.into_iter().map(flood).collect())
}

fn paced(pace: Pace) -> String {
    match pace {
        Pace::PerSecond(pps) => format!("{} packets/s", grouped(pps.into())),
        Pace::Full => "full speed".to_owned(),
    }
}
