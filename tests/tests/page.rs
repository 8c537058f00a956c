//! The page of the agent in a real browser, while a real loop is held and a link-local budget is short.
//!
//! `DNSGUARD_PICTURES=DIR` has the first test put pictures of the page there, light and dark.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{
    Browser, Namespace, Question,
    client::ask,
    guard::{self, Guard, GuardOptions},
    programs,
    question::{Name, RecordType},
    topology::{Loop, Topology},
    veth,
};
use serde_json::{Value, json};

/// A debug build verifies its programs within this on a busy machine.
const START: Duration = Duration::from_secs(20);
/// For what the next look or two at the agent have to show, in a browser that shares two cores with a loop.
const SOON: Duration = Duration::from_secs(15);

const PAGE: ([u8; 4], u16) = ([127, 0, 0, 1], 9534);
const URL: &str = "http://127.0.0.1:9534/";

/// A resolver of a cloud, which is not there: what is sent to it is counted where it leaves.
const LINK_LOCAL: ([u8; 4], u16) = ([169, 254, 169, 253], 53);
/// The interface that it leaves by.
const LINK: &str = "link0";

const CONFIGURATION: &str = "\
[page]
listen = \"127.0.0.1:9534\"
[[budget]]
preset = \"aws-link-local\"
limit = 60
interfaces = [\"link0\"]
[[budget]]
name = \"per client\"
scope = \"client\"
limit = 80
";

/// What runs if a name is taken for markup, and what moves the cursor if a terminal gets to see it.
const MARKUP: &[u8] = b"<img/src=x/onerror=pwned=1>";
const ESCAPES: &[u8] = b"\x1b[2J\x1b]0;x\x07";

/// Ends what goes on meanwhile, also when an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One test at a time: each takes the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// A loop that is lit and held, other names that are asked for, one of them meant to break pages, and packets to a
/// link-local resolver, while `work` looks.
fn while_a_loop_is_held(work: impl FnOnce(&Loop, &Guard) -> Result<()>) -> Result<()> {
    let _machine = MACHINE.lock();
    programs::provide(&[Topology::DEMO.programs(), Browser::PROGRAMS].concat())?;
    let built = Topology::DEMO.start()?;
    let namespace = built.namespace();
    veth::lay_link_local(namespace)?;
    let options = GuardOptions {
        extra_toml: CONFIGURATION.to_owned(),
        ..GuardOptions::enforce(&["lo", LINK])
    };
    let guard = Guard::start(namespace, &options)?;
    guard.wait_ready(START)?;
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                drop(built.ignite());
            }
        });
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                // A failure shows as a plot that is empty.
                drop(ask_around(&built));
            }
        });
        let _end = End(&end);
        guard.wait_event("trip", START).and_then(|_| work(&built, &guard))
    })
}

fn ask_around(built: &Loop) -> Result<()> {
    let bad = Question {
        name: Name::from_labels([MARKUP, ESCAPES, b"example"])?,
        kind: RecordType::A,
    };
    let good = Question::new("a.example.", RecordType::A)?;
    let socket = built.namespace().udp(SocketAddr::from(([0, 0, 0, 0], 0)))?;
    for question in [&good, &good, &bad] {
        drop(ask(
            built.namespace(),
            built.server(),
            question,
            1,
            Duration::from_millis(100),
        ));
        socket.send_to(&good.query(7)?, SocketAddr::from(LINK_LOCAL))?;
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends a request with this Host, and returns the status.
fn status(namespace: &Namespace, method: &str, host: &str) -> Result<String> {
    namespace.run(|| {
        let mut stream = TcpStream::connect(SocketAddr::from(PAGE))?;
        write!(stream, "{method} /data HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let status = response.split(' ').nth(1);
        status.map(str::to_owned).context("a response has a status")
    })
}

/// Nothing but the page itself was asked for, and no script failed and nothing was refused.
fn is_quiet(browser: &Browser) -> Result<()> {
    let requests = browser.requests()?;
    let own = |url: &String| url.starts_with(URL) || url.starts_with("data:");
    ensure!(requests.iter().all(own), "{requests:?}");
    for part in ["", "page.css", "page.js", "data"] {
        ensure!(requests.contains(&format!("{URL}{part}")), "no {part} in {requests:?}");
    }
    assert_eq!(browser.console()?, [""; 0]);
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn somebody_looks_at_a_loop() -> Result<()> {
    while_a_loop_is_held(|built, guard| {
        ensure!(
            guard.process().log().contains("page at http://127.0.0.1:9534/"),
            "{}",
            guard.process().log()
        );
        let browser = Browser::start(built.namespace(), &[])?;
        browser.go(URL)?;
        browser.wait(
            "document.querySelector('#loops tbody').textContent.includes('x.consul.')",
            SOON,
        )?;
        let row = browser.run("return [...document.querySelector('#loops tbody tr').cells].map(c => c.textContent)")?;
        assert_eq!(
            (&row[0], &row[1], &row[2]),
            (&json!("x.consul."), &json!("A"), &json!("lo"))
        );
        assert_eq!(
            browser.run("return document.getElementById('mode').textContent")?,
            "enforce"
        );
        // The time that is left of the hold runs between the answers of the agent, too.
        let left = "document.querySelector('#loops tbody tr')?.cells[4].textContent";
        let was = browser.run(&format!("return window.was = {left}"))?;
        browser
            .wait(&format!("{left} !== window.was"), SOON)
            .with_context(|| format!("{was}"))?;

        // Three plots of the agent, and one of the link-local budget, with its limit.
        browser.wait("document.querySelectorAll('figure .line').length === 4", SOON)?;
        let tall = |plot: &str| format!("document.querySelector('{plot} .line').getBBox().height > 10");
        for plot in [".queries", ".held", "#links"] {
            browser.wait(&tall(plot), SOON)?;
        }
        let limit = browser.run("return document.querySelector('#links .limit').getAttribute('visibility')")?;
        assert_eq!(limit, "visible");
        let label = browser.run("return document.querySelector('#links figure').getAttribute('aria-label')")?;
        ensure!(
            label
                .to_string()
                .contains("link0, packets/s, limit 60, last five minutes: now "),
            "{label}"
        );
        for name in ["per client", "aws-link-local"] {
            browser.wait(
                &format!("document.querySelector('#budgets').textContent.includes('{name}')"),
                SOON,
            )?;
        }
        browser.wait(
            "document.querySelector('#clients').textContent.includes('127.0.0.1')",
            SOON,
        )?;

        // A name is a text, whatever it says.
        let markup = String::from_utf8_lossy(MARKUP);
        browser.wait(
            &format!("document.querySelector('#keys').textContent.includes('{markup}')"),
            SOON,
        )?;
        let found = browser.run(
            "return [window.pwned === undefined, document.images.length, document.body.textContent.includes('\\u001b')]",
        )?;
        assert_eq!(found, json!([true, 0, false]));

        // The past is there for whoever comes late.
        let seen = "document.querySelector('.queries .line').getAttribute('d').split('L').length";
        browser.wait(&format!("{seen} > 5"), SOON)?;
        browser.go(URL)?;
        browser.wait("document.querySelector('.queries .line')", SOON)?;
        ensure!(
            browser.run(&format!("return {seen} > 5"))? == json!(true),
            "the past is gone"
        );
        take_pictures(&browser)?;
        is_quiet(&browser)
    })
}

/// Two pictures, for whoever asks for them.
fn take_pictures(browser: &Browser) -> Result<()> {
    let Some(directory) = env::var_os("DNSGUARD_PICTURES") else {
        return Ok(());
    };
    sleep(Duration::from_secs(20));
    for (scheme, width) in [("light", 1_280), ("dark", 1_280), ("light", 360)] {
        browser.prefer(scheme)?;
        browser.resize(width, 1_000)?;
        let file = Path::new(&directory).join(format!("page-{scheme}-{width}.png.base64"));
        fs::write(&file, browser.picture()?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn it_fits_every_window_and_every_eye() -> Result<()> {
    while_a_loop_is_held(|built, _| {
        let browser = Browser::start(built.namespace(), &[])?;
        browser.go(URL)?;
        browser.wait(
            "document.querySelector('#loops tbody').textContent.includes('x.consul.')",
            SOON,
        )?;
        browser.wait("document.querySelector('#keys tbody tr')", SOON)?;
        for width in [320, 360, 768, 1_280, 2_560] {
            browser.resize(width, 800)?;
            let widths =
                browser.run("const d = document.documentElement; return [d.scrollWidth, d.clientWidth, innerWidth]")?;
            assert_eq!(widths[0], widths[1], "{width} pixels have to be scrolled");
            assert_eq!(widths[2], width);
        }
        let mut grounds = Vec::new();
        for scheme in ["light", "dark"] {
            browser.prefer(scheme)?;
            let contrast = browser.run(CONTRAST)?;
            let worst = contrast["worst"].as_f64().context("a number")?;
            // WCAG 2 level AA.
            ensure!(worst >= 4.5, "{scheme}: {contrast}");
            grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor")?);
        }
        assert_ne!(grounds[0], grounds[1]);
        // What a screen reader is told of the plots and tables.
        let nameless = browser.run(
            "return [...document.querySelectorAll('figure')].filter(f => f.role !== 'img' || !f.ariaLabel).length \
             + [...document.querySelectorAll('th')].filter(h => h.scope !== 'col').length",
        )?;
        assert_eq!(nameless, 0);
        is_quiet(&browser)
    })
}

/// The worst contrast of a text that is shown with what is behind it (WCAG 2.2, relative luminance).
const CONTRAST: &str = "
const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = numbers(colour).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return numbers(colour)[3] === 0 ? ground(node.parentElement) : colour;
};
let found = { worst: 21 };
for (const node of document.querySelectorAll('body *')) {
  const text = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
  if (!text.length || !node.checkVisibility() || node.closest('noscript, svg')) continue;
  const pair = [getComputedStyle(node).color, ground(node)];
  const [dark, light] = pair.map(luminance).sort((a, b) => a - b);
  const worst = (light + 0.05) / (dark + 0.05);
  if (worst < found.worst) found = { worst, pair, text: node.textContent, id: node.id || node.className };
}
return found;";

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn an_agent_that_stops_is_said_to_have_stopped() -> Result<()> {
    while_a_loop_is_held(|built, guard| {
        let browser = Browser::start(built.namespace(), &[])?;
        browser.go(URL)?;
        browser.wait(
            "document.querySelector('#loops tbody').textContent.includes('x.consul.')",
            SOON,
        )?;
        guard.stop()?;
        browser.wait("document.body.classList.contains('stale')", SOON)?;
        let status = browser.run("return document.getElementById('status').textContent")?;
        let status = status.as_str().context("a text")?;
        ensure!(
            status.starts_with("The agent does not answer. What is shown is of "),
            "{status}"
        );
        // What it said last stays.
        browser.wait(
            "document.querySelector('#loops tbody').textContent.includes('x.consul.')",
            Duration::ZERO,
        )?;
        Ok(())
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn no_other_site_gets_a_look() -> Result<()> {
    while_a_loop_is_held(|built, _| {
        let namespace = built.namespace();
        for host in ["localhost", "localhost:9534", "127.0.0.1:9534", "[::1]:9534"] {
            assert_eq!(status(namespace, "GET", host)?, "200", "{host}");
        }
        for host in ["evil.example:9534", "10.0.0.5:9534", "localhost.evil.example", ""] {
            assert_eq!(status(namespace, "GET", host)?, "421", "{host}");
        }
        assert_eq!(status(namespace, "POST", "localhost")?, "405");

        // DNS rebinding: a name of somebody else's leads here.
        let browser = Browser::start(namespace, &["--host-resolver-rules=MAP evil.example 127.0.0.1"])?;
        browser.go("http://evil.example:9534/")?;
        let text = browser.run("return document.body.innerText")?;
        ensure!(text.to_string().contains("not for this host"), "{text}");
        let read = "return fetch('/data').then((response) => response.status)";
        assert_eq!(browser.run(read)?, 421);
        // Another site of the same host: its origin is another one.
        browser.go("http://127.0.0.1:9533/livez")?;
        let read = |mode: &str| {
            let script = format!(
                "return fetch('{URL}data', {{mode: '{mode}'}}).then((r) => r.text()).then((t) => 'read ' + t, () => 'refused')"
            );
            browser.run(&script)
        };
        assert_eq!(read("cors")?, "refused");
        assert_eq!(read("no-cors")?, "refused");
        // It is shown in no frame either.
        browser.go(URL)?;
        let policy = "return fetch('/').then((response) => response.headers.get('content-security-policy'))";
        let policy: Value = browser.run(policy)?;
        ensure!(policy.to_string().contains("frame-ancestors 'none'"), "{policy}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn a_taken_port_costs_no_half_started_guard() -> Result<()> {
    let namespace = Namespace::new()?;
    let _taken = namespace.run(|| std::net::TcpListener::bind(SocketAddr::from(PAGE)))?;
    let config = namespace.file("page.toml", "[page]\nlisten = \"127.0.0.1:9534\"\n")?;
    let mut command = Command::new(guard::binary()?);
    command.arg("run").arg("--config").arg(config);
    let process = namespace.spawn(command)?;
    let status = process.wait(START)?;
    assert_eq!(status.code(), Some(1), "{}", process.log());
    let told = "cannot listen on 127.0.0.1:9534: address in use; set [page] listen, or \"\" to switch it off";
    ensure!(process.log().contains(told), "{}", process.log());
    ensure!(
        !namespace.run(|| Path::new("/sys/fs/bpf/dnsguard").exists()),
        "something is left"
    );
    Ok(())
}
