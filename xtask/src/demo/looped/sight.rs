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

    /// Packets that good clients explain, if an answered one costs `per_client`. Of one that was not answered only its
    /// query and the response are known.
    fn explained(&self, per_client: f64) -> f64 {
        let Report {
            answered, failed, lost, ..
        } = self.report;
        answered as f64 * per_client + (2 * failed + lost) as f64
    }
}

/// Packets for one client while nothing loops; what the resolvers say among themselves is shared out among all.
pub(crate) fn packets_per_client<'a>(quiet: impl Iterator<Item = &'a Sight>) -> f64 {
    let sums = quiet.fold((0, 0), |(packets, clients), sight| {
        (packets + sight.packets, clients + sight.report.sent)
    });
    ratio(sums.0 as f64, sums.1 as f64)
}

/// Packets that good clients do not explain: the loop's.
pub(crate) fn looped<'a>(sights: impl Iterator<Item = &'a Sight>, per_client: f64) -> f64 {
    let looped: f64 = sights
        .map(|sight| sight.packets as f64 - sight.explained(per_client))
        .sum();
    // Less than a packet is rounding.
    if looped < 1.0 { 0.0 } else { looped }
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
        let per_client = packets_per_client([&quiet].into_iter());
        assert_eq!((per_client, looped([&quiet].into_iter(), per_client)), (5.0, 0.0));

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
        assert_eq!(looped([&quiet, &looping].into_iter(), per_client), 7_000.0);
    }
}
