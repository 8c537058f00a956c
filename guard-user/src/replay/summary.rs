//! What came of a whole capture.

use std::path::Path;

use guard_common::{
    counter::{Counter, Counters},
    policy::Mode,
    remedy::{Reason, Verdict},
};
use serde::Serialize;

use super::{
    judge::Judge,
    link,
    tally::{LOOKS_CUT, Looped, Tally},
};
use crate::{
    config::{Config, mode_word},
    events::rfc3339_ns,
    print,
};

/// What came of a capture; the same capture and configuration give the same bytes.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) file: String,
    pub(super) mode: &'static str,
    /// Frames of the capture.
    pub(super) packets: u64,
    /// The time stamps of the first and of the last packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<String>,
    /// From the first to the last.
    pub(super) seconds: f64,
    pub(super) queries: u64,
    /// Responses with NOERROR or NXDOMAIN, and all others.
    pub(super) answers: u64,
    pub(super) errors: u64,
    /// Segments of DNS over TCP, which are not looked into.
    pub(super) tcp_segments: u64,
    pub(super) recirculations: u64,
    pub(super) trips: u64,
    pub(super) interfaces: Vec<Interface>,
    pub(super) verdicts: Vec<Judged>,
    pub(super) loops: Vec<Looped>,
    pub(super) budgets: Vec<Budget>,
    /// Queries that clients wasted on their search lists.
    pub(super) search_wasted: u64,
    pub(super) unread: Vec<Unread>,
    /// What to know of how it was judged.
    pub(super) notes: Vec<String>,
    /// Why the rest of the capture could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) damage: Option<String>,
}

/// Packets of an interface.
#[derive(Debug, Serialize)]
pub(super) struct Interface {
    pub(super) device: String,
    pub(super) incoming: u64,
    pub(super) outgoing: u64,
}

/// Queries that got a verdict other than to pass.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    pub(super) verdict: &'static str,
    pub(super) reason: &'static str,
    pub(super) queries: u64,
}

/// What a budget counted.
#[derive(Debug, Serialize)]
pub(super) struct Budget {
    pub(super) budget: String,
    /// Packets per second.
    pub(super) limit: f64,
    pub(super) within: u64,
    pub(super) over: u64,
}

/// Packets that were not read.
#[derive(Debug, Serialize)]
pub(super) struct Unread {
    pub(super) what: String,
    pub(super) packets: u64,
}

/// What the judge passes unread, and what it is.
const UNREAD: [(Counter, &str); 6] = [
    (Counter::Fragments, "fragments of UDP datagrams"),
    (Counter::BadHeader, "headers that contradict themselves"),
    (Counter::ShortMessage, "messages shorter than they say"),
    (Counter::OtherOpcode, "another OPCODE than QUERY"),
    (Counter::QuestionCount, "another number of questions than one"),
    (Counter::BadName, "names that are compressed or too long"),
];

impl Summary {
    /// What came of a capture.
    pub(super) fn new(file: &Path, config: &Config, judge: &Judge, damage: Option<String>) -> Self {
        let (tally, clock, counters) = (judge.tally(), judge.clock(), judge.counters());
        let snapshot = judge.snapshot();
        let mut loops = tally.loops.clone();
        for open in &snapshot.loops {
            Tally::note_held(&mut loops, open.key, open.held);
        }
        let last = clock.latest();
        let interfaces = tally.places.iter().map(|(ifindex, [incoming, outgoing])| Interface {
            device: judge.devices().name(*ifindex).unwrap_or_default().to_owned(),
            incoming: *incoming,
            outgoing: *outgoing,
        });
        let budgets = snapshot.budgets.into_iter().map(|count| Budget {
            budget: count.budget,
            limit: count.limit,
            within: count.within,
            over: count.over,
        });
        Self {
            file: file.display().to_string(),
            mode: mode_word(config.mode),
            packets: tally.packets,
            first: clock.first().map(|first| rfc3339_ns(first.epoch_ns)),
            last: clock.first().map(|_| rfc3339_ns(last.epoch_ns)),
            seconds: last.since_ns as f64 / 1e9,
            queries: counters.get(Counter::QueriesV4) + counters.get(Counter::QueriesV6),
            answers: counters.get(Counter::Answers),
            errors: counters.get(Counter::Errors),
            tcp_segments: counters.get(Counter::TcpSegments),
            recirculations: counters.get(Counter::Recirculations),
            trips: tally.trips,
            interfaces: interfaces.collect(),
            verdicts: verdicts(&counters),
            loops,
            budgets: budgets.collect(),
            search_wasted: snapshot.search_wasted,
            unread: unread(tally, &counters),
            notes: notes(config, judge),
            damage,
        }
    }

    /// Whether the guard would have had something to do.
    pub(super) fn has_found(&self) -> bool {
        self.trips > 0 || !self.verdicts.is_empty() || self.budgets.iter().any(|budget| budget.over > 0)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "\n{}\n",
            print::painted(
                print::HEAD,
                &format!("{}, judged in {} mode", print::harmless(&self.file), self.mode)
            )
        );
        let mut rows = vec![(
            "packets",
            match (&self.first, &self.last) {
                (Some(first), Some(last)) => {
                    format!("{}, from {first} to {last}, {:.3} seconds", self.packets, self.seconds)
                }
                _ => self.packets.to_string(),
            },
        )];
        let devices = self.interfaces.iter().map(|one| {
            let device = print::harmless(&one.device);
            format!("{device} {} in, {} out", one.incoming, one.outgoing)
        });
        rows.push(("interfaces", listed(devices)));
        rows.push((
            "DNS",
            format!(
                "{} queries, {} answers, {} errors, {} TCP segments",
                self.queries, self.answers, self.errors, self.tcp_segments
            ),
        ));
        let verdicts = self.verdicts.iter();
        rows.push((
            "verdicts",
            listed(verdicts.map(|judged| format!("{} {} ({})", judged.verdict, judged.queries, judged.reason))),
        ));
        rows.push(("search lists", format!("{} queries wasted", self.search_wasted)));
        for (name, value) in rows {
            text += &format!("  {name:<14}{value}\n");
        }
        text + &self.lists()
    }

    fn lists(&self) -> String {
        let mut text = String::new();
        if !self.loops.is_empty() {
            let rows = self.loops.iter().map(|found| {
                vec![
                    print::harmless(&found.name).into_owned(),
                    found.qtype.clone(),
                    print::harmless(&found.device).into_owned(),
                    found.frame.to_string(),
                    found.time.clone(),
                    format!("{} ({})", found.proof, found.evidence),
                    found.trips.to_string(),
                    found.extensions.to_string(),
                    found.held.to_string(),
                ]
            });
            let heading = [
                "LOOP", "TYPE", "DEVICE", "FRAME", "TIME", "PROOF", "TRIPS", "EXTENDED", "HELD",
            ];
            text += &format!("\n{}", print::table(&heading, rows));
        }
        if !self.budgets.is_empty() {
            let rows = self.budgets.iter().map(|budget| {
                vec![
                    budget.budget.clone(),
                    format!("{}/s", budget.limit),
                    budget.within.to_string(),
                    budget.over.to_string(),
                ]
            });
            text += &format!("\n{}", print::table(&["BUDGET", "LIMIT", "WITHIN", "OVER"], rows));
        }
        if !self.unread.is_empty() {
            let rows = self
                .unread
                .iter()
                .map(|one| vec![one.what.clone(), one.packets.to_string()]);
            text += &format!("\n{}", print::table(&["NOT READ", "PACKETS"], rows));
        }
        if !self.notes.is_empty() {
            text += "\n";
        }
        for note in &self.notes {
            text += &format!("note: {}\n", print::harmless(note));
        }
        text
    }
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn verdicts(counters: &Counters) -> Vec<Judged> {
    let verdicts = [Verdict::Answer, Verdict::Drop, Verdict::WouldAnswer, Verdict::WouldDrop];
    let all = verdicts
        .into_iter()
        .flat_map(|verdict| Reason::ALL.map(|reason| (verdict, reason)));
    let counted = all.map(|(verdict, reason)| Judged {
        verdict: verdict.word(),
        reason: reason.word(),
        queries: counters.action(verdict, reason),
    });
    counted.filter(|judged| judged.queries > 0).collect()
}

fn unread(tally: &Tally, counters: &Counters) -> Vec<Unread> {
    let mut unread = Vec::new();
    let mut add = |what: String, packets: u64| {
        if packets > 0 {
            unread.push(Unread { what, packets });
        }
    };
    add("cut short by the capture (tcpdump -s 0)".to_owned(), tally.cut_short);
    for (counter, what) in UNREAD {
        let looks = LOOKS_CUT.iter().zip(tally.cut_looks);
        let cut = looks.filter(|(looks, _)| **looks == counter).map(|(_, count)| count);
        add(what.to_owned(), counters.get(counter).saturating_sub(cut.sum()));
    }
    for (link, packets) in &tally.links {
        add(link::name(*link), *packets);
    }
    add("frames that are no packets".to_owned(), tally.no_packets);
    add("second copies of packets on lo".to_owned(), tally.loopback_copies);
    add(
        "queries without room in the table of keys".to_owned(),
        counters.get(Counter::TableFull),
    );
    unread
}

/// What to know of how a capture was judged.
fn notes(config: &Config, judge: &Judge) -> Vec<String> {
    let (tally, clock, devices) = (judge.tally(), judge.clock(), judge.devices());
    let mut notes = Vec::new();
    if config.mode == Mode::Enforce && tally.trips > 0 {
        notes.push(
            "what the guard would have answered or dropped goes on in the capture all the same: after the first verdict, \
             counts are higher than they would have been"
                .to_owned(),
        );
    }
    if clock.backwards > 0 {
        let count = clock.backwards;
        notes.push(format!(
            "{count} packets are stamped earlier than one before them, and were judged at the time of that one \
             (reordercap puts them in order)"
        ));
    }
    if clock.unstamped > 0 {
        let count = clock.unstamped;
        notes.push(format!(
            "{count} packets have no time stamp, and were judged at the time of the one before"
        ));
    }
    if tally.unlisted_trips > 0 {
        let count = tally.unlisted_trips;
        notes.push(format!(
            "{count} trips are of loops that are not in the list, which is full"
        ));
    }
    let nameless = tally.places.keys().any(|ifindex| devices.is_made_up(*ifindex));
    let names_interfaces = config.link_local.is_some()
        || !config.hygiene.interfaces.is_empty()
        || config.budgets.iter().any(|budget| !budget.filter.interfaces.is_empty());
    if nameless && names_interfaces {
        notes.push(
            "the capture does not name its interfaces: what the configuration says of single ones was not applied; \
             --interface NAME says which one it is of, --interface INDEX=NAME which one has an index"
                .to_owned(),
        );
    }
    let goes_out = tally.places.values().any(|[_, outgoing]| *outgoing > 0);
    if config.link_local.is_some() && !goes_out {
        notes.push(
            "no packet is known to go out, so the link-local budget has seen none; --local ADDRESS says which addresses are \
             the host's own"
                .to_owned(),
        );
    }
    notes
}
