//! What goes on while something breaks, and what it came to.

use std::{fmt, net::SocketAddr};

use anyhow::{Result, ensure};

use super::{LIMIT, Patrons, RESOLVER, Sample, Seen, Siege, Watch};
use crate::{
    Report,
    flood::{Sent, Stream},
    knob,
};

/// Questions a second on the wire, unless `DNSGUARD_QPS` says otherwise.
const ON_WIRE: u64 = 200;
/// Questions a second on `lo`, unless `DNSGUARD_QPS_ON_LO` says otherwise.
const ON_LO: u64 = 100;

/// The load, going on.
#[derive(Debug)]
pub struct Load<'s> {
    siege: &'s Siege,
    arrived: u64,
    // In this order: who asks ends before what he is asked under.
    watch: Watch,
    on_lo: Patrons,
    on_wire: Patrons,
    flood: Stream,
}

impl<'s> Load<'s> {
    pub(super) fn start(siege: &'s Siege, arrived: u64, flood: Stream) -> Result<Self> {
        let looped = siege.looped();
        let (on_wire, on_lo) = (knob("DNSGUARD_QPS", ON_WIRE)?, knob("DNSGUARD_QPS_ON_LO", ON_LO)?);
        let forwarded = looped.bystanders().first().map_or("*.example.", String::as_str);
        Ok(Self {
            siege,
            arrived,
            on_wire: Patrons::start(siege.outside(), SocketAddr::from(RESOLVER), "*.example.", on_wire)?,
            on_lo: Patrons::start(siege.node(), looped.server(), forwarded, on_lo)?,
            watch: Watch::start(siege.node(), looped.server(), looped.question())?,
            flood,
        })
    }

    /// Ends it. The patrons stop first: every query of theirs was asked under the flood.
    pub fn end(self) -> Result<Toll> {
        let samples = self.watch.stop()?;
        let patrons = [self.on_wire.stop()?, self.on_lo.stop()?];
        let flood = self.flood.stop()?;
        Ok(Toll {
            arrived: self.siege.arrived()?.saturating_sub(self.arrived),
            flood,
            patrons,
            samples,
        })
    }
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Toll {
    /// What the flood sent.
    pub flood: Sent,
    /// What of it got through.
    pub arrived: u64,
    /// What those got who ask over the wire, and those who ask on the node.
    pub patrons: [Report; 2],
    /// What the name of the loop got.
    pub samples: Vec<Sample>,
}

impl Toll {
    /// Every query of the patrons was answered.
    pub fn nobody_lost(&self) -> Result<()> {
        for (place, report) in ["the wire", "lo"].into_iter().zip(&self.patrons) {
            ensure!(report.sent > 0, "nobody asked on {place}");
            ensure!(report.answered == report.sent, "on {place}: {report:?}");
        }
        Ok(())
    }

    /// The name of the loop was held, each time.
    pub fn always_held(&self) -> Result<()> {
        ensure!(!self.samples.is_empty(), "nobody looked");
        let other = self.samples.iter().find(|sample| sample.seen != Seen::Held);
        ensure!(
            other.is_none(),
            "the name was not held: {other:?} of {} looks",
            self.samples.len()
        );
        Ok(())
    }

    /// The flood got as much through as the budget allows, and no more.
    pub fn always_shed(&self) -> Result<()> {
        let allowed = f64::from(LIMIT) * (1.0 + self.flood.elapsed.as_secs_f64());
        // The bucket is exact; the flood's end is read some milliseconds early or late.
        let allowed = allowed * 1.02 + f64::from(LIMIT) / 4.0;
        // On a machine that is busy with others the flood may be below what is allowed, and is then let through.
        ensure!(self.flood.packets > 0, "that was no flood: {self}");
        ensure!(
            self.arrived as f64 <= allowed,
            "more than {allowed:.0} got through: {self}"
        );
        Ok(())
    }

    /// All three.
    pub fn unharmed(&self) -> Result<()> {
        self.nobody_lost()?;
        self.always_held()?;
        self.always_shed()
    }
}

impl fmt::Display for Toll {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.flood.packets as f64 / self.flood.elapsed.as_secs_f64();
        let sent: u64 = self.patrons.iter().map(|report| report.sent).sum();
        let answered: u64 = self.patrons.iter().map(|report| report.answered).sum();
        let held = self.samples.iter().filter(|sample| sample.seen == Seen::Held).count();
        write!(
            out,
            "{per_second:.0} packets/s for {:.1} s, {} of {} got through; {} of {sent} queries lost; held {held} of {} times",
            self.flood.elapsed.as_secs_f64(),
            self.arrived,
            self.flood.packets,
            sent - answered,
            self.samples.len(),
        )
    }
}
