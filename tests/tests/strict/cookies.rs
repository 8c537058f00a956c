//! DNS cookies (RFC 7873): they cover addresses, not the question, and go through as they are.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use guard_tests::question::RecordType;

use super::site::{SERVER, Site, ZONE, only, says};

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_cookie_comes_back() -> Result<()> {
    let site = Site::start(&["dig"], &["answer-cookie yes;"])?;
    let name = format!("host.{ZONE}");
    let herd = site.herd(&name, RecordType::A, 1)?;
    let server = SocketAddr::from(SERVER).ip();
    let said = site.say("dig", &format!("@{server} +cookie +tries=1 {name} A"))?;
    says(&said, &["status: NOERROR", "192.0.2.21", "; COOKIE:", "(good)"])?;
    let asked = only(site.strict(&herd)?)?;
    ensure!(asked.name != name, "the query was not marked");
    site.marked(1)?;
    site.guard.stop()
}

/// The first query is refused with BADCOOKIE, in its own spelling, and the second one has the cookie.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_server_that_insists_on_its_cookie_gets_it() -> Result<()> {
    let site = Site::start(&["dig"], &["require-server-cookie yes;"])?;
    let name = format!("host.{ZONE}");
    let herd = site.herd(&name, RecordType::A, 1)?;
    let server = SocketAddr::from(SERVER).ip();
    let said = site.say("dig", &format!("@{server} +cookie +showbadcookie +tries=1 {name} A"))?;
    says(&said, &["status: BADCOOKIE", "status: NOERROR", "192.0.2.21", "(good)"])?;
    let asked = site.strict(&herd)?;
    ensure!(asked.len() == 2, "one without the cookie, one with it: {asked:?}");
    ensure!(asked[0].name != name, "the first query was not marked");
    site.marked(asked.iter().filter(|asked| asked.name != name).count() as u64)?;
    site.guard.stop()
}
