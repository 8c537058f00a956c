//! What was signed still validates.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Question,
    client::ask,
    programs,
    question::RecordType,
    resolver::{Duties, Forward, Unbound},
};

use super::site::{PATIENT, RECORDS, RESOLVER, SERVER, Site, first, only, says};

const ZONE: &str = "signed.example";

/// A site whose zone is signed, and the data of the zone's DNSKEY record.
fn signed(others: &[&str]) -> Result<(Site, String)> {
    let mut needed = vec!["ip", "dnssec-keygen", "dnssec-signzone"];
    needed.extend(others);
    programs::provide(&needed)?;
    programs::provide(&["named"])?;
    let namespace = Namespace::new()?;
    let zone = namespace.file("signed.zone", RECORDS)?;
    let zone = zone.display();
    let keys = "/run/keys";
    namespace.tool("mkdir", keys)?;
    // One key for everything, small: no answer is truncated. It is good for longer than the records, so nobody asks for it
    // twice.
    let key = namespace.tool(
        "dnssec-keygen",
        &format!("-q -L 3600 -K {keys} -a ECDSAP256SHA256 -f KSK {ZONE}"),
    )?;
    namespace.tool(
        "dnssec-signzone",
        &format!("-q -z -S -K {keys} -d {keys} -o {ZONE} -f {zone}.signed {zone}"),
    )?;
    let record = namespace.tool("cat", &format!("{keys}/{}.key", key.trim()))?;
    let data = record
        .lines()
        .find_map(|line| line.split_once(" DNSKEY "))
        .context("a key file has a record")?
        .1
        .to_owned();
    let block = format!("zone \"{ZONE}\" {{ type primary; file \"{zone}.signed\"; }};");
    Ok((Site::start_in(namespace, Vec::new(), vec![block])?, data))
}

/// unbound validates, spells at random, and asks for a name, a wildcard's name, and one that is not there; its queries for
/// all of them are marked, and so is that for the key.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn unbound_validates() -> Result<()> {
    let (site, key) = signed(&["unbound", "dig"])?;
    let duties = Duties {
        listen: vec![RESOLVER.into()],
        forwards: vec![Forward::new(ZONE, SERVER.into())],
        answers: Vec::new(),
    };
    let unbound = Unbound {
        duties,
        extra: vec![
            "module-config: \"validator iterator\"".to_owned(),
            format!("trust-anchor: \"{ZONE}. DNSKEY {key}\""),
            "use-caps-for-id: yes".to_owned(),
            PATIENT.to_owned(),
        ],
    }
    .start(&site.namespace)?;
    let keys = site.herd(ZONE, RecordType::DNSKEY, 1)?;
    let (ip, port) = (SocketAddr::from(RESOLVER).ip(), RESOLVER.1);
    for (name, status) in [
        ("host", "NOERROR"),
        ("any-name.wild", "NOERROR"),
        ("missing", "NXDOMAIN"),
    ] {
        let name = format!("{name}.{ZONE}");
        let herd = site.herd(&name, RecordType::A, 1)?;
        let said = site.say("dig", &format!("@{ip} -p {port} +dnssec +tries=1 {name} A"))?;
        says(&said, &[&format!("status: {status}"), " ad;", "RRSIG"])?;
        only(site.strict(&herd)?)?;
    }
    only(site.strict(&keys)?)?;
    site.marked(4)?;
    drop(unbound);
    site.guard.stop()
}

/// What unbound says of a zone that it does not find signed as it should be.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn the_unbound_of_this_test_does_validate() -> Result<()> {
    let (site, key) = signed(&["unbound"])?;
    let unbound = Unbound {
        duties: Duties {
            listen: vec![RESOLVER.into()],
            forwards: vec![Forward::new(ZONE, SERVER.into())],
            answers: Vec::new(),
        },
        extra: vec![
            "module-config: \"validator iterator\"".to_owned(),
            // Some other key.
            format!("trust-anchor: \"{ZONE}. DNSKEY {}\"", turned(&key)),
        ],
    }
    .start(&site.namespace)?;
    let question = Question::new(&format!("host.{ZONE}"), RecordType::A)?;
    let reply = ask(&site.namespace, unbound.address(), &question, 1, Duration::from_secs(5))?;
    ensure!(!reply.answered(), "{:?}", reply.rcode());
    Ok(())
}

/// The same key record with the first letter of its key replaced.
fn turned(key: &str) -> String {
    let (front, data) = key.rsplit_once("13 ").unwrap_or((key, ""));
    let other = if data.starts_with('A') { 'B' } else { 'A' };
    format!("{front}13 {other}{}", data.get(1..).unwrap_or_default())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn delv_validates() -> Result<()> {
    let (site, key) = signed(&["delv"])?;
    let mut fields = key.splitn(4, ' ');
    let mut next = || fields.next().context("a key has four fields");
    let (flags, protocol, algorithm) = (next()?, next()?, next()?);
    let anchor = format!(
        "trust-anchors {{ {ZONE}. static-key {flags} {protocol} {algorithm} \"{}\"; }};\n",
        next()?
    );
    let anchor = site.namespace.file("anchor", &anchor)?;
    let name = format!("host.{ZONE}");
    let keys = site.herd(ZONE, RecordType::DNSKEY, 1)?;
    let herd = site.herd(&name, RecordType::A, 1)?;
    let server = SocketAddr::from(SERVER).ip();
    let said = site.say(
        "delv",
        &format!("@{server} -a {} +root={ZONE} {name} A", anchor.display()),
    )?;
    says(&said, &["; fully validated", "192.0.2.21"])?;
    for (herd, name) in [(&keys, ZONE), (&herd, name.as_str())] {
        let asked = first(site.strict(herd)?)?;
        ensure!(asked.name != name, "the query was not marked");
    }
    site.marked(2)?;
    site.guard.stop()
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn dig_gets_signatures_in_its_own_spelling() -> Result<()> {
    let (site, _) = signed(&["dig"])?;
    let name = format!("HOST.{ZONE}");
    let herd = site.herd(&name.to_ascii_lowercase(), RecordType::A, 1)?;
    let server = SocketAddr::from(SERVER).ip();
    let said = site.say("dig", &format!("@{server} +dnssec +tries=1 {name} A"))?;
    says(&said, &["status: NOERROR", "RRSIG", &format!(";{name}.")])?;
    let asked = only(site.strict(&herd)?)?;
    ensure!(asked.name != name, "the query was not marked");
    site.marked(1)?;
    site.guard.stop()
}
