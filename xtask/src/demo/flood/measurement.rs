//! One protection under one flood.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use guard_tests::flood::{Asked, Busy, Pace, Place, Protection, Site, ask_all};

/// The rate of the flood that a server with a good protection takes with ease, in packets/s.
pub(crate) const STEADY_PPS: u32 = 300_000;

/// Less than this part of it says that the flood did not have its core for itself.
const MIN_OFFERED: f64 = 0.95;

/// Less of its core than this says so as well, whatever the pace: good clients need a little of it.
const MIN_UNDISTURBED: f64 = 0.8;

/// Good clients in each place and second.
pub(crate) const CLIENTS_PER_SECOND: u32 = 300;

/// How often a flood that does not get its core is tried.
const TRIES: u32 = 3;

/// How long the flood goes on before anybody asks: dynamic blocks look at the traffic once a second.
pub(crate) const LEAD: Duration = Duration::from_millis(1_500);

/// What one protection did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measurement {
    /// Packets/s that the flood sent.
    pub(crate) offered_pps: f64,
    /// Packets/s that the server's device took in.
    pub(crate) taken_pps: f64,
    /// The share of the server's core that was busy.
    pub(crate) busy: f64,
    /// The share of it that went into receiving: what the kernel does with a packet before a program reads it.
    pub(crate) receiving: f64,
    /// The share of its core that the flood had.
    pub(crate) undisturbed: f64,
    /// The share of the good clients that were answered, in the order of [`Place::ALL`].
    pub(crate) answered: [f64; Place::ALL.len()],
    /// Half of all answers came within this many microseconds; 0 without answers.
    pub(crate) p50_us: f64,
    /// 99 of 100 answers did; 0 without answers.
    pub(crate) p99_us: f64,
}

impl Measurement {
    /// Sets everything up, floods it, and has good clients ask for `length`.
    pub(crate) fn take(protection: Protection, asked: Asked, pace: Pace, length: Duration) -> Result<Self> {
        let site = Site::start(protection, asked)?;
        let flood = site.flood(pace)?;
        sleep(LEAD);
        let (sent, taken, busy) = (flood.sent()?, site.taken()?, Busy::now()?);
        let (receiving, flooding) = (site.receive_seconds()?, flood.processor_seconds()?);
        let service = ask_all(&site, CLIENTS_PER_SECOND, length)?;
        let receiving = site.receive_seconds()? - receiving;
        let flooding = flood.processor_seconds()? - flooding;
        let (busy, taken, all) = (Busy::now()?.since(busy), site.taken()? - taken, flood.stop()?);
        let seconds = (all.elapsed - sent.elapsed).as_secs_f64();
        Ok(Self {
            offered_pps: (all.packets - sent.packets) as f64 / seconds,
            taken_pps: taken as f64 / seconds,
            busy,
            receiving: receiving / seconds,
            undisturbed: flooding / seconds,
            answered: service.places.each_ref().map(|report| report.answered_ratio()),
            p50_us: service.all.p50_us as f64,
            p99_us: service.all.p99_us as f64,
        })
    }

    /// Whether the flood had its core for itself.
    pub(crate) fn is_undisturbed(&self, pace: Pace) -> bool {
        self.is_as_fast_as(pace) && self.undisturbed >= MIN_UNDISTURBED
    }

    /// A measurement that had its cores for itself, if there is one in three.
    pub(crate) fn quiet(protection: Protection, asked: Asked, pace: Pace, length: Duration) -> Result<Self> {
        let mut measurement = Self::take(protection, asked, pace, length)?;
        for _ in 1..TRIES {
            if measurement.is_as_fast_as(pace) {
                break;
            }
            measurement = Self::take(protection, asked, pace, length)?;
        }
        Ok(measurement)
    }

    /// Whether the flood had its core for itself, as far as its pace tells.
    pub(crate) fn is_as_fast_as(&self, pace: Pace) -> bool {
        match pace {
            Pace::PerSecond(rate) => self.offered_pps >= f64::from(rate) * MIN_OFFERED,
            Pace::Full => true,
        }
    }

    /// Whether a flood of [`STEADY_PPS`] was one.
    pub(crate) fn is_steady(&self) -> bool {
        self.is_as_fast_as(Pace::PerSecond(STEADY_PPS))
    }

    /// The median of each figure.
    pub(crate) fn median(of: &[Self]) -> Self {
        let median = |figure: &dyn Fn(&Self) -> f64| {
            let mut figures: Vec<f64> = of.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        Self {
            offered_pps: median(&|one| one.offered_pps),
            taken_pps: median(&|one| one.taken_pps),
            busy: median(&|one| one.busy),
            receiving: median(&|one| one.receiving),
            undisturbed: median(&|one| one.undisturbed),
            answered: [0, 1, 2].map(|place| median(&|one| one.answered[place])),
            p50_us: median(&|one| one.p50_us),
            p99_us: median(&|one| one.p99_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_taken_of_each_figure() {
        let one = |taken_pps, first, p99_us| Measurement {
            taken_pps,
            answered: [first, 1.0, 0.0],
            p99_us,
            ..Measurement::default()
        };
        let median = Measurement::median(&[one(3.0, 0.1, 9.0), one(1.0, 0.5, 7.0), one(2.0, 0.9, 8.0)]);
        assert_eq!(median, one(2.0, 0.5, 8.0));
        assert_eq!(Measurement::median(&[]), Measurement::default());
    }
}
