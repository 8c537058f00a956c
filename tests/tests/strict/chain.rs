//! A chain of forwarders in front of a slow server, and many clients of one name: it is marked at several hops, and each
//! client gets its own spelling back.

use std::{
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Question,
    guard::{Guard, GuardOptions},
    programs,
    question::RecordType,
    resolver::{Dnsdist, Dnsmasq, Duties, Forward, Resolver},
    scribe::{Reply, Scribe, owner, spelled},
};

const FIRST: ([u8; 4], u16) = ([127, 0, 0, 1], 53);
const SECOND: ([u8; 4], u16) = ([127, 0, 0, 2], 53);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 9], 53);

const NAME: &str = "held-by-a-slow-server.example";
const CLIENTS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a forwarder that listens on the first address and forwards everything to the second.
type Start = fn(&Namespace, SocketAddr, SocketAddr) -> Result<Resolver>;

fn duties(listen: SocketAddr, to: SocketAddr) -> Duties {
    Duties {
        listen: vec![listen],
        forwards: vec![Forward::new("", to)],
        answers: Vec::new(),
    }
}

fn dnsdist(namespace: &Namespace, listen: SocketAddr, to: SocketAddr) -> Result<Resolver> {
    Dnsdist {
        duties: duties(listen, to),
        extra: Vec::new(),
    }
    .start(namespace)
}

fn dnsmasq(namespace: &Namespace, listen: SocketAddr, to: SocketAddr) -> Result<Resolver> {
    Dnsmasq {
        duties: duties(listen, to),
        extra: vec!["cache-size=0".to_owned()],
    }
    .start(namespace)
}

/// Asks in turn, each client in the spelling that `spell` gives it, and answers when all have asked. Returns what each
/// asked for, and how it was answered: the question, and the name of the record. There was a mark, and at
/// least `restored` answers were restored.
fn ask(first: Start, second: Start, spell: fn(usize) -> String, restored: u64) -> Result<Vec<[String; 3]>> {
    programs::provide(&["ip", "dnsdist", "dnsmasq"])?;
    let namespace = Namespace::new()?;
    let scribe = Scribe::start(&namespace, SERVER.into(), |name| {
        if name.to_ascii_lowercase().starts_with("held") {
            Reply::Held
        } else {
            Reply::Asked
        }
    })?;
    let _second = second(&namespace, SECOND.into(), SERVER.into())?;
    let _first = first(&namespace, FIRST.into(), SECOND.into())?;
    let guard = Guard::start(&namespace, &GuardOptions::enforce(&["lo"]))?;
    guard.wait_ready(PATIENCE)?;
    let mut clients: Vec<(String, UdpSocket)> = Vec::new();
    for number in 0..CLIENTS {
        let name = spell(number);
        let socket = namespace.udp(([127, 0, 0, 1], 0).into())?;
        socket.connect(SocketAddr::from(FIRST))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&Question::new(&name, RecordType::A)?.query(number as u16)?)?;
        clients.push((name, socket));
    }
    settle(&scribe);
    scribe.release();
    let mut answers = Vec::new();
    for (name, socket) in clients {
        let mut buffer = [0; 4096];
        let length = socket
            .recv(&mut buffer)
            .with_context(|| format!("no answer for {name}"))?;
        let response = &buffer[..length];
        let question = spelled(response).context("a response has a question")?;
        let owner = owner(response).with_context(|| format!("no address for {name}"))?;
        answers.push([name, question, owner]);
    }
    guard.wait_counter("dnsguard_mark_restorations_total", &[], restored, PATIENCE)?;
    let marks = guard.wait_counter("dnsguard_marks_total", &["result=\"marked\""], 1, PATIENCE)?;
    let trips = guard.events_of("trip")?;
    ensure!(trips.is_empty(), "taken for a loop: {trips:?}");
    ensure!(guard.counter("dnsguard_actions_total", &[])? == 0, "queries were held");
    guard.stop()?;
    let asked = scribe.spellings(NAME);
    let upper = asked.iter().filter(|asked| *asked != NAME).count();
    println!(
        "{} queries at the server, {upper} not in small letters; {marks} marks",
        asked.len()
    );
    Ok(answers)
}

/// Waits until the last query that is forwarded has come; who comes later is answered too.
fn settle(scribe: &Scribe) {
    let (mut seen, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(100) {
        let now = scribe.spellings(NAME).len();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(5));
    }
}

fn plain(_: usize) -> String {
    NAME.to_owned()
}

/// Each letter in either case, by a generator of its own (Knuth, MMIX).
fn at_random(number: usize) -> String {
    let mut state = number as u64 + 1;
    let turn = |letter: char| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 1 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    NAME.chars().map(turn).collect()
}

fn each_gets_its_own(answers: &[[String; 3]]) -> Result<()> {
    for [name, question, owner] in answers {
        ensure!(
            question == name && owner == name,
            "{name} was answered as {question}, for {owner}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn plain_clients_of_two_dnsdist_get_plain_answers() -> Result<()> {
    let answers = ask(dnsdist, dnsdist, plain, 1)?;
    each_gets_its_own(&answers)
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn clients_of_two_dnsdist_that_spell_at_random_get_their_own() -> Result<()> {
    let answers = ask(dnsdist, dnsdist, at_random, 1)?;
    each_gets_its_own(&answers)
}

/// dnsmasq joins what dnsdist sends it, the marked query too, and answers all in the spelling of the first.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn plain_clients_that_are_joined_get_plain_answers() -> Result<()> {
    let answers = ask(dnsdist, dnsmasq, plain, 0)?;
    each_gets_its_own(&answers)
}
