//! What is measured.

use anyhow::{Result, ensure};
use guard_tests::{
    bench::Gate,
    speed::{Packet, Shape, Subject},
};

/// Keys that are alive and drawn at random.
const LIVE_KEYS: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Bytes of the names, on the wire.
const NAMES: [usize; 4] = [20, 60, 206, 255];

/// Packets, in the order in which they are measured and shown.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) subjects: Vec<Subject>,
}

impl Plan {
    /// Everything, or what one of the filters lets through: `PROGRAM/PACKET`, of which both parts are searched for.
    pub(super) fn of(only: &[String]) -> Result<Self> {
        let mut subjects: Vec<Subject> = Gate::ALL.into_iter().flat_map(of_gate).collect();
        if !only.is_empty() {
            subjects.retain(|subject| only.iter().any(|filter| matches(filter, subject)));
        }
        ensure!(
            !subjects.is_empty(),
            "no packet is called like {}; next: cargo xtask bench --only dnsguard_xdp/ARP",
            only.join(" or ")
        );
        Ok(Self { subjects })
    }
}

fn matches(filter: &str, subject: &Subject) -> bool {
    let (program, packet) = filter.split_once('/').unwrap_or(("", filter));
    subject.gate.program().contains(program) && subject.packet.to_string().contains(packet)
}

fn of_gate(gate: Gate) -> Vec<Subject> {
    let short = Shape::of(NAMES[0]);
    let with_opt = |name| Shape {
        opt: true,
        ..Shape::of(name)
    };
    let of = |packet, live_keys| Subject {
        gate,
        packet,
        live_keys,
    };
    let hot = |packet| of(packet, 1);
    let spread = |packet| {
        [1].into_iter()
            .chain(LIVE_KEYS)
            .map(move |live_keys| of(packet, live_keys))
    };
    let mut subjects: Vec<Subject> = [Packet::Arp, Packet::Icmp, Packet::Tcp, Packet::Udp].map(hot).into();
    subjects.extend(
        NAMES
            .into_iter()
            .flat_map(|name| spread(Packet::Query(Shape::of(name)))),
    );
    subjects.extend(spread(Packet::FreshQuery(short)));
    subjects.extend(NAMES.map(|name| hot(Packet::Query(with_opt(name)))));
    subjects.extend(
        [
            Packet::Query(Shape { vlan: true, ..short }),
            Packet::Query(Shape { v6: true, ..short }),
            Packet::HeldAnswered(short),
            Packet::HeldAnswered(with_opt(NAMES[0])),
            Packet::HeldDropped(short),
            Packet::OverBudget(short),
        ]
        .map(hot),
    );
    subjects.extend(spread(Packet::OverZone(short)));
    subjects.extend(spread(Packet::Response(short)));
    subjects
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(only: &[&str]) -> Vec<String> {
        let only: Vec<String> = only.iter().map(|&filter| filter.to_owned()).collect();
        let plan = Plan::of(&only).unwrap();
        let shown = |subject: &Subject| {
            let Subject {
                gate,
                packet,
                live_keys,
            } = subject;
            format!("{}/{packet}/{live_keys}", gate.program())
        };
        plan.subjects.iter().map(shown).collect()
    }

    #[test]
    fn each_packet_is_measured_once() {
        let all = of(&[]);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_filter_looks_into_both_names() {
        assert_eq!(of(&["out/ARP"]), ["dnsguard_out/ARP/1"]);
        assert_eq!(of(&["ARP"]).len(), 3);
        assert_eq!(
            of(&["xdp/ARP", "in/ICMP"]),
            ["dnsguard_xdp/ARP/1", "dnsguard_in/ICMP/1"]
        );
        assert!(Plan::of(&["nothing/like it".to_owned()]).is_err());
    }
}
