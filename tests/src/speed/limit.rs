//! A budget of a million packets a second, and two processors that offer more.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_common::{
    budget::{Rate, Row, Scope},
    counter::RowCount,
    policy::{Action, Mode},
};

use super::{
    packet::{Packet, Shape},
    rig::Rig,
};
use crate::{
    bench::{Bench, Gate, WIRE, Way, policy_of},
    flood::cpu,
};

/// What the budget allows in a second.
pub const BUDGET_PPS: u32 = 1_000_000;
/// What it allows at once: a tenth of a second, far more than a step of the coarse clock.
const BURST: u32 = BUDGET_PPS / 10;
/// How long the burst lasts at the most, and what is offered begins in the meantime.
const LEAD: Duration = Duration::from_millis(700);
/// For how long is counted.
const LENGTH: Duration = Duration::from_secs(2);
/// Runs in a row: some hundredths of a second, in which the bucket does not fill.
const RUNS: u32 = 20_000;
/// Where the packets come: see [`super::pair`].
const GATE: Gate = Gate::TcIn;

/// What a budget let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limited {
    /// Packets a second that came.
    pub offered_pps: f64,
    /// Packets a second that passed.
    pub passed_pps: f64,
}

impl Limited {
    /// Whether so much came that the budget had something to do.
    pub fn was_tested(&self) -> bool {
        self.offered_pps > self.passed_pps
    }

    /// Offers as much as two processors can. The thread has to be where [`WIRE`] is.
    pub fn measure() -> Result<Self> {
        let mut policy = policy_of(Mode::Enforce, Action::Answer);
        let rate = Rate::new(BUDGET_PPS.into(), 1, BURST).context("a rate that there is")?;
        let row = Row::new(1, Scope::Key, (true, true), rate, Action::Drop, Mode::Enforce);
        ensure!(policy.add_row(row), "no room for a row");
        let bench = Bench::new(|plain| *plain = policy)?;
        let over = AtomicBool::new(false);
        let (first, last) = thread::scope(|scope| {
            let threads = [0, 1].map(|cpu| {
                scope.spawn({
                    let (bench, over) = (&bench, &over);
                    move || offer(bench, cpu, over)
                })
            });
            let counted = (|| {
                sleep(LEAD);
                let first = Seen::now(&bench)?;
                sleep(LENGTH);
                Ok::<_, anyhow::Error>((first, Seen::now(&bench)?))
            })();
            over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            counted
        })?;
        let seconds = (last.at - first.at).as_secs_f64();
        let passed = last.count.within - first.count.within;
        let shed = last.count.over - first.count.over;
        Ok(Self {
            offered_pps: (passed + shed) as f64 / seconds,
            passed_pps: passed as f64 / seconds,
        })
    }
}

/// What the budget had counted at a moment.
struct Seen {
    at: Instant,
    count: RowCount,
}

impl Seen {
    fn now(bench: &Bench) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            count: bench.row(0)?,
        })
    }
}

/// Puts queries for one name through the program, as fast as it goes.
fn offer(bench: &Bench, cpu: usize, over: &AtomicBool) -> Result<()> {
    cpu::pin(0, cpu)?;
    let packet = Packet::Query(Shape::of(20));
    let frame = packet.frame()?;
    let rig = Rig::new(
        GATE,
        Way::on(WIRE),
        &frame,
        packet.feed(1)?,
        bench.program(GATE)?.descriptor()?,
    )?;
    while !over.load(Ordering::Relaxed) {
        rig.run(RUNS)?;
    }
    Ok(())
}
