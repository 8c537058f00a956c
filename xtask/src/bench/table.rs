//! The figures for a terminal: plain text, grouped, no line longer than 100 columns.

use std::fmt::Write as _;

use super::{
    goals::Goal,
    machine,
    record::{Flood, Measure, PacketRecord, Record},
};
use crate::number::{grouped, percent};

/// Width of what a line is about.
const LABEL: usize = 44;

/// All tables, one below the other.
pub(super) fn render(records: &[Record]) -> String {
    let mut text = String::new();
    let mut above = String::new();
    for (index, record) in records.iter().enumerate() {
        // A heading goes before the first line of its table.
        let heading = heading(record);
        if !heading.is_empty() && heading != above {
            let _ = write!(text, "\n{heading}\n");
            above = heading;
        }
        if let Some(line) = line(record) {
            text += &line;
            text.push('\n');
        }
        if is_map(record) && !records.get(index + 1).is_some_and(is_map) {
            let _ = writeln!(
                text,
                "{:<LABEL$}{:>12} KiB",
                "all maps",
                grouped(map_bytes(records) >> 10)
            );
        }
    }
    text
}

/// The goals, each with its figure.
pub(super) fn goals(goals: &[Goal]) -> String {
    let mut text = String::new();
    if !goals.is_empty() {
        let _ = writeln!(text, "\n{:<58}{:>17}{:>15}", "goals", "goal", "figure");
    }
    for goal in goals {
        let _ = writeln!(
            text,
            "{:<58}{:>17}{:>15}  {}",
            goal.what,
            goal.goal,
            goal.figure,
            goal.word()
        );
    }
    text
}

/// What all maps take.
pub(super) fn map_bytes(records: &[Record]) -> u64 {
    let maps = records.iter().filter_map(|record| match record {
        Record::Other(Measure::Map { bytes, .. }) => Some(bytes),
        _ => None,
    });
    maps.sum()
}

const fn is_map(record: &Record) -> bool {
    matches!(record, Record::Other(Measure::Map { .. }))
}

fn heading(record: &Record) -> String {
    match record {
        Record::Packet(packet) | Record::Other(Measure::Peer(packet)) => {
            let PacketRecord {
                program,
                verified_insns,
                ..
            } = packet;
            let verified = verified_insns.map_or_else(String::new, |count| {
                format!(", {} instructions verified", grouped(count.into()))
            });
            format!(
                "{:<LABEL$}{:>10}{:>9}{:>9}{:>9}{:>9}",
                format!("{program}{verified}"),
                "live keys",
                "ns",
                "min",
                "max",
                "ratio"
            )
        }
        Record::Other(Measure::Memory { .. }) => {
            format!(
                "{:<LABEL$}{:>19}{:>9}{:>9}",
                "a line of memory, drawn at random", "ns", "min", "max"
            )
        }
        Record::Other(Measure::TwoCpus { .. }) => {
            format!(
                "{:<LABEL$}{:>14}{:>14}{:>12}{:>15}",
                "two processors, one key", "ns alone", "ns together", "throughput", "undisturbed"
            )
        }
        Record::Other(Measure::Budget { .. }) => format!("{:<LABEL$}{:>18}{:>18}", "a budget", "offered/s", "passed/s"),
        Record::Other(Measure::Load { .. } | Measure::Map { .. }) => "the kernel object".to_owned(),
        Record::Other(Measure::Agent { .. }) => {
            format!(
                "{:<LABEL$}{:>12}{:>16}",
                "the agent, no events", "% of a core", "KiB of memory"
            )
        }
        Record::Other(Measure::RunTime { .. }) => {
            format!(
                "{:<LABEL$}{:>9}{:>8}{:>10}{:>7}{:>10}{:>10}\n{:<LABEL$}{:>9}{:>8}{:>10}{:>7}{:>10}{:>10}",
                "inside the running kernel",
                "ns",
                "ns",
                "ns",
                "",
                "1,000/s",
                "1,000/s",
                "full flood of one name",
                "empty",
                "filter",
                "dnsguard",
                "ratio",
                "filter",
                "dnsguard",
            )
        }
        Record::Other(Measure::Flood(Flood { asked, pps, .. })) => {
            let pace = pps.map_or_else(
                || "full speed".to_owned(),
                |pps| format!("{} packets/s", grouped(pps.into())),
            );
            format!(
                "{:<28}{:>9}{:>8}{:>22}{:>9}{:>8}{:>7}\n{:<28}{:>9}{:>8}{:>8}{:>7}{:>7}{:>9}{:>8}{:>7}",
                format!("flood of {asked}"),
                "1,000/s",
                "1,000/s",
                "good answered, %",
                "ms",
                "core",
                "recv",
                pace,
                "offered",
                "taken",
                "other",
                "/24",
                "same",
                "p99",
                "%",
                "%"
            )
        }
        Record::Other(Measure::Machine(_) | Measure::Empty { .. } | Measure::Feeder { .. }) => String::new(),
    }
}

fn line(record: &Record) -> Option<String> {
    Some(match record {
        Record::Packet(packet) | Record::Other(Measure::Peer(packet)) => of_packet(packet),
        Record::Other(measure) => return of_measure(measure),
    })
}

fn of_packet(packet: &PacketRecord) -> String {
    let PacketRecord {
        packet,
        live_keys,
        ns_median,
        ns_min,
        ns_max,
        ratio_to_empty,
        ..
    } = packet;
    let keys = grouped((*live_keys).into());
    format!("{packet:<LABEL$}{keys:>10}{ns_median:>9.1}{ns_min:>9.1}{ns_max:>9.1}{ratio_to_empty:>9.2}")
}

fn of_measure(measure: &Measure) -> Option<String> {
    let pair = |[first, second]: [f64; 2]| format!("{first:.0} / {second:.0}");
    Some(match measure {
        Measure::Machine(machine) => machine::shown(machine),
        Measure::Empty {
            program,
            ns_median,
            ns_min,
            ns_max,
        } => {
            let label = format!("an empty program like {program}");
            format!(
                "{label:<LABEL$}{:>10}{ns_median:>9.1}{ns_min:>9.1}{ns_max:>9.1}{:>9.2}",
                "", 1.0
            )
        }
        Measure::Memory {
            kib,
            ns_median,
            ns_min,
            ns_max,
        } => format!(
            "{:<LABEL$}{ns_median:>19.1}{ns_min:>9.1}{ns_max:>9.1}",
            format!("of {} KiB", grouped(*kib))
        ),
        Measure::Peer(packet) => of_packet(packet),
        // It is in the file: a person wants to see what is left.
        Measure::Feeder { .. } => return None,
        Measure::TwoCpus {
            packet,
            ns_alone,
            ns_together,
            throughput_ratio,
            undisturbed,
            ..
        } => format!(
            "{packet:<LABEL$}{:>14}{:>14}{throughput_ratio:>11.2}x{:>13.0} %",
            pair(*ns_alone),
            pair(*ns_together),
            undisturbed * 100.0
        ),
        Measure::Budget {
            limit_pps,
            offered_pps,
            passed_pps,
        } => format!(
            "{:<LABEL$}{:>18}{:>18}",
            format!("{} packets/s", grouped((*limit_pps).into())),
            grouped(*offered_pps as u64),
            grouped(*passed_pps as u64)
        ),
        Measure::Load {
            ms_median,
            ms_min,
            ms_max,
        } => format!(
            "{:<LABEL$}{ms_median:>12.0} ms ({ms_min:.0} to {ms_max:.0})",
            "loaded and verified in"
        ),
        Measure::Map { map, bytes } => format!(
            "{:<LABEL$}{:>12} KiB",
            format!("map {map}"),
            grouped(bytes.div_ceil(1_024))
        ),
        Measure::Agent {
            pps,
            cpu_ratio,
            rss_kib,
        } => format!(
            "{:<LABEL$}{:>12.2}{:>16}",
            format!("{} packets/s", grouped(*pps as u64)),
            cpu_ratio * 100.0,
            grouped(*rss_kib)
        ),
        Measure::RunTime {
            hook,
            empty_ns,
            filter_ns,
            guard_ns,
            ratio,
            filter_pps,
            guard_pps,
        } => format!(
            "{hook:<LABEL$}{empty_ns:>9.0}{filter_ns:>8.0}{guard_ns:>10.0}{ratio:>7.2}{:>10}{:>10}",
            thousands(*filter_pps),
            thousands(*guard_pps)
        ),
        Measure::Flood(flood) => of_flood(flood),
    })
}

fn thousands(pps: f64) -> String {
    grouped((pps / 1_000.0).round() as u64)
}

fn of_flood(flood: &Flood) -> String {
    let [other, network, address] = flood.answered.map(percent);
    let p99 = match flood.p99_us {
        0.0 => "-".to_owned(),
        us => format!("{:.1}", us / 1_000.0),
    };
    let told = if flood.told { " *" } else { "" };
    let disturbed = if flood.undisturbed { "" } else { " !" };
    format!(
        "{:<28}{:>9}{:>8}{other:>8}{network:>7}{address:>7}{p99:>9}{:>8.0}{:>7.0}",
        format!("{}{told}{disturbed}", flood.protection),
        thousands(flood.offered_pps),
        thousands(flood.taken_pps),
        flood.busy * 100.0,
        flood.receiving * 100.0
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::record::Asked;

    /// One of each kind.
    pub(in crate::bench) fn some() -> Vec<Record> {
        let packet = |packet: &str, live_keys, ns_median, ratio_to_empty| {
            Record::Packet(PacketRecord {
                program: "dnsguard_xdp".into(),
                packet: packet.into(),
                live_keys,
                ns_median,
                ns_min: ns_median - 1.0,
                ns_max: ns_median * 2.0,
                ratio_to_empty,
                verified_insns: Some(81_967),
            })
        };
        let flood = |protection: &str, told, answered, p99_us| {
            Record::Other(Measure::Flood(Flood {
                asked: Asked::RandomNames,
                protection: protection.into(),
                told,
                pps: None,
                offered_pps: 6_012_345.0,
                taken_pps: 5_100_000.0,
                answered: [answered; 3],
                p50_us: 120.0,
                p99_us,
                busy: 1.0,
                receiving: 0.97,
                undisturbed: told,
            }))
        };
        let mut records = vec![
            packet("ARP", 1, 17.5, 1.17),
            packet("query, 20 bytes", 1_000_000, 120.0, 8.0),
        ];
        records.extend(
            [
                Measure::Empty {
                    program: "dnsguard_xdp".into(),
                    ns_median: 15.0,
                    ns_min: 14.5,
                    ns_max: 30.0,
                },
                Measure::Feeder {
                    program: "dnsguard_xdp".into(),
                    packet: "query, 20 bytes".into(),
                    live_keys: 1_000_000,
                    ns: 9.0,
                },
                Measure::Memory {
                    kib: 9_216,
                    ns_median: 130.0,
                    ns_min: 120.0,
                    ns_max: 160.0,
                },
                Measure::TwoCpus {
                    packet: "held, dropped, 20 bytes".into(),
                    ns_alone: [70.0, 71.0],
                    ns_together: [80.0, 81.0],
                    throughput_ratio: 1.75,
                    packets: 3_000_000,
                    undisturbed: 0.97,
                },
                Measure::Budget {
                    limit_pps: 1_000_000,
                    offered_pps: 3_100_000.0,
                    passed_pps: 1_000_269.0,
                },
                Measure::Load {
                    ms_median: 516.4,
                    ms_min: 500.0,
                    ms_max: 600.0,
                },
                Measure::Map {
                    map: "KEYS".into(),
                    bytes: 8_388_920,
                },
                Measure::Agent {
                    pps: 999_000.0,
                    cpu_ratio: 0.004,
                    rss_kib: 12_000,
                },
                Measure::RunTime {
                    hook: "driver XDP".into(),
                    empty_ns: 36.0,
                    filter_ns: 100.0,
                    guard_ns: 150.0,
                    ratio: 4.17,
                    filter_pps: 4_912_345.0,
                    guard_pps: 4_212_345.0,
                },
            ]
            .map(Record::Other),
        );
        records.push(flood("nftables, ingress", true, 0.5, 0.0));
        records.push(flood("dnsguard", false, 0.9999, 1_940.0));
        records
    }

    #[test]
    fn the_tables_are_ones_to_paste() {
        let expected = "
dnsguard_xdp, 81,967 instructions verified   live keys       ns      min      max    ratio
ARP                                                  1     17.5     16.5     35.0     1.17
query, 20 bytes                              1,000,000    120.0    119.0    240.0     8.00
an empty program like dnsguard_xdp                         15.0     14.5     30.0     1.00

a line of memory, drawn at random                            ns      min      max
of 9,216 KiB                                              130.0    120.0    160.0

two processors, one key                           ns alone   ns together  throughput    undisturbed
held, dropped, 20 bytes                            70 / 71       80 / 81       1.75x           97 %

a budget                                             offered/s          passed/s
1,000,000 packets/s                                  3,100,000         1,000,269

the kernel object
loaded and verified in                               516 ms (500 to 600)
map KEYS                                           8,193 KiB
all maps                                           8,192 KiB

the agent, no events                         % of a core   KiB of memory
999,000 packets/s                                   0.40          12,000

inside the running kernel                          ns      ns        ns          1,000/s   1,000/s
full flood of one name                          empty  filter  dnsguard  ratio    filter  dnsguard
driver XDP                                         36     100       150   4.17     4,912     4,212

flood of random names         1,000/s 1,000/s      good answered, %       ms    core   recv
full speed                    offered   taken   other    /24   same      p99       %      %
nftables, ingress *             6,012   5,100    50.0   50.0   50.0        -     100     97
dnsguard !                      6,012   5,100    99.9   99.9   99.9      1.9     100     97
";
        let text = render(&some());
        assert_eq!(text, expected, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn a_goal_has_its_figure_beside_it() {
        let goal = Goal {
            what: "dnsguard_xdp: held, dropped".into(),
            goal: "<= 5x".into(),
            figure: "5.10x".into(),
            is_met: false,
        };
        let text = goals(&[goal]);
        assert!(text.ends_with("<= 5x          5.10x  not met\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(goals(&[]), "");
    }
}
