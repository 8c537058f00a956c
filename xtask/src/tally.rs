//! What a test run came to: libtest's own lines, added up.
//!
//! A binary that dies without a `test result:` line has no count to add, so whoever ran it counts it as one failure.

use anyhow::Error;

/// Counts and names over all test binaries of a run.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    /// Names since the last `failures:` line; they count when the result line of their binary comes.
    pending: Vec<String>,
}

impl Tally {
    /// Reads one line of a libtest binary's stdout.
    pub(crate) fn read(&mut self, line: &str) {
        if line == "failures:" {
            // libtest writes this twice: over the failed tests' output, and over their names.
            self.pending.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.pending.push(name.to_owned());
        } else if let Some(counts) = Counts::parse(line) {
            self.passed += counts.passed;
            self.failed += counts.failed;
            self.skipped += counts.ignored;
            if counts.failed > 0 {
                self.failures.append(&mut self.pending);
            }
            self.pending.clear();
        }
    }

    /// Counts a step that is not a libtest binary.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    pub(crate) fn fail(&mut self, name: &str, error: &Error) {
        self.failed += 1;
        self.failures.push(format!("{name}: {error:#}"));
    }

    /// Counts what another one has counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }

    /// The failed tests' names, one a line, and as the last line the counts.
    pub(crate) fn report(&self) -> String {
        let mut report = String::new();
        for name in &self.failures {
            report += &format!("failed: {name}\n");
        }
        report
            + &format!(
                "{} passed, {} failed, {} skipped",
                self.passed, self.failed, self.skipped
            )
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`, perhaps
    /// behind what a test wrote without ending its line.
    fn parse(line: &str) -> Option<Self> {
        let (_, result) = line.split_once("test result: ")?;
        let (_, counts) = result.split_once(". ")?;
        let of = |noun: &str| {
            let mut counts = counts.split("; ").map(|part| part.split_once(' '));
            let (number, _) = counts.find_map(|part| part.filter(|(_, word)| *word == noun))?;
            number.parse().ok()
        };
        Some(Self {
            passed: of("passed")?,
            failed: of("failed")?,
            ignored: of("ignored")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: &str = "\nrunning 3 tests\ntest a ... ok\ntest b ... ignored\ntest c ... ok\n\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n";
    const FAILING: &str = "\nrunning 2 tests\ntest loops::cut ... FAILED\ntest loops::told ... ok\n\nfailures:\n\n\
        ---- loops::cut stdout ----\n    an indented line of its output\nthread panicked\n\n\nfailures:\n    \
        loops::cut\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in \
        12.5s\n";

    fn tally(output: &[&str]) -> Tally {
        let mut tally = Tally::default();
        output
            .iter()
            .flat_map(|text| text.lines())
            .for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn the_counts_of_all_binaries_add_up() {
        assert_eq!(tally(&[PASSING, PASSING]).report(), "4 passed, 0 failed, 2 skipped");
        assert_eq!(Tally::default().report(), "0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_failed_test_is_named_and_its_output_is_not() {
        let tally = tally(&[PASSING, FAILING, PASSING]);
        assert_eq!(tally.report(), "failed: loops::cut\n5 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failed(), 1);
    }

    #[test]
    fn what_others_have_counted_is_added() {
        let mut sum = tally(&[PASSING]);
        sum.add(tally(&[FAILING]));
        sum.add(tally(&[PASSING]));
        assert_eq!(sum.report(), tally(&[PASSING, FAILING, PASSING]).report());
    }

    #[test]
    fn a_failed_step_is_one_failure_with_its_reason() {
        let mut tally = tally(&[PASSING]);
        tally.fail("the agent builds", &anyhow::anyhow!("why").context("what"));
        tally.pass();
        assert_eq!(
            tally.report(),
            "failed: the agent builds: what: why\n3 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn a_result_line_is_found_behind_a_test_s_own_output() {
        let line = "no newline heretest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            Counts::parse(line),
            Some(Counts {
                passed: 1,
                failed: 0,
                ignored: 0
            })
        );
        assert_eq!(Counts::parse("the test result: it is good. 5 of 6 passed"), None);
        assert_eq!(Counts::parse("test a ... ok"), None);
    }
}
