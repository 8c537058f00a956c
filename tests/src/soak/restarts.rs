//! An agent that never gets old: killed, stopped, and started again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    footprint::{self, Objects},
    node::{Node, Tally, config},
};

/// The kernel frees programs and maps a grace period after their last user.
const FREED: Duration = Duration::from_secs(15);
/// How often is looked.
const POLL: Duration = Duration::from_millis(100);

/// How an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM; the guard stays in force.
    Stopped,
    /// By SIGTERM; nothing stays, and all counters begin at nought.
    Detached,
}

/// How the agents of a node end, one after the other.
const ENDS: [End; 6] = [
    End::Killed,
    End::Stopped,
    End::Detached,
    End::Killed,
    End::Killed,
    End::Stopped,
];

fn end(number: u64) -> End {
    ENDS[(number % ENDS.len() as u64) as usize]
}

/// The configuration of the agent with this number.
pub(super) fn config_of(number: u64) -> String {
    let at_stop = if end(number) == End::Detached { "detach" } else { "stay" };
    config(number, at_stop)
}

/// Ends the agent with this number as its turn is, and starts the next one; returns what did not add up before the guard
/// was taken out, a sentence each.
pub(super) fn restart(node: &Node, number: u64) -> Result<Vec<String>> {
    let next = config_of(number + 1);
    match end(number) {
        End::Killed => {
            node.replace_guard(&next, |guard| {
                guard.kill9();
                Ok(())
            })?;
            Tally::add(&node.tally.killed, 1);
        }
        End::Stopped => {
            node.replace_guard(&next, |guard| guard.stop())?;
            Tally::add(&node.tally.stopped, 1);
        }
        End::Detached => {
            let _resting = node.pace.rest();
            let settled = node.settle()?;
            let map = footprint::map(&node.host)?;
            node.replace_guard(&next, |guard| {
                guard.stop()?;
                wait_gone(map)
            })?;
            node.begin_to_count()?;
            Tally::add(&node.tally.detached, 1);
            return Ok(settled.wrong);
        }
    }
    Ok(Vec::new())
}

/// Waits until nothing of a guard is in the kernel that had this map.
pub(super) fn wait_gone(map: u32) -> Result<()> {
    let deadline = Instant::now() + FREED;
    loop {
        let left = Objects::around(map)?;
        if left == Objects::default() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "a guard is gone, and the kernel still has {left:?} of it"
        );
        sleep(POLL);
    }
}
