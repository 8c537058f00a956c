//! Signed messages (TSIG, RFC 8945): a signature covers the spelling of the question, so they are never marked.

use std::{net::SocketAddr, thread};

use anyhow::{Context as _, Result, ensure};
use guard_tests::question::RecordType;

use super::site::{HERD, SECRET, SERVER, Site, ZONE, only, says};

/// Where an unsigned query would be marked, a signed one goes on as it is; the unsigned one after it is marked.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_signed_query_is_never_marked() -> Result<()> {
    let site = Site::start(&["dig"], &[])?;
    let name = format!("host.{ZONE}");
    let herd = site.herd(&name, RecordType::A, 2)?;
    let server = SocketAddr::from(SERVER).ip();
    let arguments = format!("@{server} -y hmac-sha256:lab:{SECRET} +tries=1 {name} A");
    let (said, unsigned) = thread::scope(|scope| {
        let dig = scope.spawn(|| site.say("dig", &arguments));
        let unsigned = site
            .relay
            .wait(&name, HERD + 1)
            .and_then(|()| site.ask(&name, RecordType::A));
        (dig.join().expect("dig does not panic"), unsigned)
    });
    let (said, unsigned) = (said?, unsigned?.local_addr()?);
    says(
        &said,
        &["status: NOERROR", "192.0.2.21", "TSIG PSEUDOSECTION", "NOERROR 0"],
    )?;
    let (unsigned, signed): (Vec<_>, Vec<_>) = site
        .strict(&herd)?
        .into_iter()
        .partition(|seen| seen.client == unsigned);
    ensure!(only(signed)?.name == name, "the signed query was marked");
    ensure!(only(unsigned)?.name != name, "the unsigned query was not marked");
    site.marked(1)?;
    site.guard.stop()
}

/// nsupdate looks for the zone without a signature, and is marked there; its update is signed, and no query.
#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_update_goes_through() -> Result<()> {
    let site = Site::start(&["nsupdate", "dig"], &[])?;
    let name = format!("fresh.{ZONE}");
    let server = SocketAddr::from(SERVER).ip();
    // Told a server, it signs its query too.
    site.namespace.cover("resolv.conf", &format!("nameserver {server}\n"))?;
    let script = format!("key hmac-sha256:lab {SECRET}\nupdate add {name} 0 A 192.0.2.77\nsend\n");
    let script = site.namespace.file("update", &script)?;
    let herd = site.herd(&name, RecordType::SOA, 1)?;
    site.say("nsupdate", &script.display().to_string())?;
    let asked = site.strict(&herd)?;
    let first = asked.first().context("nsupdate did not look for the zone")?;
    ensure!(first.name != name, "the query was not marked");
    let said = site.say("dig", &format!("@{server} +tries=1 {name} A"))?;
    says(&said, &["status: NOERROR", "192.0.2.77"])?;
    site.marked(1)?;
    site.guard.stop()
}
