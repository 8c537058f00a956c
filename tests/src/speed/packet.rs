//! The kinds of packets that are measured, and what has to come of each.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use guard_common::{
    budget::{Rate, Row, Scope},
    counter::{Counter, Counters},
    policy::{Action, Mode, Policy},
    remedy::{Reason, Verdict},
    time::ticks_of_ms,
};
use hickory_proto::op::ResponseCode;

use super::feeder::Feed;
use crate::{
    bench::{Bench, Gate, policy_of},
    frame::{Edns0, HELD, Query},
    names::{LETTERS, Names, Order},
};

/// The first label of a name, which a feeder writes; its length byte goes before it.
const VARIED: [u8; LETTERS] = [b'a'; LETTERS];
/// The longest label.
const MAX_LABEL: usize = 63;

/// How long a measurement may take: a key is held for as long, and a budget has room for one query.
const LONG_MS: u32 = 30 * 60 * 1_000;
/// Queries a second of one key, more than are made.
const MANY: u64 = 100_000_000;
/// Labels of a zone.
const ZONE_LABELS: u8 = 2;

/// The shape of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the name on the wire, 20 to 255.
    pub name: usize,
    /// Whether it has an OPT record.
    pub opt: bool,
    /// Whether it has a VLAN tag.
    pub vlan: bool,
    /// Whether it goes over IPv6.
    pub v6: bool,
}

impl Shape {
    /// A plain query.
    pub const fn of(name: usize) -> Self {
        Self {
            name,
            opt: false,
            vlan: false,
            v6: false,
        }
    }

    fn query(self) -> Result<Query> {
        let [source, destination] = if self.v6 {
            ["[2001:db8::1]:40000", "[2001:db8::2]:53"]
        } else {
            ["192.0.2.1:40000", "192.0.2.2:53"]
        };
        let mut query = Query::new(&name(self.name)?, source, destination)?;
        if !self.opt {
            query.edns = Edns0::Without;
        }
        if self.vlan {
            query.envelope.vlans = vec![7];
        }
        Ok(query)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes", self.name)?;
        let extras = [(self.opt, "OPT"), (self.vlan, "VLAN"), (self.v6, "IPv6")];
        let mut extras = extras.iter().filter(|(has, _)| *has);
        extras.try_for_each(|(_, word)| write!(out, ", {word}"))
    }
}

/// A kind of packet, in a state of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Not IP.
    Arp,
    /// Not UDP: an echo request.
    Icmp,
    /// Not UDP: a segment to port 443.
    Tcp,
    /// UDP to port 443.
    Udp,
    /// A query that passes.
    Query(Shape),
    /// The same, each with an ID of its own, as clients send them.
    FreshQuery(Shape),
    /// A response that passes.
    Response(Shape),
    /// A query whose key is held, and which is answered.
    HeldAnswered(Shape),
    /// A query whose key is held, and which is dropped.
    HeldDropped(Shape),
    /// A query that the budget of its key has no room for, and which is dropped.
    OverBudget(Shape),
    /// A query that the budget of its key has room for, but not that of its zone, and which is dropped.
    OverZone(Shape),
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp => out.write_str("ARP"),
            Self::Icmp => out.write_str("ICMP"),
            Self::Tcp => out.write_str("TCP, not DNS"),
            Self::Udp => out.write_str("UDP, not DNS"),
            Self::Query(shape) => write!(out, "query, {shape}"),
            Self::FreshQuery(shape) => write!(out, "query, {shape}, random ID"),
            Self::Response(shape) => write!(out, "response, {shape}"),
            Self::HeldAnswered(shape) => write!(out, "held, answered, {shape}"),
            Self::HeldDropped(shape) => write!(out, "held, dropped, {shape}"),
            Self::OverBudget(shape) => write!(out, "over budget, dropped, {shape}"),
            Self::OverZone(shape) => write!(out, "over its zone's budget, dropped, {shape}"),
        }
    }
}

impl Packet {
    /// Whether it is a DNS message, so that it has a key.
    pub const fn has_key(self) -> bool {
        !matches!(self, Self::Arp | Self::Icmp | Self::Tcp | Self::Udp)
    }

    /// Whether it is what it is, whatever a guard has seen before.
    pub const fn needs_no_state(self) -> bool {
        matches!(
            self,
            Self::Arp | Self::Icmp | Self::Tcp | Self::Udp | Self::Query(_) | Self::FreshQuery(_)
        )
    }

    /// The kernel object under the policy that it needs, in the state that it needs.
    pub fn bench(self) -> Result<Bench> {
        let action = if matches!(self, Self::HeldDropped(_)) {
            Action::Drop
        } else {
            Action::Answer
        };
        let mut bench = Bench::new(|policy| *policy = plain_policy(action))?;
        if let Self::HeldAnswered(shape) | Self::HeldDropped(shape) = self {
            bench.trip(Gate::TcIn, &shape.query()?)?;
        }
        let one_in_half_an_hour = Rate::new(1, LONG_MS / 1_000, 1);
        let rows = match self {
            Self::OverBudget(_) => vec![(Scope::Key, one_in_half_an_hour)],
            Self::OverZone(_) => vec![
                (Scope::Key, Rate::new(MANY, 1, MANY as u32)),
                (Scope::Zone, one_in_half_an_hour),
            ],
            _ => Vec::new(),
        };
        if !rows.is_empty() {
            let mut policy = plain_policy(action);
            for (id, (scope, rate)) in (1..).zip(rows) {
                let rate = rate.context("a rate that there is")?;
                let row = Row::new(id, scope, (true, true), rate, Action::Drop, Mode::Enforce);
                ensure!(policy.add_row(row), "no room for a row");
            }
            if matches!(self, Self::OverZone(_)) {
                policy.zone_labels[0] = ZONE_LABELS;
            }
            bench.set_policy(policy)?;
        }
        Ok(bench)
    }

    /// The packet.
    pub fn frame(self) -> Result<Vec<u8>> {
        let ends = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let hosts = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut frame = Vec::new();
        let payload = [0x5a; 40];
        match self {
            Self::Arp => {
                let who_has = ArpPacket::new(
                    ArpHardwareId::ETHERNET,
                    EtherType::IPV4,
                    ArpOperation::REQUEST,
                    &[2, 0, 0, 0, 0, 1],
                    &hosts.0,
                    &[0; 6],
                    &hosts.1,
                )?;
                ends.arp(who_has).write(&mut frame)?;
            }
            Self::Icmp => ends
                .ipv4(hosts.0, hosts.1, 63)
                .icmpv4_echo_request(1, 1)
                .write(&mut frame, &payload)?,
            Self::Tcp => ends
                .ipv4(hosts.0, hosts.1, 63)
                .tcp(40_000, 443, 1, 1_024)
                .write(&mut frame, &payload)?,
            Self::Udp => ends
                .ipv4(hosts.0, hosts.1, 63)
                .udp(40_000, 443)
                .write(&mut frame, &payload)?,
            Self::Response(shape) => return shape.query()?.answer_frame(ResponseCode::NoError, HELD),
            Self::Query(shape)
            | Self::FreshQuery(shape)
            | Self::HeldAnswered(shape)
            | Self::HeldDropped(shape)
            | Self::OverBudget(shape)
            | Self::OverZone(shape) => return shape.query()?.frame(),
        }
        Ok(frame)
    }

    /// What is done to it before each run, for so many keys.
    pub fn feed(self, live_keys: u32) -> Result<Feed> {
        let mut feed = Feed {
            restores: matches!(self, Self::HeldAnswered(_)),
            ..Feed::default()
        };
        if let Self::FreshQuery(shape) = self {
            feed.id_at = Some(self.frame()?.len() - shape.query()?.message()?.len());
        }
        if live_keys > 1 {
            feed.names = Some(Names {
                at: self.letters_at()?,
                count: live_keys,
                order: Order::AtRandom,
            });
        }
        Ok(feed)
    }

    /// Where in the frame the letters lie that tell names apart.
    fn letters_at(self) -> Result<usize> {
        let frame = self.frame()?;
        let label = [&[LETTERS as u8][..], &VARIED].concat();
        let at = frame.windows(label.len()).position(|window| window == label);
        Ok(at.with_context(|| format!("{self} has no name"))? + 1)
    }

    /// What its program returns.
    pub fn returns(self, gate: Gate) -> u32 {
        match self {
            Self::HeldAnswered(_) => gate.answer(),
            Self::HeldDropped(_) | Self::OverBudget(_) | Self::OverZone(_) => gate.drop(),
            _ => gate.pass(),
        }
    }

    /// Checks that `runs` packets were what they are said to be, by what was counted meanwhile.
    pub fn check(self, runs: u64, before: &Counters, after: &Counters) -> Result<()> {
        let (queries, answers) = match self {
            Self::Arp | Self::Icmp | Self::Tcp | Self::Udp => (0, 0),
            Self::Response(_) => (0, runs),
            _ => (runs, 0),
        };
        let delta = |count: &dyn Fn(&Counters) -> u64| count(after).wrapping_sub(count(before));
        let counted = |counter| delta(&|counters| counters.get(counter));
        let done = |verdict, reason| delta(&|counters| counters.action(verdict, reason));
        let when = |is: bool| if is { runs } else { 0 };
        for (what, is, expected) in [
            (
                "queries",
                counted(Counter::QueriesV4) + counted(Counter::QueriesV6),
                queries,
            ),
            ("responses", counted(Counter::Answers), answers),
            ("TCP segments", counted(Counter::TcpSegments), 0),
            ("trips", counted(Counter::Trips), 0),
            (
                "queries held and answered",
                done(Verdict::Answer, Reason::Loop),
                when(matches!(self, Self::HeldAnswered(_))),
            ),
            (
                "queries held and dropped",
                done(Verdict::Drop, Reason::Loop),
                when(matches!(self, Self::HeldDropped(_))),
            ),
        ] {
            ensure!(is == expected, "{self}: {is} {what} and not {expected} in {runs} runs");
        }
        let shed = done(Verdict::Drop, Reason::Budget);
        let expected = when(matches!(self, Self::OverBudget(_) | Self::OverZone(_)));
        // In half an hour there is room for one.
        ensure!(
            shed == expected || shed + 1 == expected,
            "{self}: {shed} queries over budget and not {expected}"
        );
        Ok(())
    }
}

/// Enforces on port 53, as the agent does by default but for the times: what is held stays so, and nobody has had too
/// many answers.
fn plain_policy(action: Action) -> Policy {
    let mut policy = policy_of(Mode::Enforce, action);
    policy.rules.hold_ticks = ticks_of_ms(LONG_MS);
    policy.rules.hold_max_ticks = policy.rules.hold_ticks;
    policy.limit_answers(u32::MAX, u32::MAX);
    policy
}

/// A name of so many bytes on the wire, which begins with the label that a feeder writes.
fn name(length: usize) -> Result<String> {
    const LAST: &str = "com";
    let given = 1 + LETTERS + 1 + LAST.len() + 1;
    let mut left = length.checked_sub(given).context("a name that is long enough")?;
    let mut labels = vec![String::from_utf8_lossy(&VARIED).into_owned()];
    while left > 0 {
        // Each has a byte of length, and none may be empty.
        let label = (left - 1).min(MAX_LABEL);
        let label = if left - 1 - label == 1 { label - 1 } else { label };
        ensure!(label > 0, "there is no name of {length} bytes");
        labels.push("x".repeat(label));
        left -= 1 + label;
    }
    labels.push(LAST.to_owned());
    Ok(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_length_that_was_asked_for() {
        for length in (13..=255).chain([20, 60, 206, 255]) {
            let query = Shape::of(length).query().unwrap();
            // Twelve bytes of header, four of type and class.
            assert_eq!(query.message().unwrap().len(), 12 + length + 4, "{length}");
        }
        assert!(name(256).is_err() || Shape::of(256).query().is_err());
        assert!(name(12).is_err());
    }

    #[test]
    fn letters_and_id_are_where_the_feeder_writes() {
        for (vlan, v6, header) in [(false, false, 42), (true, false, 46), (false, true, 62)] {
            let shape = Shape {
                vlan,
                v6,
                ..Shape::of(20)
            };
            let feed = Packet::FreshQuery(shape).feed(1_000).unwrap();
            assert_eq!(feed.id_at, Some(header));
            assert_eq!(feed.names.unwrap().at, header + 12 + 1);
        }
        assert!(Packet::Arp.feed(1_000).is_err());
        assert_eq!(Packet::Arp.feed(1).unwrap(), Feed::default());
    }

    #[test]
    fn what_was_measured_is_what_is_named_or_it_is_an_error() {
        let before = Counters::default();
        let mut after = before;
        let packet = Packet::Query(Shape::of(20));
        assert!(packet.check(7, &before, &after).is_err());
        after.0[Counter::QueriesV4 as usize] = 7;
        packet.check(7, &before, &after).unwrap();
        assert!(Packet::Arp.check(7, &before, &after).is_err());
        assert!(Packet::HeldDropped(Shape::of(20)).check(7, &before, &after).is_err());
        after.0[Counter::Trips as usize] = 1;
        assert!(packet.check(7, &before, &after).is_err());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        assert_eq!(Packet::Query(Shape::of(60)).to_string(), "query, 60 bytes");
        let shape = Shape {
            opt: true,
            v6: true,
            ..Shape::of(20)
        };
        assert_eq!(
            Packet::HeldAnswered(shape).to_string(),
            "held, answered, 20 bytes, OPT, IPv6"
        );
    }
}
