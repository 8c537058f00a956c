//! What a snapshot becomes, as whoever reads the JSON sees it.

use std::time::{Duration, UNIX_EPOCH};

use guard_common::{
    counter::{Counter, Counters, action_index},
    policy::Mode,
    remedy::{Reason, Verdict},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    attachment::{Attachment, Hook, Method},
    pods,
    snapshot::{BudgetCount, Link, OpenLoop, Snapshot, Standing, Standings},
};

const SECOND: u64 = 1_000_000_000;

fn standing(name: &str, qtype: &str) -> Standing {
    Standing {
        name: name.to_owned(),
        qtype: qtype.to_owned(),
        per_second: 4_600.123_45,
        error_per_second: 12.25,
        share: 0.92,
        share_error: 0.01,
    }
}

fn attachment(hook: Hook) -> Attachment {
    Attachment {
        device: "eth0".to_owned(),
        ifindex: 2,
        hook,
        method: Method::Tcx,
        program_id: 7,
        reason: String::new(),
        neighbours: Vec::new(),
    }
}

/// An agent that has looked twice, a second apart, while a loop was held.
pub(crate) fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot {
        mode: Mode::Enforce,
        attachments: vec![attachment(Hook::TcIngress), attachment(Hook::TcEgress)],
        loops: vec![OpenLoop {
            key: 1,
            name: "x.consul.".to_owned(),
            qtype: "A".to_owned(),
            device: "eth0".to_owned(),
            since_ns: 60 * SECOND,
            until_ns: 65 * SECOND,
            proof: "proven",
            evidence: "mark",
            level: 2,
            held: 140_000,
            ..OpenLoop::default()
        }],
        budgets: vec![BudgetCount {
            budget: "per client".to_owned(),
            limit: 200.0,
            scope: "client",
            within: 70,
            over: 7,
        }],
        links: [(
            "eth0".to_owned(),
            Link {
                limit: 900.0,
                peak: 875.0,
            },
        )]
        .into(),
        top: Standings {
            queries_per_second: 5_000.0,
            zones: vec![standing("104.in-addr.arpa.", "")],
            clients: vec![standing("10.9.0.66", "")],
            keys: vec![standing("x.consul.", "A")],
        },
        ..Snapshot::default()
    };
    snapshot.add_counters("eth0", &Counters::default());
    snapshot.date(61 * SECOND, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let mut counters = Counters::default();
    counters.0[Counter::QueriesV4 as usize] = 5_000;
    counters.0[Counter::LinkDns as usize] = 800;
    counters.0[Counter::LinkImds as usize] = 11;
    counters.0[action_index(Verdict::Drop, Reason::Silenced)] = 4_000;
    counters.0[action_index(Verdict::Drop, Reason::Budget)] = 30;
    snapshot.add_counters("eth0", &counters);
    (snapshot.budgets[0].within, snapshot.budgets[0].over) = (170, 37);
    snapshot.date(62 * SECOND, UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    snapshot
}

/// What that agent shows.
pub(crate) fn view() -> View {
    let snapshot = snapshot();
    View::of(&snapshot)
}

#[test]
fn the_view_has_a_versioned_schema() {
    let found: Value = serde_json::from_str(&view().json()).unwrap();
    let rate = json!({
        "queries_per_second": 4600.123, "error_per_second": 12.25, "share": 0.92, "share_error": 0.01,
    });
    let row = |more: Value| {
        let mut row = rate.clone();
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let expected = json!({
        "schema": 1, "at_unix_ms": 1_700_000_001_000_u64, "uptime_seconds": 1.0,
        "mode": "enforce", "interfaces": ["eth0"], "queries_per_second": 5000.0,
        "last_second": {
            "queries": 5000.0, "pass": 970.0, "answer": 0.0, "drop": 4030.0,
            "would_answer": 0.0, "would_drop": 0.0, "held": 4000.0, "shed": 30.0,
        },
        "zones": [row(json!({"zone": "104.in-addr.arpa."}))],
        "clients": [row(json!({"client": "10.9.0.66"}))],
        "keys": [row(json!({"name": "x.consul.", "type": "A"}))],
        "budgets": [{
            "budget": "per client", "limit_packets_per_second": 200.0, "within": 170, "over": 37,
            "within_per_second": 100.0, "over_per_second": 30.0,
        }],
        "links": [{
            "device": "eth0", "limit_packets_per_second": 900.0, "peak_packets_per_second": 875.0,
            "packets_per_second": 811.0, "dns_per_second": 800.0, "imds_per_second": 11.0,
            "ntp_per_second": 0.0, "other_per_second": 0.0,
        }],
        "loops": [{
            "name": "x.consul.", "type": "A", "class": "", "key": "0000000000000001", "device": "eth0", "proof": "proven", "evidence": "mark",
            "age_ms": 2000, "hold_left_ms": 3000, "level": 2, "held": 140_000, "allowed": false, "loop": [],
        }],
        "history": {
            "queries_per_second": [5000.0], "held_per_second": [4000.0], "shed_per_second": [30.0],
            "link_packets_per_second": {"eth0": [811.0]},
        },
    });
    assert_eq!(found, expected);
}

#[test]
fn clients_servers_and_interfaces_of_pods_are_named_beside_what_they_are() {
    let mut snapshot = snapshot();
    snapshot.loops[0].servers = vec![([10, 9, 0, 66], 53).into(), ([192, 0, 2, 1], 53).into()];
    snapshot.pods = pods::one("shop/cart-1", "10.9.0.66", "eth0").sight([]);
    let found: Value = serde_json::from_str(&View::of(&snapshot).json()).unwrap();
    let client = &found["clients"][0];
    assert_eq!(
        (&client["client"], &client["pod"]),
        (&json!("10.9.0.66"), &json!("shop/cart-1"))
    );
    let row = &found["loops"][0];
    assert_eq!(row["loop"], json!(["10.9.0.66:53", "192.0.2.1:53"]));
    assert_eq!(row["pods"], json!({"10.9.0.66": "shop/cart-1"}));
    assert_eq!(row["device_pod"], "shop/cart-1");
    // Whoever reads it has it back.
    let view = View::of(&snapshot);
    assert_eq!(serde_json::from_str::<View>(&view.json()).unwrap(), view);
}

#[test]
fn what_is_written_is_what_is_read() {
    let view = view();
    assert_eq!(serde_json::from_str::<View>(&view.json()).unwrap(), view);
}

#[test]
fn a_hold_that_is_over_has_nothing_left() {
    let mut snapshot = snapshot();
    snapshot.date(70 * SECOND, UNIX_EPOCH);
    let view = View::of(&snapshot);
    assert_eq!((view.loops[0].age_ms, view.loops[0].hold_left_ms), (10_000, 0));
    assert_eq!(view.uptime_seconds, 9.0);
}
