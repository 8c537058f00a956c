//! The soak itself: who works, who looks, and the end.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use guard_sim::random::Random;
use serde::Serialize;

use super::{
    churn,
    finding::{self, Finding, Limits},
    footprint::{self, Footprint, Objects},
    loops,
    node::{self, Node},
    policy, restarts,
    sample::{Done, Sample},
    traffic,
};
use crate::{guard::Guard, kernel_log::KernelLog};

/// How often the metrics are scraped.
const SCRAPE: Duration = Duration::from_millis(250);
/// How often a node is looked at while everybody works.
const LOOK: Duration = Duration::from_secs(5);
/// A connection of ours is closed by then.
const CLOSED: Duration = Duration::from_millis(300);

/// The node whose agent lives.
const STEADY: &str = "steady";
/// The node whose agents do not.
const RESTARTED: &str = "restarted";

/// A soak to be run.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// How long it goes on.
    pub duration: Duration,
    /// What is drawn by chance is drawn from this.
    pub seed: u64,
    /// How long everybody works between two rests, and how long an agent lives where agents are restarted.
    pub spell: Duration,
    /// What is to hold.
    pub limits: Limits,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Seconds that it went on.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// What failed in the midst of it, and ended it.
    pub failure: Option<String>,
    /// What is to hold, and whether it does.
    pub findings: Vec<Finding>,
}

impl Outcome {
    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.failure.is_none() && self.findings.iter().all(|finding| finding.holds)
    }
}

/// What the threads share.
struct Watch<'a> {
    start: Instant,
    samples: Mutex<Vec<Sample>>,
    tell: &'a (dyn Fn(&Sample) + Sync),
}

impl Watch<'_> {
    fn add(&self, mut sample: Sample) {
        sample.at_s = self.start.elapsed().as_secs_f64();
        (self.tell)(&sample);
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }
}

/// Runs it. `interrupted` ends it early; `tell` is given each sample as it comes.
///
/// # Errors
///
/// Something that is needed is not there, or could not be started. What fails later is in the outcome.
pub fn run(soak: &Soak, interrupted: &AtomicBool, tell: &(dyn Fn(&Sample) + Sync)) -> Result<Outcome> {
    let mut log = KernelLog::from_now_on()?;
    let steady = Node::start(STEADY, true, &node::config(0, "detach")).context("build the steady node")?;
    let restarted = Node::start(RESTARTED, false, &restarts::config_of(0)).context("build the restarted node")?;
    let (steady, restarted) = (&steady, &restarted);
    let nodes = [steady, restarted];
    let watch = Watch {
        start: Instant::now(),
        samples: Mutex::default(),
        tell,
    };
    let mut bad = Vec::new();
    thread::scope(|scope| {
        let watch = &watch;
        let mut chance = Random(soak.seed);
        for node in nodes {
            for number in 0..traffic::COUNT {
                let random = Random(chance.next());
                scope.spawn(move || traffic::run(node, number, random));
            }
            let random = Random(chance.next());
            scope.spawn(move || policy::set(node, random));
            scope.spawn(move || scrape(node, watch));
            scope.spawn(move || loops::pair(node));
        }
        let random = Random(chance.next());
        scope.spawn(move || churn::run(steady, random));
        scope.spawn(move || policy::rewrite(steady));
        scope.spawn(move || loops::incident(steady));
        scope.spawn(move || {
            steady.pace.repeat("the rest of the steady node", || {
                if steady.pace.wait(soak.spell) {
                    watch.add(rested(steady)?);
                }
                Ok(())
            });
        });
        scope.spawn(move || {
            let mut number = 0;
            restarted.pace.repeat("the restarts", || {
                if !restarted.pace.wait(soak.spell) {
                    return Ok(());
                }
                let wrong = restarts::restart(restarted, number)?;
                number += 1;
                let mut sample = rested(restarted)?;
                if let Some(settled) = &mut sample.settled {
                    settled.wrong.extend(wrong);
                }
                watch.add(sample);
                Ok(())
            });
        });
        while watch.start.elapsed() < soak.duration
            && !interrupted.load(Ordering::Relaxed)
            && nodes.iter().all(|node| !node.pace.is_over())
        {
            thread::sleep(Duration::from_millis(200));
            match log.bad() {
                Ok(lines) => bad.extend(lines),
                Err(error) => steady.pace.fail(error),
            }
        }
        nodes.iter().for_each(|node| node.pace.end());
    });
    let seconds = watch.start.elapsed().as_secs_f64();
    let trouble = nodes.iter().find_map(|node| {
        let error = node.pace.trouble()?;
        let words = node.guard().process().last_words();
        Some(format!("{}: {error:#}\nthe agent's last words:\n{words}", node.name))
    });
    let failure = trouble.or_else(|| {
        let end = |node: &&Node| end(node, &watch).err().map(|error| format!("{}: {error:#}", node.name));
        nodes.iter().find_map(end)
    });
    bad.extend(log.bad()?);
    let samples = watch.samples.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Outcome {
        seconds,
        interrupted: interrupted.load(Ordering::Relaxed),
        failure,
        findings: finding::all(&samples, &bad, &[STEADY, RESTARTED], &soak.limits),
    })
}

/// The last comparison; then the guard is stopped, and nothing of it is left.
fn end(node: &Node, watch: &Watch<'_>) -> Result<()> {
    watch.add(rested(node)?);
    let map = footprint::map(&node.host)?;
    let guard = node.guard();
    guard.stop()?;
    let said = guard.say(&["detach", "--all"])?;
    anyhow::ensure!(said.code == Some(0), "dnsguard detach --all: {}", said.err);
    restarts::wait_gone(map)
}

/// A sample of a node at which everybody rests for as long as it takes.
fn rested(node: &Node) -> Result<Sample> {
    let _resting = node.pace.rest();
    let mut settled = node.settle()?;
    thread::sleep(CLOSED);
    let objects = Objects::around(footprint::map(&node.host)?)?;
    settled.programs = objects.programs.len();
    settled.links = objects.links.len();
    settled.maps = objects.maps.len();
    let mut sample = look(node, &node.guard())?;
    sample.settled = Some(settled);
    Ok(sample)
}

fn look(node: &Node, guard: &Guard) -> Result<Sample> {
    let footprint = Footprint::of(guard.process())?;
    let metrics = node.metrics()?;
    let tally = &node.tally;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Sample {
        node: node.name,
        agents: 1 + tally.restarts(),
        footprint,
        policy_generation: metrics.count("dnsguard_policy_generation", &[]),
        loops_open: metrics.count("dnsguard_loops_active", &[]),
        map_pressure: metrics.by("dnsguard_map_pressure_ratio", "map").into_iter().collect(),
        done: Done {
            asked: read(&tally.asked),
            good: read(&tally.good),
            good_answered: read(&tally.good_answered),
            trips: metrics.count("dnsguard_trips_total", &[]),
            lit: read(&tally.lit),
            put_out: read(&tally.put_out),
            churned: read(&tally.churned),
            over_churned: read(&tally.over_churned),
            set: read(&tally.set),
            rewritten: read(&tally.rewritten),
            killed: read(&tally.killed),
            stopped: read(&tally.stopped),
            detached: read(&tally.detached),
        },
        ..Sample::default()
    })
}

/// Scrapes the metrics, and takes a sample now and then.
fn scrape(node: &Node, watch: &Watch<'_>) {
    let (mut times, mut looked) = (Vec::new(), Instant::now());
    node.pace.repeat("scrapes", || {
        {
            let _working = node.pace.work();
            let guard = node.guard();
            let start = Instant::now();
            guard.metrics()?;
            // To a tenth of a millisecond.
            times.push((start.elapsed().as_secs_f64() * 10_000.0).round() / 10.0);
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            let _working = node.pace.work();
            let mut sample = look(node, &node.guard())?;
            sample.scrapes_ms = std::mem::take(&mut times);
            watch.add(sample);
        }
        node.pace.wait(SCRAPE);
        Ok(())
    });
}
