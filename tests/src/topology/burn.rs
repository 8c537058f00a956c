//! A loop watched while it runs free, and ended.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;
use tokio::sync::Notify;

use super::{Loop, TRIES, TRY_TIMEOUT};
use crate::client::{self, Retry};

/// How often packets are counted.
const SAMPLE: Duration = Duration::from_millis(100);

/// What one query with its retries, and everything else that is quiet, stays far below.
const LOOPING_PPS: u64 = 1_000;

/// What a loop did from its one query until it was killed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Burn {
    /// Packets between the resolvers, queries and responses.
    pub packets: u64,
    /// The most packets per second in any 100 ms.
    pub peak_pps: u64,
    /// Seconds from the query to the first 100 ms above 1,000 packets per second, if there were any.
    pub caught_fire_s: Option<f64>,
    /// Seconds from the query to the end.
    pub lasted_s: f64,
}

impl Loop {
    /// Ignites the loop, lets it run, and kills every resolver of it.
    ///
    /// It ends `after` the loop caught fire, or `cap` after the query if it never did.
    pub fn burn(&self, after: Duration, cap: Duration) -> Result<Burn> {
        let over = Arc::new(Notify::new());
        thread::scope(|scope| {
            let client = {
                let over = Arc::clone(&over);
                scope.spawn(move || {
                    client::inside(self.namespace(), async {
                        let (server, question) = (self.server(), self.question());
                        tokio::select! {
                            reply = client::exchange(server, question, TRIES, TRY_TIMEOUT, Retry::Same) => {
                                reply.map(drop)
                            }
                            () = over.notified() => Ok(()),
                        }
                    })
                })
            };
            let burnt = self.watch(after, cap);
            self.kill();
            // A permit is kept for a client that does not wait yet.
            over.notify_one();
            match client.join() {
                Ok(asked) => asked??,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            burnt
        })
    }

    fn watch(&self, after: Duration, cap: Duration) -> Result<Burn> {
        let start = Instant::now();
        let before = self.packets()?;
        let mut burn = Burn::default();
        let (mut then, mut count) = (start, before);
        let mut end = start + cap;
        while Instant::now() < end {
            thread::sleep(SAMPLE);
            let (now, packets) = (Instant::now(), self.packets()?);
            #[expect(clippy::cast_precision_loss, reason = "no loop counts 2^52 packets")]
            let rate = (packets - count) as f64 / (now - then).as_secs_f64();
            let pps = rate as u64;
            burn.peak_pps = burn.peak_pps.max(pps);
            if pps >= LOOPING_PPS && burn.caught_fire_s.is_none() {
                burn.caught_fire_s = Some((now - start).as_secs_f64());
                end = end.min(now + after);
            }
            (then, count) = (now, packets);
        }
        burn.packets = count - before;
        burn.lasted_s = start.elapsed().as_secs_f64();
        Ok(burn)
    }
}
