//! Names that are made to harm who looks: in a loop that is found, they are shown as names and as nothing else.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Namespace, Terminal,
    client::ask,
    guard::{Guard, GuardOptions, binary},
    programs,
    question::{Name, Question, RecordType},
    topology::Topology,
};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// For what the next look or two at the agent have to show.
const SOON: Duration = Duration::from_secs(15);
const PAGE: ([u8; 4], u16) = ([127, 0, 0, 1], 9_535);
const CONFIGURATION: &str = "[page]\nlisten = \"127.0.0.1:9535\"\n[breaker]\nhold_ms = 300000\n";

/// What clears a screen and names a window, what runs if it is taken for markup, what ends a label of a metric and a line
/// of a log, and letters that are no ASCII, of which one turns the direction of writing.
const LABELS: [&[u8]; 4] = [
    b"\x1b[2J\x1b]0;x\x07",
    b"<img/src=x/onerror=p()>",
    b"\"}\n1\r\\n",
    "b\u{fc}cher\u{202e}\u{9b}".as_bytes(),
];
/// The same, as everything shows it.
const SHOWN: &str = "\\027[2j\\027]0\\;x\\007.<img/src=x/onerror=p\\(\\)>.\\\"}\\0101\\013\\\\n.\
    b\\195\\188cher\\226\\128\\174\\194\\155.";

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_name_that_is_made_to_harm_is_shown_in_printable_letters() -> Result<()> {
    programs::provide(&[Topology::DEMO.programs(), &["tmux"]].concat())?;
    let built = Topology::DEMO.start()?;
    let options = GuardOptions {
        extra_toml: CONFIGURATION.to_owned(),
        ..GuardOptions::enforce(&["lo"])
    };
    let guard = Guard::start(built.namespace(), &options)?;
    guard.wait_ready(START)?;
    let looped = built.question().name.iter().map(<[u8]>::to_vec);
    let labels = LABELS.iter().map(|label| label.to_vec()).chain(looped);
    let question = Question {
        name: Name::from_labels(labels)?,
        kind: RecordType::A,
    };
    ask(built.namespace(), built.server(), &question, 3, Duration::from_secs(2))?;
    let trip = guard.wait_event("trip", SOON)?;
    let shown = format!("{SHOWN}{}", built.question().name);
    assert_eq!(trip["name"], shown.as_str());

    let terminal_line = format!("{} top", binary()?.display());
    let terminal = Terminal::open(built.namespace(), 140, 30, &terminal_line)?;
    terminal.wait(SOON, "the loop is counted", |screen| screen.contains("5 Loops (1)"))?;
    terminal.press(&["5"])?;
    let screen = terminal.wait(SOON, "the loop is named", |screen| screen.contains("\\027[2j"))?;
    ensure!(
        screen.contains("dnsguard ENFORCE on lo"),
        "the screen was cleared:\n{screen}"
    );

    // The agent looks at its maps once a second.
    sleep(Duration::from_secs(2));
    let said = |arguments: &[&str]| -> Result<String> {
        let said = guard.say(arguments)?;
        ensure!(said.err.is_empty(), "{arguments:?}: {}", said.err);
        Ok(said.out)
    };
    let page = data_of_the_page(built.namespace())?;
    for (what, text) in [
        ("events", guard.process().output()),
        ("metrics", guard.metrics()?),
        ("the data of the page", page),
        ("top --once", said(&["top", "--once"])?),
        ("top as JSON", said(&["top", "--once", "-o", "json"])?),
        ("status", said(&["status"])?),
        ("loops list", said(&["loops", "list"])?),
        ("loops show", said(&["loops", "show", &shown])?),
        ("explain", said(&["explain", &shown])?),
        ("observe", said(&["observe", "--last", "100"])?),
    ] {
        ensure!(text.contains("027[2j"), "{what} does not name it:\n{text}");
        is_printable(what, &text)?;
    }
    is_printable("the log", &guard.process().log())?;
    for line in guard.metrics()?.lines().filter(|line| line.contains("027[2j")) {
        let (series, value) = line.rsplit_once(' ').context("a series without a value")?;
        ensure!(series.ends_with('}') && value.parse::<f64>().is_ok(), "{line}");
    }
    guard.stop()
}

/// What the page fetches.
fn data_of_the_page(namespace: &Namespace) -> Result<String> {
    let text = namespace.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(SocketAddr::from(PAGE))?;
        write!(stream, "GET /data HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let (_, body) = text.split_once("\r\n\r\n").context("a response without a body")?;
    Ok(body.to_owned())
}

/// Whether a text is lines of printable ASCII.
fn is_printable(what: &str, text: &str) -> Result<()> {
    let steers = |letter: char| letter != '\n' && letter != ' ' && !letter.is_ascii_graphic();
    match text.lines().find(|line| line.chars().any(steers)) {
        Some(line) => anyhow::bail!("{what}: {line:?}"),
        None => Ok(()),
    }
}
