//! `docs/EVENTS.md` against the code: every event and field is there, nothing else is, and its lines are events.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::UNIX_EPOCH,
};

use guard_common::policy::Mode;
use serde_json::Value;

use super::{
    Allowance, Breaker, ClientShare, Event, Hooked, NameShare, OverBudget, SearchWalk, WithinBudget, ZoneShare,
    feed::{Feed, Query},
    tests::trip,
};
use crate::datapath::Takeover;
use crate::pods::Pod;

const GUIDE: &str = include_str!("../../../docs/EVENTS.md");

/// What the guide says of each event: its fields, those that all events have included, and its lines of JSON.
#[derive(Default)]
struct Documented {
    fields: BTreeSet<String>,
    lines: Vec<Value>,
}

/// Reads the guide. A heading of the second level names events; a row of a table begins with fields; a block of JSON is a
/// line that is broken where a blank was, or may be.
fn documented() -> BTreeMap<String, Documented> {
    let mut found: BTreeMap<String, Documented> = BTreeMap::new();
    let (mut common, mut current) = (BTreeSet::new(), Vec::new());
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            current = code(heading);
            for word in &current {
                assert!(
                    found.insert(word.clone(), Documented::default()).is_none(),
                    "{word} twice"
                );
            }
        } else if line.starts_with("| `") && !line.starts_with("| `proven`") && !line.starts_with("| `suspected`") {
            let fields = code(line.split('|').nth(1).unwrap());
            if current.is_empty() {
                common.extend(fields);
            } else {
                for word in &current {
                    found.get_mut(word).unwrap().fields.extend(fields.iter().cloned());
                }
            }
        } else if line == "```json" {
            let broken: Vec<_> = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(str::trim)
                .collect();
            let value: Value = serde_json::from_str(&broken.join(" ")).unwrap();
            let word = value["event"].as_str().unwrap().to_owned();
            assert!(current.contains(&word), "a line of {word} stands under {current:?}");
            found.get_mut(&word).unwrap().lines.push(value);
        }
    }
    for event in found.values_mut() {
        event.fields.extend(common.iter().cloned());
    }
    found
}

/// What stands between backticks.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The fields of a JSON object; those of objects in a list as `list[].field`.
fn fields(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (field, inner) in value.as_object().unwrap() {
        found.insert(field.clone());
        let rows = inner.as_array().into_iter().flatten().filter(|row| row.is_object());
        found.extend(rows.flat_map(fields).map(|below| format!("{field}[].{below}")));
    }
    found
}

/// One event of each kind, with every field that it can have. Each leads to the next, so that the compiler names the kind
/// that is forgotten here.
fn every_event() -> Vec<Event> {
    let mut events = vec![Event::ready(Mode::Enforce, vec!["lo".to_owned()])];
    while let Some(next) = events.last().and_then(next) {
        events.push(next);
    }
    events
}

fn next(event: &Event) -> Option<Event> {
    let text = || "x".to_owned();
    let hooked = || Hooked {
        device: text(),
        hook: "xdp",
        method: "driver",
        program_id: 1,
        neighbours: vec![text()],
        reason: text(),
    };
    let pod = || Pod::new(b"default", b"x");
    let breaker = || match trip() {
        Event::Trip(breaker) => Breaker {
            device_pod: pod(),
            pods: pod().map(|pod| ([10, 0, 0, 7].into(), pod)).into_iter().collect(),
            ..breaker
        },
        other => panic!("{other:?} is no trip"),
    };
    let allowance = || Allowance {
        name: text(),
        qtype: text(),
        reason: text(),
    };
    Some(match event {
        Event::Ready { .. } => Event::Attach(hooked()),
        Event::Attach(_) => Event::Detach(hooked()),
        Event::Detach(_) => Event::takeover(Takeover { abi: 1, links: 1 }),
        Event::Takeover { .. } => Event::stay(&[], 30),
        Event::Stay { .. } => Event::AttachError {
            device: text(),
            hook: "xdp",
            reason: text(),
        },
        Event::AttachError { .. } => Event::Trip(breaker()),
        Event::Trip(_) => Event::Extend(breaker()),
        Event::Extend(_) => Event::Release(breaker()),
        Event::Release(_) => Event::Expire(breaker()),
        Event::Expire(_) => Event::OverBudget(OverBudget {
            device: Some(text()),
            device_pod: pod(),
            limit: Some(1.0),
            zones: vec![ZoneShare::default()],
            clients: vec![ClientShare {
                pod: pod(),
                ..ClientShare::default()
            }],
            names: vec![NameShare::default()],
            ..OverBudget::default()
        }),
        Event::OverBudget(_) => Event::WithinBudget(WithinBudget {
            device: Some(text()),
            ..WithinBudget::default()
        }),
        Event::WithinBudget(_) => Event::SearchWalk(SearchWalk {
            client: [10, 0, 0, 7].into(),
            pod: pod(),
            wasted: 1,
            queries: 1,
            suffixes: vec![text()],
            example: text(),
            reason: text(),
        }),
        Event::SearchWalk(_) => Event::lost(1),
        Event::Lost { .. } => Event::policy(1, Mode::Observe),
        Event::Policy { .. } => Event::Reload {
            successful: true,
            trigger: "command",
            by: Some(text()),
            changes: vec![text()],
            reason: text(),
        },
        Event::Reload { .. } => Event::Allow(allowance()),
        Event::Allow(_) => Event::Disallow(allowance()),
        Event::Disallow(_) => Event::Lease {
            seconds_left: 0,
            reason: text(),
        },
        Event::Lease { .. } => Event::AllowanceExceeded {
            device: text(),
            kind: "linklocal",
            dropped: 1,
            our_packets_per_second: Some(1),
            reason: text(),
        },
        Event::AllowanceExceeded { .. } => Event::NoAllowances {
            device: text(),
            driver: Some(text()),
            reason: text(),
        },
        Event::NoAllowances { .. } => return None,
    })
}

/// The line of a sampled query.
fn query_line() -> Value {
    let feed = Feed::new();
    let mut onlooker = feed.watch(0, true);
    let query = Query {
        client: [10, 0, 0, 7].into(),
        pod: Pod::new(b"default", b"x"),
        server: [10, 0, 0, 2].into(),
        server_pod: Pod::new(b"default", b"x"),
        name: "x.".to_owned(),
        qtype: "A".to_owned(),
        device: "lo".to_owned(),
        device_pod: Pod::new(b"default", b"x"),
        direction: "in",
        verdict: "answer",
        why: Some("loop"),
        weight: 1,
    };
    feed.show(&query, UNIX_EPOCH);
    let line = onlooker.queries.as_mut().unwrap().lines.try_recv().unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The fields of each event, as it is told.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let events = every_event();
    let lines = events.iter().map(|event| event.json(UNIX_EPOCH));
    let mut told: BTreeMap<_, _> = lines
        .map(|line| serde_json::from_str::<Value>(&line).unwrap())
        .chain([query_line()])
        .map(|value| (value["event"].as_str().unwrap().to_owned(), fields(&value)))
        .collect();
    // It has no sentence of its own; the guide says so where it tells what all events have.
    told.get_mut("query").unwrap().insert("reason".to_owned());
    told
}

#[test]
fn every_event_and_field_is_documented_and_no_other() {
    let (told, documented) = (told(), documented());
    let words: Vec<_> = documented.keys().collect();
    assert_eq!(told.keys().collect::<Vec<_>>(), words);
    for (word, event) in &documented {
        assert_eq!(
            told[word], event.fields,
            "the fields of {word}: as told, and as documented"
        );
    }
}

#[test]
fn every_documented_event_has_a_line_and_every_line_only_fields_that_it_can_have() {
    let told = told();
    for (word, event) in documented() {
        assert!(!event.lines.is_empty(), "{word} has no line");
        for line in &event.lines {
            let unknown: Vec<_> = fields(line).difference(&told[&word]).cloned().collect();
            assert!(unknown.is_empty(), "{unknown:?} in {line}");
        }
    }
}
