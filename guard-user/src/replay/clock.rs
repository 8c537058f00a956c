//! The clock of a capture: its time stamps, made into a clock that never goes back.

use guard_common::time::Ticks;

/// What the clock shows at the first packet, or a tick of the judge later: for the judge, 0 is never.
const START_NS: u64 = 1 << 40;
/// Nanoseconds of a tick of the judge. Ticks begin where they do in the time stamps.
const JUDGE_TICK_NS: u64 = 1 << Ticks::SHIFT;
/// How often the agent looks at samples and counters.
const TICK_NS: u64 = 250_000_000;
/// Every so many of them, it looks at everything.
const TICKS_PER_LOOK: u64 = 4;
/// Looks that are taken one after the other where nothing was captured: those of an hour, after which nothing is remembered
/// that a look would tell of.
const MOST_TICKS: u64 = 4 * 3_600;

/// The time stamps of a capture.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Nanoseconds since 1970 of the first stamp.
    first_ns: Option<u64>,
    /// The highest stamp so far.
    latest_ns: u64,
    /// Looks that were taken, and how many of them before the packet before.
    ticks: u64,
    idle_from: u64,
    /// Packets that are stamped earlier than one before them.
    pub(super) backwards: u64,
    /// Packets without a stamp.
    pub(super) unstamped: u64,
}

/// A moment of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Nanoseconds of the judge's monotonic clock.
    pub(super) now_ns: u64,
    /// Nanoseconds since 1970.
    pub(super) epoch_ns: u64,
    /// Nanoseconds since the first packet.
    pub(super) since_ns: u64,
}

impl Clock {
    /// The moment of a packet. One that is stamped earlier than the one before it, or not at all, has the moment of that
    /// one, and is counted.
    pub(super) fn packet(&mut self, stamp_ns: Option<u64>) -> Moment {
        self.idle_from = self.ticks;
        match stamp_ns {
            Some(ns) if ns < self.latest_ns => self.backwards += 1,
            Some(ns) => {
                self.first_ns.get_or_insert(ns);
                self.latest_ns = ns;
            }
            None => self.unstamped += 1,
        }
        self.at(self.latest_ns)
    }

    /// The next look that is due at a moment or before it; whether it is one of those in which the agent looks at everything.
    pub(super) fn tick(&mut self, by: Moment) -> Option<(Moment, bool)> {
        let due = by.since_ns / TICK_NS + 1;
        if self.ticks >= due {
            return None;
        }
        if self.ticks - self.idle_from >= MOST_TICKS {
            self.ticks = self.ticks.max((due - 1) / TICKS_PER_LOOK * TICKS_PER_LOOK);
        }
        let since_ns = self.ticks * TICK_NS;
        // The first of all is a whole one: counts begin there.
        let whole = self.ticks.is_multiple_of(TICKS_PER_LOOK);
        self.ticks += 1;
        Some((self.at(self.first_ns.unwrap_or(self.latest_ns) + since_ns), whole))
    }

    /// The moment of the last packet.
    pub(super) fn latest(&self) -> Moment {
        self.at(self.latest_ns)
    }

    /// The moment of the first packet, if there was one with a stamp.
    pub(super) fn first(&self) -> Option<Moment> {
        self.first_ns.map(|ns| self.at(ns))
    }

    fn at(&self, epoch_ns: u64) -> Moment {
        let first_ns = self.first_ns.unwrap_or(epoch_ns);
        let since_ns = epoch_ns.saturating_sub(first_ns);
        Moment {
            now_ns: (START_NS + first_ns % JUDGE_TICK_NS).saturating_add(since_ns),
            epoch_ns,
            since_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    /// Not at the beginning of a tick.
    const FIRST_NS: u64 = 1_795_000_000 * SECOND_NS + 123_456;

    fn ticks(clock: &mut Clock, by: Moment) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| clock.tick(by))
            .map(|(moment, whole)| (moment.since_ns, whole))
            .collect()
    }

    #[test]
    fn the_agent_looks_four_times_a_second_and_at_everything_once() {
        let mut clock = Clock::default();
        let first = clock.packet(Some(FIRST_NS));
        assert_eq!(ticks(&mut clock, first), [(0, true)]);
        let next = clock.packet(Some(FIRST_NS + SECOND_NS));
        let quarter = TICK_NS;
        let expected = [
            (quarter, false),
            (2 * quarter, false),
            (3 * quarter, false),
            (4 * quarter, true),
        ];
        assert_eq!(ticks(&mut clock, next), expected);
        assert_eq!(ticks(&mut clock, next), []);
    }

    #[test]
    fn after_an_hour_without_packets_it_looks_once_more() {
        let mut clock = Clock::default();
        let first = clock.packet(Some(FIRST_NS));
        ticks(&mut clock, first);
        let next = clock.packet(Some(FIRST_NS + 365 * 86_400 * SECOND_NS));
        let looks = ticks(&mut clock, next);
        assert!((14_400..14_410).contains(&looks.len()), "{}", looks.len());
        assert_eq!(looks[14_399].0, 3_600 * SECOND_NS);
        assert_eq!(looks.last().unwrap(), &(365 * 86_400 * SECOND_NS, true));
    }

    #[test]
    fn ticks_of_the_judge_are_those_of_the_time_stamps() {
        let mut clock = Clock::default();
        for step in 0..1_000 {
            let at_ns = FIRST_NS + step * 999_983;
            let ticks = clock.packet(Some(at_ns)).now_ns / JUDGE_TICK_NS;
            let expected = START_NS / JUDGE_TICK_NS + at_ns / JUDGE_TICK_NS - FIRST_NS / JUDGE_TICK_NS;
            assert_eq!(ticks, expected);
        }
    }

    #[test]
    fn a_clock_never_goes_back() {
        let mut clock = Clock::default();
        let moments = [
            Some(FIRST_NS),
            Some(FIRST_NS + 5),
            Some(FIRST_NS + 3),
            None,
            Some(FIRST_NS + 6),
        ];
        let since = moments.map(|stamp| clock.packet(stamp).since_ns);
        assert_eq!(since, [0, 5, 5, 5, 6]);
        assert_eq!((clock.backwards, clock.unstamped), (1, 1));
    }
}
