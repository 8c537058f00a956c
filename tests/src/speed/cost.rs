//! What came of many rounds, in a few figures.

/// Nanoseconds a packet, each on the average of many runs in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Of an empty program.
    pub empty: f64,
    /// Of an empty program with the feeder before it.
    pub feeder: f64,
    /// Of the program with the feeder before it.
    pub program: f64,
}

impl Round {
    /// What the program takes without the feeder.
    pub fn net(self) -> f64 {
        self.program - self.feeder + self.empty
    }

    /// How many empty programs that is.
    pub fn ratio(self) -> f64 {
        self.net() / self.empty
    }
}

/// The figures of some rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// All zero if there are no figures.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        match (figures.first(), figures.get(figures.len() / 2), figures.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { median, min, max },
            _ => Self::default(),
        }
    }
}

/// What a packet costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The program, without the feeder, in ns.
    pub program: Spread,
    /// An empty program, in ns.
    pub empty: Spread,
    /// What the feeder takes itself, which is taken off, in ns; the median.
    pub feeder: f64,
    /// How many empty programs a run is: of each round, where both had the same processor. The median.
    pub ratio: f64,
}

impl Cost {
    /// Of these rounds.
    pub fn of(rounds: &[Round]) -> Self {
        let spread = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        Self {
            program: spread(&|round| round.net()),
            empty: spread(&|round| round.empty),
            feeder: spread(&|round| round.feeder - round.empty).median,
            ratio: spread(&|round| round.ratio()).median,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feeder_is_taken_off_and_a_slow_round_is_slow_for_both() {
        let round = |factor: f64| Round {
            empty: 10.0 * factor,
            feeder: 15.0 * factor,
            program: 65.0 * factor,
        };
        let cost = Cost::of(&[round(1.0), round(3.0), round(1.5)]);
        assert_eq!(
            cost.program,
            Spread {
                median: 90.0,
                min: 60.0,
                max: 180.0
            }
        );
        assert_eq!((cost.empty.median, cost.feeder, cost.ratio), (15.0, 7.5, 6.0));
    }

    #[test]
    fn no_figures_are_no_spread() {
        assert_eq!(Spread::of([]), Spread::default());
    }
}
