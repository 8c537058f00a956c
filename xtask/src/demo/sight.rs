//! What a lab looks like for a while: what good clients get, what goes over the wire, what the resolvers burn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use guard_tests::{Prober, Report, topology::Loop};

/// Good clients per second. A busy name server has more; a p99 needs some hundred.
pub(crate) const CLIENTS_PER_SECOND: u32 = 400;

/// Long enough for every program to have answered on every path.
const WARM_UP: Duration = Duration::from_millis(400);

/// One measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// What the good clients got.
    pub(crate) report: Report,
    /// All packets between the resolvers, those for the good clients included.
    pub(crate) packets: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Processor time of the resolvers.
    pub(crate) cpu_seconds: f64,
}

impl Sight {
    /// Sends good clients for `length`, and looks until the last one is done: up to 1 s more.
    pub(crate) fn take(built: &Loop, length: Duration) -> Result<Self> {
        let (start, packets, cpu) = (Instant::now(), built.packets()?, built.cpu_seconds()?);
        let report = Prober::run(
            built.namespace(),
            built.server(),
            built.bystanders(),
            CLIENTS_PER_SECOND,
            length,
        )
        .context("cannot ask for other names")?;
        Ok(Self {
            report,
            packets: built.packets()?.saturating_sub(packets),
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: built.cpu_seconds()? - cpu,
        })
    }

    /// Asks until nothing is new to anybody.
    pub(crate) fn warm_up(built: &Loop) -> Result<()> {
        Self::take(built, WARM_UP).map(drop)
    }

    /// How busy the resolvers kept the processor, in cores.
    pub(crate) fn cores(&self) -> f64 {
        ratio(self.cpu_seconds, self.seconds)
    }

    /// Packets for one answered client.
    pub(crate) fn packets_per_client(&self) -> f64 {
        ratio(self.packets as f64, self.report.sent as f64)
    }

    /// Packets that good clients do not explain, if an answered one costs `per_client`: the loop's. Of a client that
    /// was not answered only its query and the response are known.
    pub(crate) fn looped(&self, per_client: f64) -> f64 {
        let Report {
            answered, failed, lost, ..
        } = self.report;
        let explained = answered as f64 * per_client + (2 * failed + lost) as f64;
        // Less than a packet is rounding.
        Some(self.packets as f64 - explained)
            .filter(|looped| *looped >= 1.0)
            .unwrap_or(0.0)
    }
}

/// 0 for nothing in no time.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_clients_are_no_loop() {
        let quiet = Sight {
            report: Report {
                sent: 600,
                answered: 600,
                ..Report::default()
            },
            packets: 3_000,
            ..Sight::default()
        };
        let per_client = quiet.packets_per_client();
        assert_eq!((per_client, quiet.looped(per_client)), (5.0, 0.0));

        let looping = Sight {
            report: Report {
                sent: 600,
                answered: 500,
                failed: 60,
                lost: 40,
                ..Report::default()
            },
            packets: 500 * 5 + 60 * 2 + 40 + 7_000,
            ..Sight::default()
        };
        assert_eq!(looping.looped(per_client), 7_000.0);
        assert_eq!(Sight::default().looped(per_client), 0.0);
    }
}
