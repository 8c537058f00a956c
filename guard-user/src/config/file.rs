//! From the text of a configuration file to a [`Config`], or to a list of everything that is wrong with it.

use std::{cell::RefCell, fmt, fs, io, net::SocketAddr, path::Path, time::Duration};

use guard_common::policy::{Action, MAX_TRUSTED};
use thiserror::Error;
use toml::de::DeTable;

use super::{
    Answer, Attach, Breaker, Config, MODES, Metrics, Rcode, Tc, Xdp, interface_name, pin_dir,
    section::{Fault, Section},
};

/// Milliseconds of a hold: RFC 9520 section 3.2 allows to remember a failure for 300 s at most.
const HOLD_MS: std::ops::RangeInclusive<u32> = 100..=300_000;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}; check the path and its permissions, or leave --config out for the defaults")]
    Unreadable {
        /// Its path.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong in one place or in several.
    #[error("{}", Faults(.0))]
    Wrong(Vec<Wrong>),
}

/// One thing that is wrong, in the form `FILE:LINE:COLUMN: what; what is allowed`.
#[derive(Debug, Error)]
#[error("{file}:{line}:{column}: {message}")]
pub(crate) struct Wrong {
    file: String,
    /// Counted from 1.
    line: usize,
    /// Counted from 1, in characters.
    column: usize,
    message: String,
}

pub(super) fn load(path: &Path) -> Result<Config, ConfigError> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        file: file.clone(),
        source,
    })?;
    parse(&file, &text)
}

/// Reads the text of the file with this name.
pub(super) fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let mut faults = match DeTable::parse(text) {
        Ok(table) => {
            let faults = RefCell::default();
            let config = config(&mut Section::top(table.get_ref(), &faults));
            if faults.borrow().is_empty() {
                return Ok(config);
            }
            faults.take()
        }
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            vec![Fault {
                at,
                message: format!("this is not TOML: {}", error.message()),
            }]
        }
    };
    faults.sort_by_key(|fault| fault.at);
    let wrong = faults.into_iter().map(|fault| {
        let (line, column) = position(text, fault.at);
        Wrong {
            file: file.to_owned(),
            line,
            column,
            message: fault.message,
        }
    });
    Err(ConfigError::Wrong(wrong.collect()))
}

fn config(top: &mut Section<'_>) -> Config {
    let default = Config::default();
    let config = Config {
        mode: top.word("mode", &MODES, default.mode),
        ports: ports(top).unwrap_or(default.ports),
        attach: top.section("attach", |section| attach(section, default.attach)),
        breaker: top.section("breaker", |section| breaker(section, default.breaker)),
        answer: top.section("answer", |section| answer(section, default.answer)),
        lease: top.section("lease", |section| {
            Duration::from_secs(
                section
                    .integer("seconds", 5..=300, default.lease.as_secs() as u32)
                    .into(),
            )
        }),
        metrics: top.section("metrics", |section| metrics(section, default.metrics)),
    };
    top.refuse_the_rest();
    config
}

fn ports(top: &mut Section<'_>) -> Option<Vec<u16>> {
    let ports = top.integers("ports", 1..=65_535)?;
    top.refuse_empty("ports", "one port or more, such as [53]");
    // The range has been checked.
    Some(ports.into_iter().map(|port| port as u16).collect())
}

fn attach(section: &mut Section<'_>, default: Attach) -> Attach {
    let interfaces = section.texts("interfaces", interface_name);
    section.refuse_empty("interfaces", "one name or more, such as [\"lo\"]");
    let xdp = [
        ("auto", Xdp::Auto),
        ("driver", Xdp::Driver),
        ("generic", Xdp::Generic),
        ("off", Xdp::Off),
    ];
    let tc = [("auto", Tc::Auto), ("tcx", Tc::Tcx), ("clsact", Tc::Clsact)];
    Attach {
        interfaces: interfaces.unwrap_or(default.interfaces),
        xdp: section.word("xdp", &xdp, default.xdp),
        tc: section.word("tc", &tc, default.tc),
        pin_dir: section.text("pin_dir", pin_dir).unwrap_or(default.pin_dir),
    }
}

fn breaker(section: &mut Section<'_>, default: Breaker) -> Breaker {
    let breaker = Breaker {
        hold_ms: section.integer("hold_ms", HOLD_MS, default.hold_ms),
        hold_max_ms: section.integer("hold_max_ms", HOLD_MS, default.hold_max_ms),
        test_ms: section.integer("test_ms", 100..=60_000, default.test_ms),
    };
    if breaker.hold_ms > breaker.hold_max_ms {
        let Breaker {
            hold_ms, hold_max_ms, ..
        } = breaker;
        section.refuse(
            "hold_max_ms",
            &format!("is {hold_max_ms}; allowed: not less than hold_ms, which is {hold_ms}"),
        );
    }
    breaker
}

fn answer(section: &mut Section<'_>, default: Answer) -> Answer {
    let actions = [("answer", Action::Answer), ("drop", Action::Drop)];
    let rcodes = [Rcode::ServFail, Rcode::Refused, Rcode::NxDomain].map(|rcode| (rcode.word(), rcode));
    let answer = Answer {
        action: section.word("action", &actions, default.action),
        rcode: section.word("rcode", &rcodes, default.rcode),
        per_client: section.integer("per_client", 0..=65_535, default.per_client),
        per_hold: section.integer("per_hold", 0..=65_535, default.per_hold),
        trusted: section.texts("trusted", str::parse).unwrap_or(default.trusted),
    };
    if answer.trusted.len() > MAX_TRUSTED {
        let count = answer.trusted.len();
        section.refuse(
            "trusted",
            &format!("has {count} ranges; allowed: {MAX_TRUSTED} at most, so merge some"),
        );
    }
    answer
}

fn metrics(section: &mut Section<'_>, default: Metrics) -> Metrics {
    Metrics {
        listen: section.text("listen", listen).unwrap_or(default.listen),
        top: section.integer("top", 0..=100, default.top as u32) as usize,
    }
}

fn listen(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = "address and port such as \"127.0.0.1:9533\" or \"[::1]:9533\", or \"\" to switch it off";
    text.parse().map(Some).map_err(|_| allowed.to_owned())
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// The list, one a line.
struct Faults<'a>(&'a [Wrong]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, wrong) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use guard_common::policy::Mode;

    use super::*;

    fn error(text: &str) -> String {
        parse("dnsguard.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_template_shows_every_default() {
        let template = include_str!("../../dnsguard.example.toml");
        assert_eq!(parse("dnsguard.example.toml", template).unwrap(), Config::default());
        // A key that the template left out would have its default as well.
        let keys = template
            .lines()
            .filter(|line| line.contains(" = ") && !line.starts_with('#'))
            .count();
        assert_eq!(keys, 17);
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("dnsguard.toml", "").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = "mode = 'enforce'\nports = [53, 8600]\n\
            [attach]\ninterfaces = ['eth0']\nxdp = 'driver'\ntc = 'clsact'\npin_dir = '/sys/fs/bpf/x'\n\
            [breaker]\nhold_ms = 500\nhold_max_ms = 0x1000\ntest_ms = 1_000\n\
            [answer]\naction = 'drop'\nrcode = 'NXDOMAIN'\nper_client = 1\nper_hold = 2\ntrusted = ['10.0.0.0/8']\n\
            [lease]\nseconds = 5\n[metrics]\nlisten = ''\ntop = 3\n";
        let expected = Config {
            mode: Mode::Enforce,
            ports: vec![53, 8_600],
            attach: Attach {
                interfaces: vec!["eth0".to_owned()],
                xdp: Xdp::Driver,
                tc: Tc::Clsact,
                pin_dir: PathBuf::from("/sys/fs/bpf/x"),
            },
            breaker: Breaker {
                hold_ms: 500,
                hold_max_ms: 4_096,
                test_ms: 1_000,
            },
            answer: Answer {
                action: Action::Drop,
                rcode: Rcode::NxDomain,
                per_client: 1,
                per_hold: 2,
                trusted: vec!["10.0.0.0/8".parse().unwrap()],
            },
            lease: Duration::from_secs(5),
            metrics: Metrics { listen: None, top: 3 },
        };
        assert_eq!(parse("dnsguard.toml", text).unwrap(), expected);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_allowed_ones() {
        assert_eq!(
            error("mode = 'observe'\n\n\n\n\n[attach]\ninterfces = ['lo']\n"),
            "dnsguard.toml:7:1: unknown key 'interfces' in [attach]; allowed: interfaces, xdp, tc, pin_dir"
        );
        assert_eq!(
            error("[brake]\n"),
            "dnsguard.toml:1:2: unknown key 'brake' at the top level; \
             allowed: mode, ports, attach, breaker, answer, lease, metrics"
        );
    }

    #[test]
    fn a_bad_value_is_shown_with_what_is_allowed() {
        let listen = "address and port such as \"127.0.0.1:9533\" or \"[::1]:9533\", or \"\" to switch it off";
        let name = "1 to 15 bytes, no '/', ':' or space, as 'ip link' shows it";
        let pin_dir = "an absolute path below a BPF file system, such as /sys/fs/bpf/dnsguard";
        for (text, expected) in [
            (
                "mode = 'enforced'",
                "1:8: mode is 'enforced'; allowed: observe, enforce".to_owned(),
            ),
            ("mode = 1", "1:8: mode is 1; allowed: observe, enforce".to_owned()),
            ("ports = 53", "1:9: ports is 53; allowed: a list of integers".to_owned()),
            (
                "ports = []",
                "1:9: ports is empty; allowed: one port or more, such as [53]".to_owned(),
            ),
            (
                "ports = [53, 0]",
                "1:14: ports is 0; allowed: an integer, 1 to 65535".to_owned(),
            ),
            (
                "ports = [70000]",
                "1:10: ports is 70000; allowed: an integer, 1 to 65535".to_owned(),
            ),
            (
                "ports = [-1]",
                "1:10: ports is -1; allowed: an integer, 1 to 65535".to_owned(),
            ),
            ("ports = [53, 53]", "1:14: ports has 53 twice; allowed: once".to_owned()),
            ("attach = 1", "1:10: attach is 1; allowed: a table, [attach]".to_owned()),
            (
                "[attach]\ninterfaces = ['a b']",
                format!("2:15: [attach] interfaces is 'a b'; allowed: {name}"),
            ),
            (
                "[attach]\ninterfaces = [7]",
                format!("2:15: [attach] interfaces is 7; allowed: {name}"),
            ),
            (
                "[attach]\npin_dir = 'x'",
                format!("2:11: [attach] pin_dir is 'x'; allowed: {pin_dir}"),
            ),
            (
                "[breaker]\nhold_ms = 0",
                "2:11: [breaker] hold_ms is 0; allowed: an integer, 100 to 300000".to_owned(),
            ),
            (
                "[lease]\nseconds = 1.5",
                "2:11: [lease] seconds is 1.5; allowed: an integer, 5 to 300".to_owned(),
            ),
            (
                "[lease]\nseconds = 301",
                "2:11: [lease] seconds is 301; allowed: an integer, 5 to 300".to_owned(),
            ),
            (
                "[breaker]\nhold_ms = 5000\nhold_max_ms = 4000",
                "3:15: [breaker] hold_max_ms is 4000; allowed: not less than hold_ms, which is 5000".to_owned(),
            ),
            (
                "[answer]\ntrusted = ['10.1.0.0/8']",
                "2:12: [answer] trusted is '10.1.0.0/8'; allowed: no bits behind the prefix length: 10.0.0.0/8"
                    .to_owned(),
            ),
            (
                "[metrics]\nlisten = 'localhost'",
                format!("2:10: [metrics] listen is 'localhost'; allowed: {listen}"),
            ),
        ] {
            assert_eq!(error(text), format!("dnsguard.toml:{expected}"));
        }
    }

    #[test]
    fn more_ranges_than_the_kernel_has_room_for_are_refused() {
        let ranges: Vec<_> = (0..33).map(|number| format!("'10.{number}.0.0/16'")).collect();
        let text = format!("[answer]\ntrusted = [{}]", ranges.join(", "));
        let expected = "dnsguard.toml:2:11: [answer] trusted has 33 ranges; allowed: 32 at most, so merge some";
        assert_eq!(error(&text), expected);
    }

    #[test]
    fn all_faults_are_shown_in_the_order_of_the_file() {
        let shown = error("ports = [0]\nmodes = 'x'\n[lease]\nseconds = 1\n");
        let places: Vec<_> = shown.lines().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            places,
            ["dnsguard.toml:1:10", "dnsguard.toml:2:1", "dnsguard.toml:4:11"]
        );
    }

    #[test]
    fn what_is_not_toml_is_located() {
        let shown = error("mode = 'observe'\nports = [53\n[lease]\n");
        assert!(
            shown.starts_with("dnsguard.toml:3:") || shown.starts_with("dnsguard.toml:2:"),
            "{shown}"
        );
        assert!(shown.contains("this is not TOML: "), "{shown}");
        assert!(error("mode = 'observe'\nmode = 'enforce'\n").starts_with("dnsguard.toml:2:1: this is not TOML: "));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("é = 1\nüü = 2", "é = 1\nüü".len()), (2, 3));
    }

    #[test]
    fn a_missing_file_is_named() {
        let shown = Config::load(Path::new("/nonexistent/dnsguard.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            shown.starts_with("cannot read /nonexistent/dnsguard.toml: No such file or directory"),
            "{shown}"
        );
    }
}
