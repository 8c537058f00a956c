//! Draws cases from a seed, has a target check them, makes what is wrong smaller, and keeps it in a file.

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    env, fmt, fs,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use guard_sim::random::Random;
use guard_tests::bench::beside_wires;

use crate::target::{Kind, Target};

/// The class that a case falls into, or what is wrong.
pub type Verdict = Result<&'static str, String>;

/// It is wrong.
pub(crate) fn wrong(why: impl Into<String>) -> Verdict {
    Err(why.into())
}

/// For making a case smaller.
const SHRINK_TIME: Duration = Duration::from_secs(20);
/// How the class of a case begins that was not judged.
const GIVEN_UP: &str = "given up";
/// How often such a case is tried alone.
const TRIES: usize = 5;
/// Letters of what is wrong that are shown: frames in it are long.
const SHOWN: usize = 2_000;
/// Cases of each target for `cargo fuzz` to start from.
const CORPUS: u64 = 200;
/// Cases between two looks at whether somebody else has found something.
const BATCH: u64 = 64;

/// A run of one target.
#[derive(Clone, Copy)]
pub struct Run {
    /// The target.
    pub kind: Kind,
    /// Everything is drawn from this.
    pub seed: u64,
    /// Cases, all threads together.
    pub cases: u64,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Cases that were checked.
    pub cases: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// How many cases fell into each class.
    pub classes: BTreeMap<&'static str, u64>,
    /// The first case that was wrong.
    pub failure: Option<Failure>,
}

/// A case that is wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is wrong.
    pub why: String,
    /// Its number in the run.
    pub number: u64,
    /// The case, as small as it was made.
    pub case: Vec<u8>,
    /// Whether it is wrong on its own. If not, it takes the cases before it: run them with the same seed.
    pub alone: bool,
}

impl Run {
    /// Takes all cases. `tell` hears of cases that are done.
    ///
    /// # Errors
    ///
    /// There is no target to be had.
    pub fn run(&self, tell: &(dyn Fn(u64) + Sync)) -> Result<Findings> {
        silence_panics();
        let start = Instant::now();
        let mut findings = if self.kind.in_kernel {
            let mut findings = Findings::default();
            beside_wires(|| {
                findings = self.shard(0, 1, &AtomicBool::new(false), tell)?;
                Ok(())
            })?;
            findings
        } else {
            self.shards(tell)?
        };
        findings.elapsed = start.elapsed();
        Ok(findings)
    }

    fn shards(&self, tell: &(dyn Fn(u64) + Sync)) -> Result<Findings> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let stop = AtomicBool::new(false);
        let found = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for shard in 0..threads {
                let (stop, found) = (&stop, &found);
                scope.spawn(move || {
                    let findings = self.shard(shard, threads, stop, tell);
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(findings);
                });
            }
        });
        let mut all = Findings::default();
        for findings in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            all.add(findings?);
        }
        Ok(all)
    }

    /// Every so-manieth case from the first on.
    fn shard(&self, first: u64, every: u64, stop: &AtomicBool, tell: &(dyn Fn(u64) + Sync)) -> Result<Findings> {
        let mut target = self.kind.make()?;
        let mut findings = Findings::default();
        let mut untold = 0;
        for number in (first..self.cases).step_by(every as usize) {
            if untold == BATCH {
                tell(untold);
                untold = 0;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            untold += 1;
            let case = target.draw(&mut random(self.seed, number));
            findings.cases += 1;
            match verdict(target.as_mut(), &case) {
                Ok(class) => *findings.classes.entry(class).or_default() += 1,
                Err(why) => {
                    stop.store(true, Ordering::Relaxed);
                    findings.failure = Some(smallest(target.as_mut(), number, case, why)?);
                    break;
                }
            }
        }
        tell(untold);
        Ok(findings)
    }
}

/// What a case is drawn from: it is the same, however many cases there are and threads.
const fn random(seed: u64, number: u64) -> Random {
    let mut random = Random(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Random(random.next())
}

impl Findings {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        for (class, count) in other.classes {
            *self.classes.entry(class).or_default() += count;
        }
        // The first one, whichever thread was faster.
        let earlier = |failure: &Failure| self.failure.as_ref().is_none_or(|known| failure.number < known.number);
        if let Some(failure) = other.failure.filter(earlier) {
            self.failure = Some(failure);
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.cases as f64 / seconds.max(f64::MIN_POSITIVE);
        write!(f, "{} cases in {seconds:.1} s, {rate:.0} a second", self.cases)?;
        for (class, count) in &self.classes {
            write!(f, "\n{count:>12}  {class}")?;
        }
        Ok(())
    }
}

impl Failure {
    /// What is wrong, where the case is, and what shows it again.
    #[must_use]
    pub fn report(&self, run: &Run, path: &Path) -> String {
        let Self { why, number, alone, .. } = self;
        let Run { kind, seed, cases } = run;
        let shown: String = why.chars().take(SHOWN).collect();
        let next = if *alone {
            format!("cargo xtask fuzz --target {} --replay {}", kind.name, path.display())
        } else {
            let cases = cases * 1_000_000 / kind.per_million.max(1);
            format!("cargo xtask fuzz --target {} --cases {cases} --seed {seed}", kind.name)
        };
        format!(
            "{}: case {number} of seed {seed} is wrong: {shown}\n  kept in {}\n  next: {next}",
            kind.name,
            path.display()
        )
    }
}

/// Checks one case on its own: what [`Run`] has found, or `cargo fuzz`.
///
/// # Errors
///
/// There is no target to be had.
pub fn replay(kind: Kind, case: &[u8]) -> Result<Verdict> {
    silence_panics();
    let check = || verdict_alone(kind.make()?.as_mut(), case);
    if !kind.in_kernel {
        return check();
    }
    let mut replayed = Ok("");
    beside_wires(|| {
        replayed = check()?;
        Ok(())
    })?;
    Ok(replayed)
}

/// Has the target of this name check a case that libFuzzer has made up. It lives as long as the thread.
///
/// # Panics
///
/// Something is wrong, which is how libFuzzer is told; or there is no such target.
pub fn feed(name: &str, case: &[u8]) {
    thread_local! {
        static FED: RefCell<Option<Box<dyn Target>>> = const { RefCell::new(None) };
    }
    FED.with(|fed| {
        let mut fed = fed.borrow_mut();
        let target = fed.get_or_insert_with(|| {
            let kind = Kind::named(name).expect("one of the targets");
            kind.make().expect("what a target needs is there")
        });
        if let Err(why) = target.check(case) {
            panic!("{why}");
        }
    });
}

/// Where cases are kept that are wrong: `fuzz` in the folder of what is built.
#[must_use]
pub fn kept() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"))
        .join("fuzz")
}

/// Writes cases for `cargo fuzz` to start from into `folder`; how many there are.
///
/// # Errors
///
/// A file cannot be written.
pub fn corpus(folder: &Path, kind: Kind, seed: u64) -> Result<usize> {
    let target = kind.make()?;
    for number in 0..CORPUS {
        keep(folder, kind, &target.draw(&mut random(seed, number)))?;
    }
    Ok(CORPUS as usize)
}

/// Writes a case to a file in `folder`, under a name that only this case has.
///
/// # Errors
///
/// The file cannot be written.
pub fn keep(folder: &Path, kind: Kind, case: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{}-{:016x}.case", kind.name, digest(case)));
    fs::write(&path, case).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Cases made of one: without a piece, the largest pieces first, or with a byte that is zero.
pub(crate) fn smaller(case: &[u8]) -> Vec<Vec<u8>> {
    let mut smaller = Vec::new();
    let mut piece = case.len();
    while piece > 0 {
        for at in (0..case.len()).step_by(piece) {
            let end = (at + piece).min(case.len());
            smaller.push([&case[..at], &case[end..]].concat());
        }
        piece /= 2;
    }
    for at in (0..case.len()).filter(|at| case[*at] != 0) {
        let mut plainer = case.to_vec();
        plainer[at] = 0;
        smaller.push(plainer);
    }
    smaller
}

/// Makes a case smaller as long as it stays wrong, each time before a target that has forgotten all others.
fn smallest(target: &mut dyn Target, number: u64, case: Vec<u8>, why: String) -> Result<Failure> {
    let mut failure = Failure {
        why,
        number,
        case,
        alone: false,
    };
    let deadline = Instant::now() + SHRINK_TIME;
    match verdict_alone(target, &failure.case)? {
        Ok(_) => return Ok(failure),
        Err(why) => (failure.why, failure.alone) = (why, true),
    }
    'smaller: loop {
        for candidate in target.smaller(&failure.case) {
            if Instant::now() > deadline {
                return Ok(failure);
            }
            if let Err(why) = verdict_alone(target, &candidate)? {
                (failure.why, failure.case) = (why, candidate);
                continue 'smaller;
            }
        }
        return Ok(failure);
    }
}

/// What a target says of a case when it has forgotten all others. One that it gives up is tried again, a few times.
fn verdict_alone(target: &mut dyn Target, case: &[u8]) -> Result<Verdict> {
    let mut said = Ok("");
    for _ in 0..TRIES {
        target.forget()?;
        said = verdict(target, case);
        if !said.as_ref().is_ok_and(|class| class.starts_with(GIVEN_UP)) {
            break;
        }
    }
    Ok(said)
}

/// What a target says of a case; a panic is what it says as well.
fn verdict(target: &mut dyn Target, case: &[u8]) -> Verdict {
    let checked = panic::catch_unwind(AssertUnwindSafe(|| target.check(case)));
    checked.unwrap_or_else(|panic| wrong(format!("a panic: {}", said(panic.as_ref()))))
}

thread_local! {
    /// Where the last panic of this thread was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are caught and told: nobody has to see them twice.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // That of a test, which is not caught here.
            if thread::current().name().is_some() {
                loud(panic);
            }
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            PLACE.with(|last| *last.borrow_mut() = place);
        }));
    });
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let place = PLACE.with(|place| place.borrow().clone());
    format!("{} at {place}", text.unwrap_or_default())
}
