//! Runs test binaries side by side.
//!
//! A lab waits most of the time: for a resolver that starts, for a clock of seconds. So two of them run at once, and what
//! only computes runs beside them with the lowest priority. What keeps the machine busy itself, or looks at all of it,
//! runs last and alone.
//!
//! ```text
//! labs       loops ... control ... probe ...   |
//! labs       packages ... agent ...            |  faults, soak, ...
//! computing  unit tests ... kernel ...         |
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};

use super::binary::{Binary, Priority};
use crate::{
    step::{self, Said},
    tally::Tally,
};

/// Labs that run at once.
const LABS: usize = 2;
/// The folder whose tests are labs.
const LAB: &str = "tests/";
/// Those of its tests that only compute.
const COMPUTING: [&str; 3] = ["tests/case", "tests/kernel", "tests/lib"];
/// Those that nothing may run beside: they load the machine, or compare times on it to the millisecond.
const ALONE: [&str; 4] = ["tests/faults", "tests/flood", "tests/replay", "tests/soak"];
/// Those that take longest, which start first.
const LONG: [&str; 4] = ["tests/loops", "tests/packages", "tests/probe", "tests/control"];
/// How often it is said which tests are running.
const REMIND: Duration = Duration::from_secs(60);

/// Makes the command that runs a binary.
type Start<'a> = &'a (dyn Fn(&Binary, Priority) -> Command + Sync);

/// Runs binaries; what they say is on stdout, each line behind the name of its binary, and counts in the tally.
pub(super) fn run(binaries: Vec<Binary>, start: Start<'_>, tally: &mut Tally) {
    let lanes = Lanes::of(binaries);
    let board = Board::default();
    let total = Mutex::new(tally);
    let run = |lane: &Lane, priority| {
        loop {
            // Others take theirs while this one runs.
            let Some(binary) = locked(lane).pop_front() else { break };
            let came_to = run_one(&binary, &mut start(&binary, priority), &board);
            locked(&total).add(came_to);
        }
    };
    thread::scope(|scope| {
        let (over, is_over) = mpsc::channel::<()>();
        scope.spawn(|| remind(&board, is_over));
        thread::scope(|side_by_side| {
            side_by_side.spawn(|| run(&lanes.computing, Priority::Lowest));
            for _ in 0..LABS {
                side_by_side.spawn(|| run(&lanes.labs, Priority::Usual));
            }
        });
        run(&lanes.alone, Priority::Usual);
        drop(over);
    });
}

/// Binaries that one takes from, or several.
type Lane = Mutex<VecDeque<Binary>>;

/// Who runs where.
#[derive(Debug, Default)]
struct Lanes {
    labs: Lane,
    computing: Lane,
    alone: Lane,
}

impl Lanes {
    fn of(mut binaries: Vec<Binary>) -> Self {
        let rank = |binary: &Binary| LONG.iter().position(|name| binary.name == *name);
        binaries.sort_by_key(|binary| rank(binary).unwrap_or(LONG.len()));
        let lanes = Self::default();
        for binary in binaries {
            locked(lanes.of_name(&binary.name)).push_back(binary);
        }
        lanes
    }

    fn of_name(&self, name: &str) -> &Lane {
        if ALONE.contains(&name) {
            &self.alone
        } else if name.starts_with(LAB) && !COMPUTING.contains(&name) {
            &self.labs
        } else {
            &self.computing
        }
    }
}

/// Runs one binary to its end. One that could not say a result has failed.
fn run_one(binary: &Binary, command: &mut Command, board: &Board) -> Tally {
    let name = &binary.name;
    let start = Instant::now();
    let mut tally = Tally::default();
    let outcome = step::lines(command, |said| match said {
        Said::Line(line) => {
            tally.read(line);
            if !says_nothing(line) {
                println!("{name}: {line}");
            }
        }
        Said::Begun(text) => board.puts(name, text),
    });
    board.strikes(name);
    match outcome.with_context(|| format!("run {name}")) {
        Ok(status) if !status.success() && tally.failed() == 0 => {
            tally.fail(name, &anyhow!("it ended with {status} and named no test; see above"));
        }
        Ok(_) => {}
        Err(error) => tally.fail(name, &error),
    }
    if !tally.is_empty() {
        step::note(&format!("{name}: {}", step::seconds(start.elapsed())));
    }
    tally
}

/// Whether a line is one of those that a binary says that has nothing to run.
fn says_nothing(line: &str) -> bool {
    line.is_empty() || line == "running 0 tests" || line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored;")
}

/// The test that each binary is at, and since when.
#[derive(Default)]
struct Board(Mutex<BTreeMap<String, (String, Instant)>>);

impl Board {
    fn puts(&self, binary: &str, test: &str) {
        let test = test.trim_start_matches("test ").trim_end_matches(" ... ");
        locked(&self.0).insert(binary.to_owned(), (test.to_owned(), Instant::now()));
    }

    fn strikes(&self, binary: &str) {
        locked(&self.0).remove(binary);
    }

    /// All of it in a line; None if there is nothing.
    fn text(&self) -> Option<String> {
        let board = locked(&self.0);
        let entries = board
            .iter()
            .map(|(binary, (test, since))| format!("{binary} {test} ({} s)", since.elapsed().as_secs()));
        let entries: Vec<String> = entries.collect();
        (!entries.is_empty()).then(|| entries.join(", "))
    }
}

/// Says now and then which tests are running: one that hangs has its name on the screen.
fn remind(board: &Board, is_over: mpsc::Receiver<()>) {
    while is_over.recv_timeout(REMIND) == Err(RecvTimeoutError::Timeout) {
        if let Some(text) = board.text() {
            step::note(&format!("running: {text}"));
        }
    }
}

/// What a thread that panicked has left is whole: all of it changes in one step.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_computes_and_what_wants_the_machine_has_a_lane_of_its_own() {
        let names = [
            "tests/agent",
            "sim/loops",
            "tests/soak",
            "tests/kernel",
            "tests/loops",
            "guard-user/lib",
        ];
        let lanes = Lanes::of(names.map(Binary::named).into());
        let names = |lane: &Lane| {
            locked(lane)
                .iter()
                .map(|binary| binary.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&lanes.labs), ["tests/loops", "tests/agent"]);
        assert_eq!(names(&lanes.computing), ["sim/loops", "tests/kernel", "guard-user/lib"]);
        assert_eq!(names(&lanes.alone), ["tests/soak"]);
    }

    #[test]
    fn labs_run_at_once_and_what_came_of_all_is_added() {
        let folder = tempfile::tempdir().unwrap();
        // Each waits for the other one to begin.
        let script = r#"
            touch "$1"
            for _ in $(seq 1000); do
                if [ -e "$2" ]; then
                    echo "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured"
                    exit
                fi
                sleep 0.01
            done
            exit 1"#;
        let start = |binary: &Binary, _: Priority| {
            let name = &binary.name;
            let (own, other) = if name == "tests/a" { ("a", "b") } else { ("b", "a") };
            let mut command = Command::new("sh");
            command.current_dir(&folder).args(["-c", script, name, own, other]);
            command
        };
        let mut tally = Tally::default();
        run(["tests/a", "tests/b"].map(Binary::named).into(), &start, &mut tally);
        assert_eq!(tally.report(), "2 passed, 0 failed, 0 skipped");
        run(
            [Binary::named("tests/alone-with-itself")].into(),
            &|_, _| Command::new("false"),
            &mut tally,
        );
        assert_eq!(tally.failed(), 1, "{}", tally.report());
    }

    #[test]
    fn a_binary_that_has_nothing_to_run_says_nothing() {
        let result = |passed| {
            format!(
                "test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s"
            )
        };
        assert!(["", "running 0 tests", &result(0)].into_iter().all(says_nothing));
        assert!(
            !["running 1 test", "test a ... ok", &result(10)]
                .into_iter()
                .any(says_nothing)
        );
    }
}
