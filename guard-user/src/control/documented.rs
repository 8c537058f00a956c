//! `docs/CONTROL.md` against the server: every request that is served is there, and no other.

use std::collections::BTreeSet;

const GUIDE: &str = include_str!("../../../docs/CONTROL.md");
const SERVER: &str = include_str!("server.rs");

/// The requests that the server knows, such as `GET /v1/status`.
fn served() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in SERVER.lines() {
        if let Some((before, rest)) = line.split_once("\"/v1/") {
            let method = if before.contains("Method::GET") { "GET" } else { "POST" };
            let path = rest.split('"').next().unwrap();
            found.insert(format!("{method} /v1/{path}"));
        }
    }
    found
}

#[test]
fn every_request_is_documented_and_no_other() {
    let rows = GUIDE.lines().filter_map(|line| line.strip_prefix("| `"));
    let requests = rows.filter_map(|row| row.split(['`', '?']).next());
    let documented: BTreeSet<_> = requests
        .filter(|request| request.contains(" /"))
        .map(str::to_owned)
        .collect();
    assert_eq!(served(), documented);
    assert!(documented.contains("POST /v1/reload"), "{documented:?}");
}
