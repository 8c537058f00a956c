//! What the figures ought to be, and whether they are.

use super::{
    kernel::UNDISTURBED,
    record::{Asked, Flood, Measure, PacketRecord, Record},
};
use crate::number::{grouped, share};

/// How far a budget may be off.
const EXACTNESS: f64 = 0.02;
/// Instructions that the verifier may look at in one program.
const INSTRUCTIONS: u32 = 140_000;
/// What the maps may take.
const MAP_BYTES: u64 = 16 << 20;
/// What the agent may take.
const AGENT_KIB: u64 = 32 << 10;

/// The figure of what was measured beside too much other work.
const BUSY: &str = "busy machine";

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) goal: String,
    /// What it is, the worst of what it is about.
    pub(super) figure: String,
    pub(super) is_met: bool,
}

impl Goal {
    /// The goal as it is if the figure tells anything; else nobody knows.
    fn if_told(self, tells: bool) -> Self {
        if tells {
            return self;
        }
        Self {
            figure: BUSY.to_owned(),
            is_met: false,
            ..self
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self.is_met {
            true => "met",
            false if self.figure == BUSY => "unknown",
            false => "not met",
        }
    }
}

/// Those of which there are figures.
pub(super) fn all(records: &[Record]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for program in programs(records) {
        goals.extend(of_packets(records, program));
        goals.extend(of_memory(records, program));
    }
    goals.extend(of_object(records));
    goals.extend(of_floods(records));
    goals.extend(of_agent(records));
    goals
}

/// The programs of which there are figures, each once, in their order.
pub(super) fn programs(records: &[Record]) -> Vec<&str> {
    let mut programs: Vec<&str> = packets(records).map(|packet| packet.program.as_str()).collect();
    programs.dedup();
    programs
}

fn packets(records: &[Record]) -> impl Iterator<Item = &PacketRecord> {
    records.iter().filter_map(|record| match record {
        Record::Packet(packet) => Some(packet),
        Record::Other(_) => None,
    })
}

/// The figures of one packet at one program.
fn packet<'a>(records: &'a [Record], program: &str, name: &str, live_keys: u32) -> Option<&'a PacketRecord> {
    packets(records).find(|packet| packet.program == program && packet.packet == name && packet.live_keys == live_keys)
}

fn measures(records: &[Record]) -> impl Iterator<Item = &Measure> {
    records.iter().filter_map(|record| match record {
        Record::Other(measure) => Some(measure),
        Record::Packet(_) => None,
    })
}

fn of_packets<'a>(records: &'a [Record], program: &'a str) -> impl Iterator<Item = Goal> + 'a {
    let ratio = move |name: &str, live_keys: u32| Some(packet(records, program, name, live_keys)?.ratio_to_empty);
    let no_dns = ["ARP", "ICMP", "TCP, not DNS", "UDP, not DNS"].map(|name| ratio(name, 1));
    let worst = no_dns.into_iter().flatten().max_by(f64::total_cmp);
    let query = "query, 20 bytes";
    let growth = |name: &str| Some(ratio(name, 1_000_000)? / ratio(name, 1_000)?);
    [
        ("not DNS, the worst of four", 1.3, worst),
        ("query, 20 bytes, one key", 6.0, ratio(query, 1)),
        (
            "query, 20 bytes, one key, random ID",
            6.0,
            ratio("query, 20 bytes, random ID", 1),
        ),
        ("query, 20 bytes, 100,000 keys", 8.0, ratio(query, 100_000)),
        ("query, 206 bytes, one key", 20.0, ratio("query, 206 bytes", 1)),
        ("held, dropped", 5.0, ratio("held, dropped, 20 bytes", 1)),
        ("held, answered", 10.0, ratio("held, answered, 20 bytes", 1)),
        ("a million keys against a thousand", 1.5, growth(query)),
    ]
    .into_iter()
    .filter_map(move |(what, most, figure)| Some(at_most(&format!("{program}: {what}"), most, figure?)))
}

/// What it costs that keys are many, in lines of memory: of the tables, two are read one after the other, beside a third.
fn of_memory(records: &[Record], program: &str) -> Vec<Goal> {
    let ns = |live_keys: u32| Some(packet(records, program, "query, 20 bytes", live_keys)?.ns_median);
    // The tables come last.
    let lines = measures(records).filter_map(|measure| match measure {
        Measure::Memory { ns_median, .. } => Some(*ns_median),
        _ => None,
    });
    let (Some(one), Some(line)) = (ns(1), lines.last()) else {
        return Vec::new();
    };
    let goal = |live_keys: u32, most: f64| {
        let lines = (ns(live_keys)? - one) / line;
        let keys = grouped(live_keys.into());
        Some(Goal {
            what: format!("{program}: query, 20 bytes, {keys} keys against one"),
            goal: format!("<= {most} lines of memory"),
            figure: format!("{lines:.2}"),
            is_met: lines <= most,
        })
    };
    [goal(100_000, 2.0), goal(1_000_000, 3.0)]
        .into_iter()
        .flatten()
        .collect()
}

fn of_object(records: &[Record]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let verified = packets(records).filter_map(|packet| packet.verified_insns).max();
    goals.extend(verified.map(|most| Goal {
        what: "instructions verified, the longest program".to_owned(),
        goal: format!("<= {}", grouped(INSTRUCTIONS.into())),
        figure: grouped(most.into()),
        is_met: most <= INSTRUCTIONS,
    }));
    let maps = measures(records).filter_map(|measure| match measure {
        Measure::Map { bytes, .. } => Some(*bytes),
        _ => None,
    });
    let bytes: u64 = maps.sum();
    if bytes > 0 {
        goals.push(Goal {
            what: "memory of the maps".to_owned(),
            goal: format!("<= {} KiB", grouped(MAP_BYTES >> 10)),
            figure: format!("{} KiB", grouped(bytes >> 10)),
            is_met: bytes <= MAP_BYTES,
        });
    }
    for measure in measures(records) {
        match measure {
            Measure::TwoCpus {
                packet,
                throughput_ratio,
                undisturbed,
                ..
            } => goals.push(
                Goal {
                    what: format!("two processors, one key: {packet}"),
                    goal: ">= 1.6x, none lost".to_owned(),
                    // A lost one is an error, and there is no figure.
                    figure: format!("{throughput_ratio:.2}x, none lost"),
                    is_met: *throughput_ratio >= 1.6,
                }
                .if_told(*undisturbed >= UNDISTURBED),
            ),
            Measure::Budget {
                limit_pps,
                offered_pps,
                passed_pps,
            } => {
                let off = passed_pps / f64::from(*limit_pps) - 1.0;
                let goal = Goal {
                    what: format!("a budget of {} packets/s", grouped((*limit_pps).into())),
                    goal: format!("within {:.0} %", EXACTNESS * 100.0),
                    figure: format!("{:+.2} %", off * 100.0),
                    is_met: off.abs() <= EXACTNESS,
                };
                goals.push(goal.if_told(offered_pps > passed_pps));
            }
            _ => {}
        }
    }
    goals
}

fn of_floods(records: &[Record]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let floods = measures(records).filter_map(|measure| match measure {
        Measure::Flood(flood) => Some(flood),
        _ => None,
    });
    for flood in floods.filter(|flood| flood.is_guard() && flood.asked == Asked::OneName) {
        let Flood {
            protection,
            pps,
            answered,
            taken_pps,
            undisturbed,
            ..
        } = flood;
        let goal = match pps {
            Some(1_000_000) => {
                let worst = answered.iter().copied().fold(1.0, f64::min);
                Goal {
                    what: format!("{protection}: 1,000,000/s of one name, answered"),
                    goal: ">= 99.9 %".to_owned(),
                    figure: share(worst),
                    is_met: worst >= 0.999,
                }
            }
            None => Goal {
                what: format!("{protection}: taken by one core, packets/s"),
                goal: ">= 5,000,000".to_owned(),
                figure: grouped(*taken_pps as u64),
                is_met: *taken_pps >= 5e6,
            },
            Some(_) => continue,
        };
        goals.push(goal.if_told(*undisturbed));
    }
    for measure in measures(records) {
        if let Measure::RunTime { hook, ratio, .. } = measure {
            goals.push(at_most(&format!("inside the running kernel, {hook}"), 4.5, *ratio));
        }
    }
    goals
}

fn of_agent(records: &[Record]) -> Vec<Goal> {
    let agents = measures(records).filter_map(|measure| match measure {
        Measure::Agent { cpu_ratio, rss_kib, .. } => Some((*cpu_ratio, *rss_kib)),
        _ => None,
    });
    let (ratios, kib): (Vec<f64>, Vec<u64>) = agents.unzip();
    let cpu = ratios.into_iter().max_by(f64::total_cmp).map(|ratio| Goal {
        what: "the agent without events, at the worst rate".to_owned(),
        goal: "< 0.5 % of a core".to_owned(),
        figure: format!("{:.2} %", ratio * 100.0),
        is_met: ratio < 0.005,
    });
    let rss = kib.into_iter().max().map(|kib| Goal {
        what: "the agent's memory".to_owned(),
        goal: format!("<= {} KiB", grouped(AGENT_KIB)),
        figure: format!("{} KiB", grouped(kib)),
        is_met: kib <= AGENT_KIB,
    });
    cpu.into_iter().chain(rss).collect()
}

fn at_most(what: &str, most: f64, figure: f64) -> Goal {
    Goal {
        what: what.to_owned(),
        goal: format!("<= {most}x"),
        figure: format!("{figure:.2}x"),
        is_met: figure <= most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str, live_keys: u32, ratio_to_empty: f64) -> Record {
        Record::Packet(PacketRecord {
            program: "dnsguard_xdp".into(),
            packet: name.into(),
            live_keys,
            ns_median: 0.0,
            ns_min: 0.0,
            ns_max: 0.0,
            ratio_to_empty,
            verified_insns: Some(160_001),
        })
    }

    fn told(records: &[Record]) -> Vec<(String, String, bool)> {
        let goals = all(records);
        goals
            .into_iter()
            .map(|goal| (goal.what, goal.figure, goal.is_met))
            .collect()
    }

    #[test]
    fn a_goal_is_about_the_worst_of_its_packets() {
        let records = [
            packet("ARP", 1, 1.1),
            packet("UDP, not DNS", 1, 1.31),
            packet("query, 20 bytes", 1, 6.0),
        ];
        let expected = [
            ("dnsguard_xdp: not DNS, the worst of four", "1.31x", false),
            ("dnsguard_xdp: query, 20 bytes, one key", "6.00x", true),
            ("instructions verified, the longest program", "160,001", false),
        ];
        assert_eq!(
            told(&records),
            expected.map(|(what, figure, met)| (what.to_owned(), figure.to_owned(), met))
        );
    }

    #[test]
    fn many_keys_are_compared_with_few() {
        let records = [
            packet("query, 20 bytes", 1_000, 4.0),
            packet("query, 20 bytes", 1_000_000, 7.0),
        ];
        let (what, figure, met) = told(&records).remove(0);
        assert_eq!(
            (what.as_str(), figure.as_str(), met),
            ("dnsguard_xdp: a million keys against a thousand", "1.75x", false)
        );
    }

    #[test]
    fn what_many_keys_cost_is_told_in_lines_of_memory() {
        let query = |live_keys, ns_median| match packet("query, 20 bytes", live_keys, 1.0) {
            Record::Packet(packet) => Record::Packet(PacketRecord { ns_median, ..packet }),
            other @ Record::Other(_) => other,
        };
        let memory = |kib, ns_median| {
            Record::Other(Measure::Memory {
                kib,
                ns_median,
                ns_min: ns_median,
                ns_max: ns_median,
            })
        };
        let records = [
            query(1, 80.0),
            query(100_000, 280.0),
            query(1_000_000, 480.0),
            memory(1_024, 10.0),
            memory(9_216, 100.0),
        ];
        let told: Vec<_> = told(&records)
            .into_iter()
            .filter(|(what, ..)| what.ends_with(" keys against one"))
            .collect();
        assert_eq!(told[0].1, "2.00");
        assert_eq!((told[1].1.as_str(), told[0].2, told[1].2), ("4.00", true, false));
    }

    #[test]
    fn a_budget_may_be_off_by_two_in_a_hundred() {
        let budget = |passed_pps| {
            Record::Other(Measure::Budget {
                limit_pps: 1_000_000,
                offered_pps: 3e6,
                passed_pps,
            })
        };
        assert!(all(&[budget(1_019_000.0)])[0].is_met);
        assert!(!all(&[budget(1_021_000.0)])[0].is_met);
        assert!(!all(&[budget(979_000.0)])[0].is_met);
    }

    #[test]
    fn beside_too_much_other_work_no_goal_is_met() {
        let flood = Flood {
            protection: "dnsguard".into(),
            taken_pps: 9e6,
            ..Flood::default()
        };
        let budget = Measure::Budget {
            limit_pps: 1_000_000,
            offered_pps: 1_000_000.0,
            passed_pps: 1_000_000.0,
        };
        let goals = all(&[Measure::Flood(flood), budget].map(Record::Other));
        assert!(
            goals.len() == 2 && goals.iter().all(|goal| goal.word() == "unknown" && !goal.is_met),
            "{goals:?}"
        );
    }

    #[test]
    fn one_place_in_which_clients_are_hurt_is_enough() {
        let flood = |same_address| {
            Record::Other(Measure::Flood(Flood {
                protection: "dnsguard".into(),
                pps: Some(1_000_000),
                answered: [1.0, 1.0, same_address],
                undisturbed: true,
                ..Flood::default()
            }))
        };
        assert!(all(&[flood(0.999)])[0].is_met);
        assert!(!all(&[flood(0.998)])[0].is_met);
    }
}
