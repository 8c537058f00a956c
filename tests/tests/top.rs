//! `dnsguard top` as somebody in front of a terminal sees it, while a real loop is held.

use std::{
    fs,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Question, Terminal,
    client::ask,
    guard::{self, Guard, GuardOptions},
    programs,
    question::RecordType,
    topology::{Loop, Topology},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// For what the next look or two at the agent have to show.
const SOON: Duration = Duration::from_secs(10);
/// For what a key does.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Ends what goes on meanwhile, also when an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// A loop that is lit and held, and other names that are asked for while `work` looks: a.example. four times as often as
/// b.example.
fn while_a_loop_is_held(work: impl FnOnce(&Loop, &Guard) -> Result<()>) -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&[Topology::DEMO.programs(), &["tmux"]].concat())?;
    let built = Topology::DEMO.start()?;
    let guard = Guard::start(built.namespace(), &GuardOptions::enforce(&["lo"]))?;
    guard.wait_ready(START)?;
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                drop(built.ignite());
            }
        });
        scope.spawn(|| -> Result<()> {
            let names = ["a", "a", "a", "a", "b"].map(|label| format!("{label}.example."));
            let questions = names.map(|name| Question::new(&name, RecordType::A));
            while !end.load(Ordering::Relaxed) {
                for question in questions.iter().flatten() {
                    drop(ask(
                        built.namespace(),
                        built.server(),
                        question,
                        1,
                        Duration::from_millis(200),
                    ));
                    sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        });
        let _end = End(&end);
        guard.wait_event("trip", START).and_then(|_| work(&built, &guard))
    })
}

/// A shell line that runs top and says afterwards how it ended, and how the terminal is.
fn line(environment: &str) -> Result<String> {
    let binary = guard::binary()?;
    Ok(format!(
        "echo before; {environment} {} top; echo code $?; stty -a",
        binary.display()
    ))
}

/// The first row below the headings.
fn first_row(screen: &str) -> &str {
    let mut lines = screen.lines().skip_while(|line| !line.contains("QUERIES/S"));
    lines.nth(1).unwrap_or_default()
}

fn is_restored(terminal: &Terminal) -> Result<()> {
    let screen = terminal.wait(AT_ONCE, "top has ended", |screen| screen.contains("icanon"))?;
    ensure!(screen.contains("code 0") && screen.contains("before"), "{screen}");
    let modes: Vec<_> = screen.split_whitespace().collect();
    ensure!(modes.contains(&"icanon") && modes.contains(&"echo"), "{screen}");
    ensure!(!terminal.is_taken()?, "the screen is still taken");
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn somebody_watches_a_loop() -> Result<()> {
    while_a_loop_is_held(|built, guard| {
        let terminal = Terminal::open(built.namespace(), 100, 30, &line("")?)?;
        terminal.wait(SOON, "the loop is counted", |screen| screen.contains("5 Loops (1)"))?;
        ensure!(terminal.is_taken()?, "it does not take the screen");
        terminal.press(&["5"])?;
        let screen = terminal.wait(AT_ONCE, "the loop is named", |screen| {
            screen.contains("HELD") && screen.contains("x.consul.")
        })?;
        ensure!(screen.contains("dnsguard ENFORCE on lo"), "{screen}");
        let row = screen
            .lines()
            .find(|line| line.contains("x.consul."))
            .unwrap_or_default();
        ensure!(row.contains(" lo ") && row.contains(" A "), "{row}");

        terminal.press(&["1"])?;
        let both = |screen: &str| screen.contains("a.example.") && screen.contains("b.example.");
        let before = |screen: &str, one: &str, other: &str| screen.find(one) < screen.find(other);
        terminal.wait(SOON, "the heavier one comes first", |screen| {
            both(screen) && before(screen, "a.example.", "b.example.")
        })?;
        terminal.press(&["r"])?;
        terminal.wait(AT_ONCE, "the lighter one comes first", |screen| {
            both(screen) && before(screen, "b.example.", "a.example.")
        })?;
        terminal.press(&["r"])?;

        terminal.press(&["/", "b", ".", "e", "x"])?;
        terminal.wait(AT_ONCE, "one is left while the filter is typed", |screen| {
            screen.contains("b.example.") && !screen.contains("a.example.") && screen.contains("/b.ex")
        })?;
        terminal.press(&["Escape"])?;
        terminal.wait(AT_ONCE, "all are back", both)?;

        terminal.press(&["p"])?;
        let still = terminal.wait(AT_ONCE, "it says so", |screen| screen.contains("PAUSED"))?;
        sleep(Duration::from_millis(2_500));
        assert_eq!(terminal.screen()?, still);
        terminal.press(&["p"])?;
        terminal.wait(SOON, "it goes on", |screen| {
            !screen.contains("PAUSED") && screen.lines().next() != still.lines().next()
        })?;

        terminal.press(&["?"])?;
        terminal.wait(AT_ONCE, "the help is open", |screen| screen.contains("choose a list"))?;
        terminal.press(&["x"])?;
        terminal.wait(AT_ONCE, "the help is closed", |screen| {
            !screen.contains("choose a list")
        })?;

        terminal.resize(50, 12)?;
        let narrow = terminal.wait(AT_ONCE, "it fits", |screen| {
            first_row(screen).contains("example.") && screen.lines().count() == 12
        })?;
        ensure!(narrow.lines().all(|line| line.chars().count() <= 50), "{narrow}");
        ensure!(narrow.contains("QUERIES/S") && narrow.contains("q quit"), "{narrow}");
        terminal.resize(30, 8)?;
        terminal.wait(AT_ONCE, "it says that it does not fit", |screen| {
            screen.contains("30x8 is too small")
        })?;
        terminal.resize(100, 30)?;
        terminal.wait(AT_ONCE, "it is back", both)?;

        guard.stop()?;
        let screen = terminal.wait(SOON, "it says that the agent is gone", |screen| {
            screen.contains("AGENT LOST")
        })?;
        ensure!(
            screen.contains("no agent answers at /run/dnsguard/control.sock"),
            "{screen}"
        );
        ensure!(both(&screen), "what it said last is gone: {screen}");
        terminal.press(&["q"])?;
        is_restored(&terminal)
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn without_colours_there_are_none() -> Result<()> {
    while_a_loop_is_held(|built, _| {
        for (environment, is_coloured) in [("NO_COLOR=1", false), ("NO_COLOR=", true), ("", true)] {
            let terminal = Terminal::open(built.namespace(), 100, 30, &line(environment)?)?;
            terminal.wait(SOON, "the loop is counted", |screen| screen.contains("5 Loops (1)"))?;
            terminal.press(&["5"])?;
            terminal.wait(AT_ONCE, "the loop is named", |screen| {
                screen.contains("HELD") && screen.contains("x.consul.")
            })?;
            let painted = terminal.painted_screen()?;
            assert_eq!(has_colours(&painted), is_coloured, "{environment}: {painted:?}");
            ensure!(painted.contains("\u{1b}["), "nothing stands out: {painted:?}");
        }
        Ok(())
    })
}

/// Whether a sequence that sets colours is in it: SGR 30 to 49 and 90 to 107, but for the defaults, 39 and 49.
fn has_colours(painted: &str) -> bool {
    let sequences = painted.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
    let mut codes = sequences.flat_map(|(codes, _)| codes.split(';'));
    codes.any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=107)))
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn whatever_ends_it_leaves_the_terminal_as_it_was() -> Result<()> {
    while_a_loop_is_held(|built, _| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let terminal = Terminal::open(built.namespace(), 80, 24, &line("")?)?;
            terminal.wait(SOON, "it is there", |screen| screen.contains("dnsguard ENFORCE"))?;
            kill(pid_of_top(&terminal)?, signal)?;
            is_restored(&terminal).with_context(|| format!("{signal}"))?;
        }
        let terminal = Terminal::open(built.namespace(), 80, 24, &line("")?)?;
        terminal.wait(SOON, "it is there", |screen| screen.contains("dnsguard ENFORCE"))?;
        terminal.press(&["C-c"])?;
        is_restored(&terminal).context("Ctrl-C")?;

        // A connection that breaks: nobody is left to read, and nothing to read from.
        let terminal = Terminal::open(built.namespace(), 80, 24, &line("")?)?;
        terminal.wait(SOON, "it is there", |screen| screen.contains("dnsguard ENFORCE"))?;
        let top = pid_of_top(&terminal)?;
        drop(terminal);
        let deadline = Instant::now() + SOON;
        // One that has ended and that nobody has waited for has no command line any more.
        while fs::read(format!("/proc/{top}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            ensure!(Instant::now() < deadline, "it goes on without a terminal");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}

/// The process of `dnsguard top`, which the shell of a terminal runs.
fn pid_of_top(terminal: &Terminal) -> Result<Pid> {
    let shell = terminal.pid()?;
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let top = children.split_whitespace().next().context("the shell runs top")?;
    Ok(Pid::from_raw(top.parse()?))
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_pipe_gets_it_once() -> Result<()> {
    while_a_loop_is_held(|built, guard| {
        // The agent looks once a second.
        guard.wait_counter("dnsguard_loops_active", &[], 1, SOON)?;
        let namespace = built.namespace();
        let text = printed(namespace, &[])?;
        ensure!(text.starts_with("enforce on lo, up "), "{text}");
        ensure!(text.contains("1 loop open") && text.contains("x.consul."), "{text}");
        ensure!(!text.contains('\u{1b}'), "{text}");
        let view: serde_json::Value = serde_json::from_str(&printed(namespace, &["-o", "json"])?)?;
        assert_eq!((&view["schema"], &view["mode"]), (&1.into(), &"enforce".into()));
        assert_eq!(view["loops"][0]["name"], "x.consul.");
        let held = view["loops"][0]["held"].as_u64().context("a number")?;
        ensure!(held > 0, "{view}");
        let lines = printed(namespace, &["-o", "jsonl"])?;
        assert_eq!(lines.lines().count(), 1);

        let binary = guard::binary()?;
        let terminal = Terminal::open(namespace, 80, 50, &format!("{} top --once", binary.display()))?;
        terminal.wait(SOON, "it is printed", |screen| {
            screen.contains("1 loop open") && screen.contains("CLIENT")
        })?;
        let terminal = Terminal::open(namespace, 80, 50, &format!("TERM=dumb {} top", binary.display()))?;
        terminal.wait(SOON, "it is printed", |screen| {
            screen.contains("1 loop open") && screen.contains("CLIENT")
        })?;

        guard.stop()?;
        let terminal = Terminal::open(namespace, 80, 24, &line("")?)?;
        let screen = terminal.wait(SOON, "it has ended", |screen| screen.contains("code "))?;
        ensure!(
            screen.contains("code 4") && screen.contains("is dnsguard running"),
            "{screen}"
        );
        Ok(())
    })
}

/// What top prints where standard output is no terminal.
fn printed(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(guard::binary()?);
    command.arg("top").args(arguments);
    let process = namespace.spawn(command)?;
    let status = process.wait(SOON)?;
    ensure!(status.success(), "{status}: {}", process.log());
    Ok(process.output())
}
