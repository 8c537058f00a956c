//! A figure as a file keeps it: one JSON object a line.

use anyhow::{Context as _, Result};
pub(super) use guard_tests::flood::Asked;
use guard_tests::speed::{Cost, Packet};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Record {
    Packet(PacketRecord),
    Other(Measure),
}

/// What a packet costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PacketRecord {
    pub(super) program: String,
    pub(super) packet: String,
    /// 1: the same key again and again.
    pub(super) live_keys: u32,
    pub(super) ns_median: f64,
    pub(super) ns_min: f64,
    pub(super) ns_max: f64,
    pub(super) ratio_to_empty: f64,
    /// Of its program; none before Linux 5.16.
    pub(super) verified_insns: Option<u32>,
}

/// Everything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
pub(super) enum Measure {
    /// Where it was measured.
    Machine(Machine),
    /// An empty program, beside all packets of this program.
    Empty {
        program: String,
        ns_median: f64,
        ns_min: f64,
        ns_max: f64,
    },
    /// What a packet costs in a program of somebody else.
    Peer(PacketRecord),
    /// What was taken off for varying or restoring a packet.
    Feeder {
        program: String,
        packet: String,
        live_keys: u32,
        ns: f64,
    },
    /// To read a cache line, drawn at random, of so many KiB of memory.
    Memory {
        kib: u64,
        ns_median: f64,
        ns_min: f64,
        ns_max: f64,
    },
    /// Two processors on one key, in [`guard_tests::speed::Pair`].
    TwoCpus {
        packet: String,
        ns_alone: [f64; 2],
        ns_together: [f64; 2],
        throughput_ratio: f64,
        /// Packets that both had at once. A verdict of each was counted, else there would be no figure.
        packets: u64,
        /// The share of the time for which both had their processor.
        undisturbed: f64,
    },
    /// A budget, while more comes than it allows.
    Budget {
        limit_pps: u32,
        offered_pps: f64,
        passed_pps: f64,
    },
    /// To read the object, make its maps, and have its programs verified and compiled.
    Load { ms_median: f64, ms_min: f64, ms_max: f64 },
    /// What the kernel says that a map takes.
    Map { map: String, bytes: u64 },
    /// The agent, while so many packets came that are no event.
    Agent {
        pps: f64,
        /// Of one processor.
        cpu_ratio: f64,
        rss_kib: u64,
    },
    /// Inside the running kernel, under a flood as fast as it goes.
    RunTime {
        hook: String,
        empty_ns: f64,
        filter_ns: f64,
        guard_ns: f64,
        ratio: f64,
        filter_pps: f64,
        guard_pps: f64,
    },
    /// A server under a flood.
    Flood(Flood),
}

/// Where figures come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) mhz: u32,
    pub(super) kernel: String,
    pub(super) clock: String,
    /// Rounds that each packet was measured in.
    pub(super) rounds: usize,
}

/// What became of a server under a flood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flood {
    pub(super) asked: Asked,
    pub(super) protection: String,
    /// Whether somebody told it the name, or the zone, beforehand.
    pub(super) told: bool,
    /// None: as fast as one core makes it.
    pub(super) pps: Option<u32>,
    pub(super) offered_pps: f64,
    pub(super) taken_pps: f64,
    /// Of the good clients in another network, in the same /24, at the same address.
    pub(super) answered: [f64; 3],
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Of the server's core.
    pub(super) busy: f64,
    /// Of the server's core, for receiving alone.
    pub(super) receiving: f64,
    /// Whether the flood had its core for itself. If not, the figures say more of this machine than of the protection.
    pub(super) undisturbed: bool,
}

impl Flood {
    /// Whether the protection is the guard.
    pub(super) fn is_guard(&self) -> bool {
        self.protection.starts_with("dnsguard")
    }
}

/// The records in a file's text.
pub(super) fn read(text: &str) -> Result<Vec<Record>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| serde_json::from_str(line).with_context(|| format!("line {}: {line}", number + 1)))
        .collect()
}

/// The same as [`read`] takes it.
pub(super) fn write(records: &[Record]) -> Result<String> {
    records.iter().map(|record| Ok(record.json()? + "\n")).collect()
}

impl Record {
    /// As a line.
    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("a figure cannot be written as JSON")
    }
}

impl PacketRecord {
    pub(super) fn of(program: &str, packet: Packet, live_keys: u32, cost: &Cost, verified_insns: Option<u32>) -> Self {
        Self {
            program: program.to_owned(),
            packet: packet.to_string(),
            live_keys,
            ns_median: rounded(cost.program.median, 10.0),
            ns_min: rounded(cost.program.min, 10.0),
            ns_max: rounded(cost.program.max, 10.0),
            ratio_to_empty: rounded(cost.ratio, 100.0),
            verified_insns,
        }
    }
}

/// To a tenth, a hundredth, and so on.
pub(super) fn rounded(figure: f64, parts: f64) -> f64 {
    (figure * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_packet_has_the_fields_that_readers_count_on() {
        let record = Record::Packet(PacketRecord {
            program: "dnsguard_xdp".into(),
            packet: "ARP".into(),
            live_keys: 1,
            ns_median: 17.5,
            ns_min: 17.0,
            ns_max: 19.0,
            ratio_to_empty: 1.1,
            verified_insns: Some(26_000),
        });
        let line = record.json().unwrap();
        let Value::Object(fields) = serde_json::from_str(&line).unwrap() else {
            panic!("no object")
        };
        let fields: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "program",
                "packet",
                "live_keys",
                "ns_median",
                "ns_min",
                "ns_max",
                "ratio_to_empty",
                "verified_insns"
            ]
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let records = [
            Record::Other(Measure::Machine(Machine {
                cpu: "Z80".into(),
                cpus: 1,
                mhz: 4,
                kernel: "6.12.0".into(),
                clock: "tsc".into(),
                rounds: 21,
            })),
            Record::Other(Measure::Flood(Flood {
                protection: "none".into(),
                ..Flood::default()
            })),
            Record::Other(Measure::Peer(PacketRecord {
                program: "other".into(),
                packet: "ARP".into(),
                live_keys: 1,
                ns_median: 10.0,
                ns_min: 9.0,
                ns_max: 11.0,
                ratio_to_empty: 1.1,
                verified_insns: None,
            })),
            Record::Other(Measure::Map {
                map: "KEYS".into(),
                bytes: 8_388_920,
            }),
        ];
        assert_eq!(read(&write(&records).unwrap()).unwrap(), records);
        let error =
            read("{\"measure\":\"map\",\"map\":\"KEYS\",\"bytes\":1}\n\n{\"measure\":\"nothing\"}").unwrap_err();
        assert!(error.to_string().starts_with("line 3: "), "{error}");
    }

    #[test]
    fn other_figures_say_what_they_are() {
        let record = Record::Other(Measure::Empty {
            program: "dnsguard_in".into(),
            ns_median: 30.0,
            ns_min: 29.0,
            ns_max: 33.0,
        });
        let line = record.json().unwrap();
        assert!(
            line.starts_with(r#"{"measure":"empty","program":"dnsguard_in""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
