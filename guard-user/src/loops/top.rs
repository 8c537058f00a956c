//! Which looped names have a series of their own in the metrics.
//!
//! There are only so many series, and no scraper ever sees one of them go backwards:
//!
//! - Every held query is added to one series: to that of its name, or to the one of all others.
//! - A name that loses its series leaves its total to the others, so that the sum over all stays what it was.
//! - It stays without for [`AWAY_NS`], longer than Prometheus remembers a series that is gone (5 min); if it comes back
//!   after that, it begins again at zero.
//!
//! A name takes the place of another one when it holds more than twice as much, or when the other one has been quiet.

use std::collections::{HashMap, VecDeque};

use crate::snapshot::Held;

/// Nanoseconds for which a name that lost its series stays without one, and after which a quiet name can lose it.
pub(super) const AWAY_NS: u64 = 600 * 1_000_000_000;
/// Longer names share the series of all others: they consist of escapes.
pub(super) const MAX_LABEL_LEN: usize = 255;

/// Name and type.
type Label = (String, String);

/// The series, and what they count.
#[derive(Debug)]
pub(super) struct Top {
    size: usize,
    named: HashMap<Label, Series>,
    other: u64,
    /// Names that lost their series, and when; the oldest first.
    away: VecDeque<(Label, u64)>,
}

#[derive(Debug)]
struct Series {
    /// Queries since it is there.
    held: u64,
    /// What speaks for keeping it: queries of the name since its breaker opened, from before it was there as well.
    rank: u64,
    /// The last query.
    touched_ns: u64,
}

impl Top {
    /// With at most so many series.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            named: HashMap::new(),
            other: 0,
            away: VecDeque::new(),
        }
    }

    /// How many series there are at most.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// With another number of series; those that are too many leave what they have to the others.
    pub(super) fn resize(&mut self, size: usize) {
        self.size = size;
        while self.named.len() > size {
            let least = self.named.iter().min_by_key(|(label, series)| (series.rank, *label));
            let Some(label) = least.map(|(label, _)| label.clone()) else {
                return;
            };
            if let Some(series) = self.named.remove(&label) {
                self.other += series.held;
                self.away.push_back((label, series.touched_ns));
            }
        }
    }

    /// Adds `held` queries of a name, whose breaker has held `total` since it opened, these included.
    pub(super) fn add(&mut self, name: &str, qtype: &str, held: u64, total: u64, now_ns: u64) {
        let label = (name.to_owned(), qtype.to_owned());
        if let Some(series) = self.named.get_mut(&label) {
            series.held += held;
            series.rank += held;
            series.touched_ns = now_ns;
        } else if held > 0 && self.admit(&label, total, now_ns) {
            self.named.insert(
                label,
                Series {
                    held,
                    rank: total,
                    touched_ns: now_ns,
                },
            );
        } else {
            self.other += held;
        }
    }

    /// The series as they are.
    pub(super) fn held(&self) -> Held {
        let named = self
            .named
            .iter()
            .map(|((name, qtype), series)| (name.clone(), qtype.clone(), series.held));
        let mut held = Held {
            named: named.collect(),
            other: self.other,
        };
        held.named
            .sort_by(|one, other| other.2.cmp(&one.2).then_with(|| one.cmp(other)));
        held
    }

    /// Makes room for a name, if it may have a series.
    fn admit(&mut self, label: &Label, total: u64, now_ns: u64) -> bool {
        while self
            .away
            .front()
            .is_some_and(|(_, since_ns)| now_ns.saturating_sub(*since_ns) >= AWAY_NS)
        {
            self.away.pop_front();
        }
        if label.0.len() > MAX_LABEL_LEN || self.away.iter().any(|(away, _)| away == label) {
            return false;
        }
        if self.named.len() < self.size {
            return true;
        }
        // So many may be away at once; then the names stay as they are for a while.
        if self.away.len() >= 4 * self.size {
            return false;
        }
        let rank = |series: &Series| {
            if now_ns.saturating_sub(series.touched_ns) >= AWAY_NS {
                0
            } else {
                series.rank
            }
        };
        let Some((least, series)) = self.named.iter().min_by_key(|(label, series)| (rank(series), *label)) else {
            return false;
        };
        if total <= rank(series).saturating_mul(2) {
            return false;
        }
        let least = least.clone();
        if let Some(series) = self.named.remove(&least) {
            self.other += series.held;
            self.away.push_back((least, now_ns));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn names(top: &Top) -> Vec<String> {
        top.held().named.into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn names_beyond_the_last_series_share_one() {
        let mut top = Top::new(2);
        top.add("a.", "A", 10, 10, 0);
        top.add("b.", "A", 20, 20, 0);
        top.add("c.", "A", 5, 5, 0);
        top.add("a.", "A", 1, 11, 0);
        let named = vec![
            ("b.".to_owned(), "A".to_owned(), 20),
            ("a.".to_owned(), "A".to_owned(), 11),
        ];
        assert_eq!(top.held(), Held { named, other: 5 });
    }

    #[test]
    fn a_much_bigger_loop_takes_the_place_of_the_smallest() {
        let mut top = Top::new(2);
        top.add("a.", "A", 10, 10, 0);
        top.add("b.", "A", 20, 20, 0);
        top.add("c.", "A", 15, 15, 0);
        assert_eq!(names(&top), ["b.", "a."]);
        top.add("c.", "A", 6, 21, 0);
        assert_eq!(names(&top), ["b.", "c."]);
        // Ten of a., fifteen of c. from before it had a series.
        assert_eq!(top.held().other, 25);
    }

    #[test]
    fn who_lost_his_series_stays_away_until_nobody_remembers_it() {
        let mut top = Top::new(1);
        top.add("a.", "A", 10, 10, 0);
        top.add("b.", "A", 30, 30, SECOND);
        top.add("a.", "A", 1_000, 1_010, 2 * SECOND);
        assert_eq!(names(&top), ["b."]);
        top.add("a.", "A", 1, 1_011, AWAY_NS + SECOND);
        assert_eq!(names(&top), ["a."]);
        assert_eq!(top.held().named[0].2, 1);
    }

    #[test]
    fn a_quiet_name_makes_way() {
        let mut top = Top::new(1);
        top.add("a.", "A", 1_000_000, 1_000_000, 0);
        top.add("b.", "A", 1, 1, AWAY_NS - 1);
        assert_eq!(names(&top), ["a."]);
        top.add("b.", "A", 1, 2, AWAY_NS);
        assert_eq!(names(&top), ["b."]);
    }

    #[test]
    fn fewer_series_lose_nothing() {
        let mut top = Top::new(3);
        for (name, held) in [("a.", 10), ("b.", 20), ("c.", 5)] {
            top.add(name, "A", held, held, 0);
        }
        top.resize(1);
        let named = vec![("b.".to_owned(), "A".to_owned(), 20)];
        assert_eq!(top.held(), Held { named, other: 15 });
    }

    #[test]
    fn without_series_everything_is_shared() {
        let mut top = Top::new(0);
        top.add("a.", "A", 7, 7, 0);
        top.add("a.", "A", 7, 14, 2 * AWAY_NS);
        assert_eq!(
            top.held(),
            Held {
                named: Vec::new(),
                other: 14
            }
        );
    }

    #[test]
    fn a_name_too_long_for_a_label_is_shared() {
        let mut top = Top::new(4);
        top.add(&"\\000".repeat(64), "A", 7, 7, 0);
        assert_eq!(top.held().other, 7);
    }

    #[test]
    fn whatever_happens_no_series_goes_backwards_and_nothing_is_lost() {
        const SIZE: usize = 3;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % limit
        };
        let mut top = Top::new(SIZE);
        let (mut now_ns, mut sum) = (0, 0);
        let mut totals = HashMap::<String, u64>::new();
        // What a scraper saw last of each series, and when.
        let mut seen = HashMap::<String, (u64, u64)>::new();
        let mut seen_other = 0;
        let mut replaced = 0;
        for _ in 0..200_000 {
            let pause = if below(50) == 0 { 400 } else { 4 };
            now_ns += below(pause) * SECOND;
            let name = format!("{}.", below(12));
            let magnitude = below(16);
            let held = below(1 << magnitude);
            let total = totals.entry(name.clone()).or_default();
            *total = if below(40) == 0 { held } else { *total + held };
            top.add(&name, "A", held, *total, now_ns);
            sum += held;

            let state = top.held();
            assert!(state.named.len() <= SIZE && top.away.len() <= 4 * SIZE);
            assert_eq!(
                state.named.iter().map(|(.., held)| held).sum::<u64>() + state.other,
                sum
            );
            assert!(state.other >= seen_other);
            seen_other = state.other;
            for (name, _, held) in state.named {
                if let Some((before, at_ns)) = seen.insert(name, (held, now_ns))
                    && now_ns - at_ns < AWAY_NS
                {
                    assert!(held >= before, "{held} after {before}");
                } else {
                    replaced += 1;
                }
            }
        }
        assert!(replaced > 100, "only {replaced} changes: the test shows nothing");
    }
}
