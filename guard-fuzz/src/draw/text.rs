//! Texts: configuration files, changes of a key, and requests over the control socket.

use guard_sim::random::Random;

use super::{Chance as _, spoil};

/// The template that every key stands in, and smaller files.
const FILES: [&str; 4] = [
    include_str!("../../../guard-user/dnsguard.example.toml"),
    "mode = \"enforce\"\nports = [53, 8600]\n[attach]\ninterfaces = [\"eth0\", \"lo\"]\nexclude = [\"cali*\"]\n",
    "[[budget]]\nname = \"per client\"\nper = \"client\"\nlimit = \"100/s\"\nburst = 200\naction = \"drop\"\n\
     [[budget]]\npreset = \"aws-link-local\"\n",
    "allow = [\"x.consul DS\"]\n[hygiene]\nresolvers = [\"192.0.2.53\"]\nsources = [\"own\"]\nrecursion = [\"10.0.0.0/8\"]\n\
     [breaker]\nhold_ms = 1000\nhold_max_ms = 300000\n[answer]\naction = \"answer\"\nrcode = \"SERVFAIL\"\n",
];
/// Pieces of TOML, numbers at their bounds, and what steers a terminal.
const PIECES: [&str; 28] = [
    "=",
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "]]",
    "\n",
    ",",
    ".",
    "#",
    "{",
    "}",
    "-1",
    "0",
    "1",
    "99999999999999999999",
    "0x7f",
    "1e400",
    "nan",
    "true",
    "\"\\u001b[2J\"",
    "\"\x1b[2J\"",
    "\u{202e}",
    "\"/s\"",
    "budget",
    "\"0.0.0.0/0\"",
    "\\u0000",
];
const KEYS: [&str; 14] = [
    "mode",
    "ports",
    "breaker.hold_ms",
    "answer.trusted",
    "budget.\"per client\".limit",
    "attach.interfaces",
    "allow",
    "attach",
    "a.b.c.d",
    "\"\".x",
    "budget",
    "mode.x",
    "hygiene.resolvers",
    "\u{1b}",
];
/// Changes that are right in most files.
const EDITS: [(&str, &str); 6] = [
    ("mode", "enforce"),
    ("ports", "[53, 8600]"),
    ("breaker.hold_ms", "2000"),
    ("answer.action", "\"drop\""),
    ("budget.\"per client\".limit", "\"1/s\""),
    ("attach.interfaces", "[\"eth0\"]"),
];
/// Requests that are answered, refused and not understood.
const REQUESTS: [&str; 14] = [
    "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/loops HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/policy HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/top HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/explain?name=x.consul&type=DS HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/explain?name=%1b%5b2J.%c3%bc&type=%3Cb%3E HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/events?last=10&event=trip&name=*.consul&client=10.0.0.0/8 HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /v1/events?last=18446744073709551616&pod=%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /v1/loops/release HTTP/1.1\r\nhost: x\r\ncontent-length: 27\r\n\r\n{\"name\":\"a.b.\",\"type\":\"DS\"}",
    "POST /v1/loops/allow HTTP/1.1\r\nhost: x\r\ncontent-length: 28\r\n\r\n{\"name\":\"a.b.\",\"seconds\":60}",
    "POST /v1/policy/set HTTP/1.1\r\nhost: x\r\ncontent-length: 32\r\n\r\n{\"key\":\"mode\",\"value\":\"observe\"} ",
    "POST /v1/reload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "PUT /v1/nothing HTTP/1.0\r\n\r\n",
];

/// The text of a configuration, spoiled by bytes, pieces and lines.
pub(crate) fn configuration(random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = random
        .pick(&FILES)
        .lines()
        .map(|line| line.as_bytes().to_vec())
        .collect();
    for line in &mut lines {
        // Half of the template's keys are comments.
        if line.starts_with(b"#") && random.once_in(3) {
            line.drain(..1);
        }
    }
    for _ in 0..random.pick(&[0, 0, 1, 1, 2, 3]) {
        let at = random.below(lines.len() as u64) as usize;
        match random.below(4) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => spoil(random, &mut lines[at]),
            _ => {
                let line = &mut lines[at];
                let place = random.below(line.len() as u64 + 1) as usize;
                let end = (place + random.between(0, 8)).min(line.len());
                line.splice(place..end, random.pick(&PIECES).bytes());
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join(&b'\n')
}

/// A key, a value and the text of a configuration, each behind its length.
pub(crate) fn edit(random: &mut Random) -> Vec<u8> {
    let (key, value) = if random.once_in(2) {
        random.pick(&EDITS)
    } else {
        (random.pick(&KEYS), random.pick(&PIECES))
    };
    let (mut key, mut value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    for text in [&mut key, &mut value] {
        if random.once_in(4) {
            spoil(random, text);
        }
    }
    let mut case = Vec::new();
    for text in [&key, &value] {
        case.push(text.len().min(255) as u8);
        case.extend(text.iter().take(255));
    }
    if random.once_in(2) {
        case.extend(random.pick(&FILES).bytes());
    } else {
        case.extend(configuration(random));
    }
    case
}

/// A request, whole or spoiled.
pub(crate) fn request(random: &mut Random) -> Vec<u8> {
    let mut request = random.pick(&REQUESTS).as_bytes().to_vec();
    if random.once_in(3) {
        // A parameter more, of anything.
        let key = random.of(&["last", "name", "type", "client", "device", "follow", "queries", "x"]);
        let count = random.between(0, 12);
        let value: String = random.bytes(count).iter().map(|byte| format!("%{byte:02x}")).collect();
        if let Some(at) = request.iter().position(|byte| *byte == b'?') {
            request.splice(at + 1..at + 1, format!("{key}={value}&").bytes());
        }
    }
    if random.once_in(2) {
        spoil(random, &mut request);
    }
    request
}
