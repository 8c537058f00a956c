//! A policy that never stays: keys set over the control socket ten times a second, and files that change.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_sim::random::Random;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::node::{Node, Tally, config};

/// Where commands are taken.
const SOCKET: &str = "/run/dnsguard/control.sock";
/// A policy is changed so often.
const SET: Duration = Duration::from_millis(100);
/// A file so often.
const REWRITE: Duration = Duration::from_secs(3);
/// Keys that are set, and their values from the least to below the most.
const KEYS: [(&str, u64, u64); 5] = [
    ("breaker.hold_ms", 1_000, 1_500),
    ("breaker.test_ms", 1_500, 2_000),
    ("answer.per_client", 8, 24),
    ("answer.per_hold", 128, 384),
    ("metrics.top", 10, 20),
];
/// Nobody waits for longer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sets one key after the other until it is over.
pub(super) fn set(node: &Node, mut random: Random) {
    // One thread inside for all of it: a connection belongs to the file system in which its socket was found.
    node.host.run(|| {
        node.pace.repeat("changes of the policy", || {
            let start = Instant::now();
            let (key, least, most) = random.pick(&KEYS);
            let value = least + random.below(most - least);
            let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
            {
                let _working = node.pace.work();
                let _alive = node.guard();
                post("/v1/policy/set", &body)?;
            }
            Tally::add(&node.tally.set, 1);
            node.pace.wait(SET.saturating_sub(start.elapsed()));
            Ok(())
        });
    });
}

/// Gives the agent one file after the other until it is over; every other one it is told of by SIGHUP.
pub(super) fn rewrite(node: &Node) {
    let mut number = 0;
    node.pace.repeat("changes of the file", || {
        number += 1;
        {
            let _working = node.pace.work();
            let guard = node.guard();
            guard.rewrite(&config(number, "detach"))?;
            if number % 2 == 0 {
                kill(Pid::from_raw(guard.process().pid().cast_signed()), Signal::SIGHUP)?;
            }
        }
        Tally::add(&node.tally.rewritten, 1);
        node.pace.wait(REWRITE);
        Ok(())
    });
}

fn post(path: &str, body: &str) -> Result<()> {
    let mut stream = UnixStream::connect(SOCKET).with_context(|| format!("connect to {SOCKET}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .with_context(|| format!("POST {path} {body}"))?;
    let status = said.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "POST {path} {body}: {said}");
    Ok(())
}
