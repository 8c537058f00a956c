//! A flood of one name, and the guard's limit for any name: what the limit allows gets through, and nobody else is
//! hurt. And a flood of random names, which is what it is called.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{
    Namespace,
    flood::{Asked, FLOODED, Hook, LIMIT, Pace, Place, Protection, Site, Stream, ask_all},
    frame::Query,
    programs, veth,
};
use hickory_proto::op::Message;

/// One test at a time: each flood takes a whole core, and the same.
static MACHINE: Mutex<()> = Mutex::new(());

/// Far above the limit, and so slow that the queue of a veth, 256 packets, outlasts a pause of its CPU.
const FLOOD_PPS: u32 = 5_000;

const LENGTH: Duration = Duration::from_secs(3);

/// By how much the flood's beginning and end may be misread on a busy machine.
const CLOCK: Duration = Duration::from_millis(150);

/// What a limit may be off by.
const EXACTNESS: f64 = 0.02;

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_flood_of_one_name_is_limited_and_other_names_are_answered_everywhere() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(Site::PROGRAMS)?;
    programs::provide(&["nft"])?;
    let site = Site::start(Protection::Guard(Hook::Auto), Asked::OneName)?;
    let passed = site.count_flooded()?;
    let flood = site.flood(Pace::PerSecond(FLOOD_PPS))?;
    let service = ask_all(&site, 50, LENGTH)?;
    let sent = flood.stop()?;
    let passed = passed.read()?;

    // The bucket is full at first, and fills at the pace of the limit.
    let allowed = f64::from(LIMIT) * (1.0 + sent.elapsed.as_secs_f64());
    println!("{sent:?}: {passed} passed, {allowed:.0} allowed");
    ensure!(sent.packets as f64 > 2.0 * allowed, "the flood was none: {sent:?}");
    ensure!(
        (passed as f64 - allowed).abs() <= allowed * EXACTNESS + f64::from(LIMIT) * CLOCK.as_secs_f64(),
        "{passed} of {} passed and not {allowed:.0}",
        sent.packets
    );
    for (place, report) in Place::ALL.into_iter().zip(&service.places) {
        ensure!(report.answered == report.sent, "{place:?}: {report:?}");
    }
    Ok(())
}

/// As many as are looked at.
const RANDOM_QUERIES: usize = 500;

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_flood_of_random_names_asks_for_each_in_the_flooded_zone() -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&["ip", "ethtool"])?;
    let (server, client) = (Namespace::new()?, Namespace::new()?);
    veth::veth(&server, &client, "veth0", &[("10.53.0.1/24", "10.53.0.2/24")])?;
    server.tool("ethtool", "-K veth0 gro on")?;
    let socket = server.udp("10.53.0.1:53".parse()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;

    let mut query = Query::new(&Asked::RandomNames.name(), "10.53.0.2:40000", "10.53.0.1:53")?;
    query.envelope.stations = [veth::station(&client, "veth0")?, veth::station(&server, "veth0")?];
    let flood = Stream::start(
        &client,
        "veth0",
        Asked::RandomNames.flooding(&query)?,
        Pace::PerSecond(FLOOD_PPS),
    )?;
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..RANDOM_QUERIES {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        let message = Message::from_vec(&buffer[..length])?;
        let name = message.queries[0].name().to_string();
        ensure!(name.ends_with(&format!(".{FLOODED}")), "a query for {name}");
        names.insert(name);
        ids.insert(message.metadata.id);
    }
    flood.stop()?;
    // Of a million names, and of 65,536 IDs, few come twice.
    ensure!(names.len() > RANDOM_QUERIES * 9 / 10, "{} names", names.len());
    ensure!(ids.len() > RANDOM_QUERIES * 9 / 10, "{} IDs", ids.len());
    Ok(())
}
