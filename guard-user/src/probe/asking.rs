//! Asks one question after the other, and watches where each goes.
//!
//! One query for a question and a server, over UDP, without a second try: what is seen twice was sent on. A few are on
//! their way at once, never two for one question: a forwarder would join them.

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    capture::Capture,
    mark::{Likeness, Marked, Random},
    response::Response,
    route::{Route, Seen, World},
    target::Question,
};
use crate::{
    host::Host,
    name,
    sockets::{Owned, Owners},
};

/// Queries that are on their way at once.
const AT_ONCE: usize = 8;
/// How long is watched after a response: what was sent on before it has been seen by then.
const GRACE: Duration = Duration::from_millis(100);
/// How long is listened before the first query: what spellings go about already.
const PRELUDE: Duration = Duration::from_millis(200);
/// Spellings of others that are remembered.
const MAX_KNOWN: usize = 10_000;
/// Packets that are read before sockets and clock are looked at again.
const BATCH: usize = 4_096;
/// Work that ends sooner is not commented on.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question with the server that is asked.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) question: Question,
    pub(super) server: SocketAddr,
}

/// What became of a task.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) task: Task,
    /// The name that was asked for.
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// From the query to its end.
    pub(super) waited: Duration,
    /// Where it went; `None` where nobody looked.
    pub(super) route: Option<Route>,
    /// Whether it went round, which is proven.
    pub(super) went_round: bool,
    /// Why a loop could not have been proven.
    pub(super) unprovable: Option<&'static str>,
}

/// How a query ended, as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response came.
    Responded(Response),
    /// None came within the time.
    Silent,
    /// It could not be sent, or the server's host says that nobody listens there.
    Unreachable(String),
    /// The work ended before it did, or before it was sent.
    Unfinished,
}

/// What came of it all.
#[derive(Debug)]
pub(super) struct Findings {
    /// One for each task, in their order.
    pub(super) findings: Vec<Finding>,
    /// Whether hops could be seen.
    pub(super) sees_hops: bool,
    /// Why the work ended before it was done.
    pub(super) cut_short: Option<&'static str>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one query.
    pub(super) query: Duration,
    /// For all of them.
    pub(super) total: Duration,
}

/// This host, as far as it tells.
struct Here {
    addresses: Vec<IpAddr>,
    owners: Owners,
}

/// A query that is on its way.
struct Flight {
    /// Index of the task.
    task: usize,
    socket: UdpSocket,
    marked: Marked,
    sent: Instant,
    /// When its time is over.
    end: Instant,
    outcome: Outcome,
    route: Route,
    /// Whether others ask the same in random spellings.
    strangers: bool,
}

impl World for Here {
    fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses.contains(&ip)
    }

    fn listener(&self, address: SocketAddr) -> Owned {
        self.owners.listener(address)
    }

    fn sender(&self, address: SocketAddr) -> Owned {
        self.owners.sender(address)
    }
}

/// Asks everything.
///
/// # Errors
///
/// What the kernel says to sockets and signals. That a server cannot be reached is a finding.
pub(super) fn ask(tasks: Vec<Task>, patience: Patience) -> io::Result<Findings> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut capture = Capture::open()?;
    let here = Here {
        addresses: Host::read()?.addresses().map(|ip| ip.to_canonical()).collect(),
        owners: if capture.is_some() {
            Owners::read()
        } else {
            Owners::default()
        },
    };
    let mut work = Work {
        flights: Vec::new(),
        findings: tasks.iter().map(|_| None).collect(),
        taken: Vec::new(),
        known: HashSet::new(),
        random: Random::open()?,
        query: patience.query,
        sees_hops: capture.is_some(),
        tasks,
    };
    let start = Instant::now();
    let prelude = start + if work.sees_hops { PRELUDE } else { Duration::ZERO };
    let mut progress = Progress::new(start);
    let cut_short = loop {
        if Instant::now() >= prelude {
            work.start()?;
            if work.flights.is_empty() {
                break None;
            }
        }
        let wake = work.flights.iter().map(|flight| flight.end).min().unwrap_or(prelude);
        wait(
            &signals,
            capture.as_ref(),
            &work.flights,
            wake.min(start + patience.total),
        )?;
        if signals.read_signal()?.is_some() {
            break Some("interrupted");
        }
        if let Some(capture) = &mut capture {
            work.watch(capture, &here)?;
        }
        work.listen();
        work.land();
        if start.elapsed() >= patience.total {
            break work.is_unfinished().then_some("its time was up");
        }
        progress.show(&work);
    };
    progress.end();
    Ok(work.end(cut_short))
}

/// What is done, and what is left to do.
struct Work {
    tasks: Vec<Task>,
    flights: Vec<Flight>,
    findings: Vec<Option<Finding>>,
    /// Every mark that was drawn.
    taken: Vec<Marked>,
    /// What others asked with capitals before a question of this probe was on its way: an older probe's query that still
    /// goes round, above all.
    known: HashSet<(Vec<u8>, u16)>,
    random: Random,
    query: Duration,
    sees_hops: bool,
}

impl Work {
    /// Sends what may be on its way now.
    fn start(&mut self) -> io::Result<()> {
        for index in 0..self.tasks.len() {
            if self.flights.len() >= AT_ONCE {
                break;
            }
            let task = &self.tasks[index];
            let is_under_way =
                |flight: &Flight| flight.task == index || self.tasks[flight.task].question == task.question;
            if self.findings[index].is_some() || self.flights.iter().any(is_under_way) {
                continue;
            }
            let marked = Marked::draw(&task.question, &mut self.random, |name| {
                let is_known = self.known.contains(&(name.to_vec(), task.question.qtype));
                is_known || self.taken.iter().any(|taken| taken.name() == name)
            })?;
            self.taken.push(marked.clone());
            self.send(index, marked)?;
        }
        Ok(())
    }

    fn send(&mut self, task: usize, marked: Marked) -> io::Result<()> {
        let server = self.tasks[task].server;
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        let connected = socket.connect(server).and_then(|()| socket.local_addr());
        let origin = *connected.as_ref().unwrap_or(&server);
        let origin = SocketAddr::new(origin.ip().to_canonical(), origin.port());
        let sent = Instant::now();
        let mut flight = Flight {
            task,
            route: Route::new(origin, marked.id, marked.message.clone()),
            sent,
            end: sent + self.query,
            outcome: Outcome::Silent,
            strangers: false,
            socket,
            marked,
        };
        if let Err(error) = connected.and_then(|_| flight.socket.send(&flight.marked.message)) {
            flight.outcome = Outcome::Unreachable(error.to_string());
            flight.end = sent;
        }
        self.flights.push(flight);
        Ok(())
    }

    /// Reads what the interfaces have seen.
    fn watch(&mut self, capture: &mut Capture, here: &Here) -> io::Result<()> {
        for number in 1..=BATCH {
            // No gap has been seen before this: what is proven so far stays proven.
            if number % capture.room() == 0 {
                self.note_loss(capture)?;
            }
            let Some(read) = capture.read()? else {
                break;
            };
            let Some(query) = read else {
                continue;
            };
            if self.known.len() < MAX_KNOWN && self.is_to_be_asked(query.name, query.qtype) {
                self.known.insert((query.name.to_vec(), query.qtype));
            }
            for flight in &mut self.flights {
                match flight.marked.compare(query.name, query.qtype) {
                    Likeness::Other => {}
                    Likeness::Respelled => {
                        let is_ours = |taken: &Marked| taken.compare(query.name, query.qtype) == Likeness::Same;
                        let is_known = self.known.contains(&(query.name.to_vec(), query.qtype));
                        flight.strangers |= !is_known && !self.taken.iter().any(is_ours);
                    }
                    Likeness::Same if flight.proof().is_some() => {}
                    Likeness::Same => flight.route.add(
                        Seen {
                            from: query.from,
                            to: query.to,
                            ttl: query.ttl,
                            id: query.id,
                            message: query.message.to_vec(),
                            at: flight.sent.elapsed(),
                            ifindex: query.ifindex,
                        },
                        here,
                    ),
                }
            }
        }
        self.note_loss(capture)
    }

    /// Packets are lost only while the socket is full, and come in order: as long as less is read at a time than it has
    /// room for, there is no gap before the moment in which a loss shows first.
    fn note_loss(&mut self, capture: &Capture) -> io::Result<()> {
        if capture.lost()? > 0 {
            let unproven = self.flights.iter_mut().filter(|flight| flight.proof().is_none());
            unproven.for_each(|flight| flight.route.incomplete = true);
        }
        Ok(())
    }

    /// Whether somebody asks with capitals what is asked later.
    fn is_to_be_asked(&self, name: &[u8], qtype: u16) -> bool {
        let is_it = |question: &Question| {
            !question.target.fresh && question.qtype == qtype && question.target.wire.eq_ignore_ascii_case(name)
        };
        name.iter().any(u8::is_ascii_uppercase)
            && self.tasks.iter().any(|task| is_it(&task.question))
            && !self
                .flights
                .iter()
                .any(|flight| is_it(&self.tasks[flight.task].question))
    }

    /// Reads what the servers say.
    fn listen(&mut self) {
        let grace = if self.sees_hops { GRACE } else { Duration::ZERO };
        for flight in self
            .flights
            .iter_mut()
            .filter(|flight| flight.outcome == Outcome::Silent)
        {
            let mut buffer = [0; 4_096];
            let outcome = loop {
                match flight.socket.recv(&mut buffer) {
                    Ok(length) => {
                        if let Some(response) = Response::read(&buffer[..length], flight.marked.id) {
                            break Some(Outcome::Responded(response));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Some(Outcome::Unreachable(error.to_string())),
                }
            };
            if let Some(outcome) = outcome {
                flight.outcome = outcome;
                flight.end = flight.end.min(Instant::now() + grace);
            }
        }
    }

    /// Ends the flights that have no more to tell.
    fn land(&mut self) {
        let now = Instant::now();
        let landed = self
            .flights
            .extract_if(.., |flight| flight.end <= now || flight.proof().is_some());
        for flight in landed {
            let task = flight.task;
            self.findings[task] = Some(flight.finding(self.tasks[task].clone(), self.sees_hops));
        }
    }

    fn is_unfinished(&self) -> bool {
        self.findings.iter().any(Option::is_none)
    }

    fn end(mut self, cut_short: Option<&'static str>) -> Findings {
        for mut flight in self.flights.drain(..) {
            let task = flight.task;
            if flight.outcome == Outcome::Silent {
                flight.outcome = Outcome::Unfinished;
            }
            self.findings[task] = Some(flight.finding(self.tasks[task].clone(), self.sees_hops));
        }
        let not_asked = |task: Task| Finding {
            name: task.question.target.to_string(),
            task,
            outcome: Outcome::Unfinished,
            waited: Duration::ZERO,
            route: None,
            went_round: false,
            unprovable: None,
        };
        let findings = self.tasks.into_iter().zip(self.findings);
        Findings {
            findings: findings
                .map(|(task, finding)| finding.unwrap_or_else(|| not_asked(task)))
                .collect(),
            sees_hops: self.sees_hops,
            cut_short,
        }
    }
}

impl Flight {
    /// The hop that proves that it went round, if that is beyond doubt.
    fn proof(&self) -> Option<usize> {
        self.route.proof().filter(|_| self.unprovable().is_none())
    }

    fn unprovable(&self) -> Option<&'static str> {
        if !self.marked.is_provable() {
            Some("its name has too few letters to carry a mark")
        } else if self.strangers && !self.marked.is_beyond_chance() {
            Some(
                "others ask for the same name in random capitals, and it has too few letters to tell their queries from this one",
            )
        } else {
            None
        }
    }

    fn finding(self, task: Task, sees_hops: bool) -> Finding {
        Finding {
            task,
            name: name::text(self.marked.name()),
            waited: self.sent.elapsed(),
            went_round: self.proof().is_some(),
            unprovable: self.unprovable().filter(|_| sees_hops),
            outcome: self.outcome,
            route: sees_hops.then_some(self.route),
        }
    }
}

/// Waits until there is something to read, or this moment has come.
fn wait(signals: &SignalFd, capture: Option<&Capture>, flights: &[Flight], until: Instant) -> io::Result<()> {
    let mut sources = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    sources.extend(capture.map(|capture| PollFd::new(capture.as_fd(), PollFlags::POLLIN)));
    let silent = flights.iter().filter(|flight| flight.outcome == Outcome::Silent);
    sources.extend(silent.map(|flight| PollFd::new(flight.socket.as_fd(), PollFlags::POLLIN)));
    // Rounded up: the moment has come then.
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut sources, left) {
        Err(nix::errno::Errno::EINTR) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A line on a terminal that says how far the work is.
struct Progress {
    next: Instant,
    is_wanted: bool,
    is_shown: bool,
}

impl Progress {
    fn new(start: Instant) -> Self {
        Self {
            next: start + PATIENCE,
            is_wanted: io::stderr().is_terminal(),
            is_shown: false,
        }
    }

    fn show(&mut self, work: &Work) {
        let now = Instant::now();
        if !self.is_wanted || now < self.next {
            return;
        }
        self.next = now + PATIENCE / 4;
        self.is_shown = true;
        let done = work.findings.iter().flatten();
        let round = done.clone().filter(|finding| finding.went_round).count();
        eprint!(
            "\r\x1b[K{} of {} queries, {round} went round",
            done.count(),
            work.tasks.len()
        );
        // A terminal that is gone has nobody before it.
        drop(io::stderr().flush());
    }

    fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
