//! A bounded run of every target, from one seed: each class of cases that there is has to come up, and none is wrong.

use anyhow::{Context as _, Result, bail, ensure};
use guard_fuzz::{
    driver::{Run, keep, kept},
    target::Kind,
};
use guard_tests::knob;

/// Others are for `cargo xtask fuzz`.
const SEED: u64 = 8;
/// For the kernel, unless `DNSGUARD_SCRIPTS` says otherwise.
const SCRIPTS: u64 = 12_000;

/// So many cases; each of these classes has to come up.
fn run(name: &str, cases: u64, classes: &[&str]) -> Result<()> {
    let kind = Kind::named(name).context("no such target")?;
    let run = Run {
        kind,
        seed: SEED,
        cases,
    };
    let findings = run.run(&|_| ())?;
    println!("{name}: {findings}");
    if let Some(failure) = &findings.failure {
        bail!("{}", failure.report(&run, &keep(&kept(), kind, &failure.case)?));
    }
    for class in classes {
        ensure!(findings.classes.contains_key(class), "no case came to `{class}`");
    }
    Ok(())
}

#[test]
fn headers_are_read_as_etherparse_reads_them() -> Result<()> {
    run(
        "headers",
        300_000,
        &[
            "TCP, read by both",
            "UDP over IPv4, read by both",
            "UDP over IPv6, read by both",
            "a fragment, to both",
            "no ports, to both",
            "passed: headers that the guard does not go through",
            "read by the guard: extension headers in an order that etherparse does not take",
            "read by the guard: ports in a datagram that is cut",
            "refused by both",
        ],
    )
}

#[test]
fn questions_are_read_as_hickory_and_domain_read_them() -> Result<()> {
    run(
        "question",
        300_000,
        &[
            "a query, read by all",
            "a response, read by all",
            "refused by all: a name above 255 bytes",
            "refused by all: a question that is cut",
            "refused by all: a type of label that nobody knows",
            "refused by all: no whole header",
            "refused by the guard: a name that is compressed",
            "refused by the guard: an opcode other than QUERY",
            "refused by the guard: not one question",
        ],
    )
}

#[test]
fn answers_are_what_three_libraries_take_them_for() -> Result<()> {
    run(
        "answer",
        200_000,
        &[
            "answered over IPv4",
            "answered over IPv4, with EDNS",
            "answered over IPv6",
            "answered over IPv6, with EDNS",
            "cut behind the question",
            "not to be answered",
        ],
    )
}

#[test]
fn a_mark_changes_letters_alone_and_comes_off_again() -> Result<()> {
    run(
        "spelling",
        200_000,
        &[
            "marked, and unmarked",
            "a name without letters",
            "a pattern that is no mark",
        ],
    )
}

#[test]
fn the_door_does_nothing_to_a_packet_that_it_may_not() -> Result<()> {
    run("door", 10_000, &PATHS)
}

#[test]
fn names_are_shown_in_printable_letters_and_read_back() -> Result<()> {
    run("name", 100_000, &["a name, and back", "no name"])
}

#[test]
fn a_configuration_is_read_or_refused_with_its_place() -> Result<()> {
    run(
        "config",
        2_500,
        &[
            "a configuration",
            "no text",
            "one thing is wrong",
            "several things are wrong",
        ],
    )
}

#[test]
fn a_change_by_hand_is_the_same_when_it_is_made_twice() -> Result<()> {
    run(
        "edit",
        2_500,
        &[
            "a change that is right",
            "a change that is refused",
            "no such key",
            "no file to change",
        ],
    )
}

#[test]
fn every_request_is_answered_or_refused_with_a_reason() -> Result<()> {
    run(
        "control",
        4_000,
        &[
            "answered",
            "refused, with a reason",
            "no HTTP",
            "no answer to half a request",
        ],
    )
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_kernel_object_does_what_the_judge_does_natively() -> Result<()> {
    run("kernel", knob("DNSGUARD_SCRIPTS", SCRIPTS)?, &PATHS)
}

/// What can become of frames that come one after the other.
const PATHS: [&str; 6] = [
    "all passed",
    "some marked",
    "some answered",
    "some answered, some marked",
    "some dropped",
    "some dropped, some marked",
];
