//! A short run of what `cargo xtask accuracy` runs for long.

use guard_sim::accuracy::natively;

/// Queries that are no loop.
const QUERIES: u64 = 300_000;

#[test]
fn nothing_is_taken_for_what_it_is_not() {
    let found = natively(1, QUERIES, 2, |_| ());
    assert!(found.queries >= QUERIES);
    assert_eq!(found.queries_by_load.len(), 5, "{:?}", found.queries_by_load);
    assert_eq!(found.false_trips, [""; 0]);
    assert_eq!(found.loops_missed, [""; 0]);
    assert_eq!(found.mangled, [""; 0]);
    assert!(found.loops_proven * 2 > found.loops && found.loops > 50, "{found:?}");
}

#[test]
fn a_seed_gives_the_same_findings_whoever_works_it_out() {
    let alone = natively(2, 20_000, 1, |_| ());
    assert_eq!(alone, natively(2, 20_000, 3, |_| ()));
    assert_ne!(alone, natively(3, 20_000, 3, |_| ()));
}
