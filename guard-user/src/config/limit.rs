//! A limit as an operator writes it: `200` packets a second, `"30/min"`, `"10/h"`.

use std::fmt;

use guard_common::budget::Rate;

/// Packets per second that a limit allows at most.
pub(crate) const MAX_PER_SECOND: u32 = 100_000_000;
/// What a limit may be, for messages.
pub(crate) const ALLOWED: &str = "packets per second, 1 to 100000000, or less often such as \"30/min\" or \"10/h\"";

/// The units and their seconds.
const UNITS: [(&str, u32); 3] = [("s", 1), ("min", 60), ("h", 3_600)];

/// So many packets in a second, a minute or an hour: 1/h to 100 M/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    packets: u64,
    seconds: u32,
}

impl Limit {
    /// So many packets a second; `None` for 0 and for more than 100 M.
    pub(crate) fn per_second(packets: u32) -> Option<Self> {
        Self::new(packets.into(), 1)
    }

    /// Reads `10/h`, `30/min`, `200/s`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (packets, unit) = text.split_once('/')?;
        let is_number = packets.bytes().all(|digit| digit.is_ascii_digit());
        let packets = packets.parse().ok().filter(|_| is_number)?;
        let (_, seconds) = UNITS.iter().find(|(word, _)| *word == unit)?;
        Self::new(packets, *seconds)
    }

    fn new(packets: u64, seconds: u32) -> Option<Self> {
        let most = u64::from(MAX_PER_SECOND) * u64::from(seconds);
        (1..=most).contains(&packets).then_some(Self { packets, seconds })
    }

    /// Packets per second.
    pub(crate) fn rate(&self) -> f64 {
        self.packets as f64 / f64::from(self.seconds)
    }

    /// What it allows in a second, rounded down, but at least 1.
    pub(crate) fn in_a_second(&self) -> u32 {
        // At most 100 M.
        (self.packets / u64::from(self.seconds)).max(1) as u32
    }

    /// The largest burst for which there is a rate, up to `most`. What is above takes more than a day to fill.
    fn deepest(&self, most: u32) -> u32 {
        let (mut fits, mut bound) = (0, most);
        while fits < bound {
            let middle = bound - (bound - fits) / 2;
            match Rate::new(self.packets, self.seconds, middle) {
                Some(_) => fits = middle,
                None => bound = middle - 1,
            }
        }
        fits
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.seconds);
        write!(f, "{}/{}", self.packets, unit.map_or("s", |(word, _)| word))
    }
}

/// A limit and what may pass at once; the kernel has a rate for any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// How fast the bucket fills.
    pub(crate) limit: Limit,
    /// Packets that it holds.
    pub(crate) burst: u32,
    rate: Rate,
}

impl Allowance {
    /// The error says which bursts are allowed: 1 to `most_burst`, and no bucket that takes more than a day to fill.
    pub(crate) fn new(limit: Limit, burst: u32, most_burst: u32) -> Result<Self, String> {
        let rate = Rate::new(limit.packets, limit.seconds, burst);
        match rate.filter(|_| burst <= most_burst) {
            Some(rate) => Ok(Self { limit, burst, rate }),
            None => Err(match limit.deepest(most_burst) {
                most if most < most_burst => {
                    format!("1 to {most} packets, because a full bucket takes a day at the most to fill")
                }
                most => format!("1 to {most} packets"),
            }),
        }
    }

    /// The form in which the kernel reads it.
    pub(crate) const fn rate(&self) -> Rate {
        self.rate
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} at once", self.limit, self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_they_were_written() {
        for text in ["1/h", "10/h", "30/min", "200/s", "100000000/s", "360000000000/h"] {
            assert_eq!(Limit::read(text).unwrap().to_string(), text);
        }
        assert_eq!(Limit::per_second(200), Limit::read("200/s"));
    }

    #[test]
    fn absurd_limits_are_none() {
        for text in [
            "0/s",
            "0/h",
            "100000001/s",
            "360000000001/h",
            "1/d",
            "1",
            "/s",
            "+1/s",
            "1.5/s",
            " 1/s",
            "",
            "99999999999999999999/s",
        ] {
            assert_eq!(Limit::read(text), None, "{text}");
        }
        assert_eq!((Limit::per_second(0), Limit::per_second(100_000_001)), (None, None));
    }

    #[test]
    fn a_second_of_it_is_at_least_one_packet() {
        let in_a_second = |text| Limit::read(text).unwrap().in_a_second();
        assert_eq!(
            [in_a_second("1/h"), in_a_second("90/min"), in_a_second("7/s")],
            [1, 1, 7]
        );
        assert_eq!(in_a_second("360000000000/h"), 100_000_000);
    }

    #[test]
    fn a_bucket_is_full_again_within_a_day() {
        let hourly = Limit::read("10/h").unwrap();
        assert!(Allowance::new(hourly, 240, 1_000).is_ok());
        let message = "1 to 240 packets, because a full bucket takes a day at the most to fill";
        assert_eq!(Allowance::new(hourly, 241, 1_000).unwrap_err(), message);
        let fast = Limit::per_second(1_000).unwrap();
        assert_eq!(Allowance::new(fast, 0, 1_000).unwrap_err(), "1 to 1000 packets");
        assert_eq!(Allowance::new(fast, 1_001, 1_000).unwrap_err(), "1 to 1000 packets");
    }

    #[test]
    fn whatever_is_allowed_has_a_rate() {
        const MOST: u32 = 1_000_000_000;
        for text in [
            "1/h",
            "7/h",
            "23/min",
            "1/s",
            "100000000/s",
            "99999999/s",
            "360000000000/h",
            "6000000000/min",
        ] {
            let limit = Limit::read(text).unwrap();
            let most = limit.deepest(MOST);
            for burst in [1, limit.in_a_second(), most] {
                assert!(Allowance::new(limit, burst, MOST).is_ok(), "{text} {burst}");
            }
            assert!(Allowance::new(limit, most + 1, MOST).is_err(), "{text}");
            let day = (limit.rate() * 86_400.0).min(f64::from(MOST));
            assert!((f64::from(most) / day - 1.0).abs() < 0.006, "{text} {most}");
        }
    }
}
