//! From the text of a configuration file to a [`Config`], or to a list of everything that is wrong with it.

use std::{
    cell::RefCell,
    fmt, fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use guard_common::policy::{Action, MAX_ALLOWED, MAX_RANGES, MAX_TRUSTED};
use thiserror::Error;
use toml::de::DeTable;

use super::{
    AT_STOP, Answer, Attach, Breaker, Cidr, Config, Control, DEFAULT_SOCKET, LinkLocal, MODES, Metrics, Namespaces,
    Page, PodSource, Pods, Probe, Rcode, Tc, TcxOrder, Xdp,
    budget::{self, Placed, Stated},
    hygiene, pin_dir,
    section::{Fault, Section},
};
use crate::{
    name::Name,
    question::Question,
    selection::{PRESETS, Pattern, Selection},
};

/// What stands for all namespaces with a resolver in them.
const AUTO: &str = "auto";

/// Milliseconds of a hold: RFC 9520 section 3.2 allows to remember a failure for 300 s at most.
const HOLD_MS: std::ops::RangeInclusive<u32> = 100..=300_000;

/// Says of an interface of the link-local preset, and of the VPC that the operator gave it, why the services cannot be
/// found there and what to do, if they cannot.
pub(crate) type Live<'h> = &'h dyn Fn(&str, Option<(Ipv4Addr, u8)>) -> Result<(), String>;

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

impl Wrong {
    /// What is wrong, and what is allowed, without the place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

pub(super) fn load(path: &Path) -> Result<Config, ConfigError> {
    read(path, None)
}

/// The same, with the interfaces that budgets name checked against the host. An agent does that when it has its flags.
pub(super) fn check(path: &Path, live: Live<'_>) -> Result<Config, ConfigError> {
    read(path, Some(live))
}

fn read(path: &Path, live: Option<Live<'_>>) -> Result<Config, ConfigError> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        file: file.clone(),
        source,
    })?;
    parse(&file, &text, live)
}

/// Reads the text of the file with this name.
pub(super) fn parse(file: &str, text: &str, live: Option<Live<'_>>) -> Result<Config, ConfigError> {
    let mut faults = match DeTable::parse(text) {
        Ok(table) => {
            let faults = RefCell::default();
            let config = config(&mut Section::top(table.get_ref(), &faults), live);
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

fn config(top: &mut Section<'_>, live: Option<Live<'_>>) -> Config {
    let default = Config::default();
    let mode = top.word("mode", &MODES, default.mode);
    let marks = top.truth("marks", default.marks);
    let observe_marks = top.truth("observe_marks", default.observe_marks);
    let ports = ports(top).unwrap_or(default.ports);
    let faults = top.fault_count();
    let attach = top.section("attach", |section| attach(section, default.attach));
    let attach_is_right = top.fault_count() == faults;
    let mut config = Config {
        mode,
        marks,
        observe_marks,
        ports,
        attach,
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
        page: top.section("page", |section| Page {
            listen: section
                .text("listen", listen_on_loopback)
                .unwrap_or(default.page.listen),
        }),
        ..default
    };
    let placed = budget::budgets(top, &config.attach);
    let (hygiene, ranges) = top.section("hygiene", hygiene::hygiene);
    config.hygiene = hygiene;
    config.search_suffixes = top.section("search", |section| {
        section.texts("suffixes", suffix).unwrap_or_default()
    });
    config.probe = top.section("probe", |section| Probe {
        except: section.texts("except", Cidr::or_address).unwrap_or_default(),
    });
    config.control = top.section("control", |section| Control {
        socket: section.text("socket", socket).unwrap_or(config.control.socket),
        group: section.text("group", group).unwrap_or(config.control.group),
    });
    config.pods = top.section("pods", pods);
    config.allow = top.texts("allow", Question::parse).unwrap_or_default();
    if config.allow.len() > MAX_ALLOWED {
        let count = config.allow.len();
        top.refuse(
            "allow",
            &format!("has {count} names and types; allowed: {MAX_ALLOWED} at most"),
        );
    }
    refuse_ranges_without_room(top, &placed, ranges);
    if let Some(live) = live.filter(|_| attach_is_right) {
        refuse_interfaces(top, &config.attach, &placed, live);
    }
    for placed in placed {
        match placed.stated {
            Stated::Budget(budget) => config.budgets.push(budget),
            Stated::LinkLocal(link_local) => config.link_local = Some(link_local),
        }
    }
    top.refuse_the_rest();
    config
}

/// Notes the list with which the kernel's table of ranges runs over. What "own" stands for is counted as one.
fn refuse_ranges_without_room(top: &Section<'_>, placed: &[Placed], mut ranges: Vec<(usize, usize)>) {
    ranges.extend(placed.iter().filter_map(|placed| match &placed.stated {
        Stated::Budget(budget) => Some((placed.destinations_at, budget.filter.destinations.len())),
        Stated::LinkLocal(_) => None,
    }));
    ranges.sort_unstable();
    let mut running = 0;
    let last = ranges.iter().find(|(_, length)| {
        running += length;
        running > MAX_RANGES
    });
    if let Some((at, _)) = last {
        let all: usize = ranges.iter().map(|(_, length)| length).sum();
        top.refuse_at(
            *at,
            format!("budgets and hygiene name {all} address ranges; allowed: {MAX_RANGES} at most, so merge some"),
        );
    }
}

/// Notes interfaces of budgets that are not guarded, or that lead to no link-local services.
fn refuse_interfaces(top: &Section<'_>, attach: &Attach, placed: &[Placed], live: Live<'_>) {
    for placed in placed {
        let named = match &placed.stated {
            Stated::Budget(budget) => &budget.filter.interfaces,
            Stated::LinkLocal(link_local) => &link_local.interfaces,
        };
        let strangers = named.iter().filter(|name| !attach.selection.may_choose(name));
        let strangers: Vec<_> = strangers.map(String::as_str).collect();
        if !strangers.is_empty() {
            top.refuse_at(
                placed.interfaces_at,
                format!(
                    "[[budget]] interfaces has {}, which [attach] interfaces has not; allowed: those it has, {}",
                    strangers.join(", "),
                    attach.selection.words()
                ),
            );
        }
        if let Stated::LinkLocal(link_local) = &placed.stated {
            refuse_without_services(top, attach, placed.interfaces_at, link_local, live);
        }
    }
}

fn refuse_without_services(top: &Section<'_>, attach: &Attach, at: usize, link_local: &LinkLocal, live: Live<'_>) {
    let preset = LinkLocal::NAME;
    let mut interfaces = link_local.interfaces(attach).peekable();
    if interfaces.peek().is_none() && attach.selection.is_closed() {
        top.refuse_at(
            at,
            format!(
                "preset '{preset}' has no interface, because [attach] interfaces has only lo; allowed: one that leads \
                 to the VPC, such as \"ens5\", in [attach] interfaces"
            ),
        );
    }
    for reason in interfaces.filter_map(|interface| live(interface, link_local.vpc).err()) {
        top.refuse_at(at, format!("preset '{preset}': {reason}"));
    }
}

/// What it reads, a search list reads as well.
fn suffix(text: &str) -> Result<String, String> {
    match Name::parse(text) {
        Some(_) => Ok(format!("{}.", text.trim_end_matches('.').to_ascii_lowercase())),
        None => Err("a name such as svc.cluster.local".to_owned()),
    }
}

fn ports(top: &mut Section<'_>) -> Option<Vec<u16>> {
    let ports = top.integers("ports", 1..=65_535)?;
    top.refuse_empty("ports", "one port or more, such as [53]");
    // The range has been checked.
    Some(ports.into_iter().map(|port| port as u16).collect())
}

fn attach(section: &mut Section<'_>, default: Attach) -> Attach {
    let interfaces = section.texts("interfaces", Pattern::parse);
    section.refuse_empty("interfaces", "one name or more, such as [\"lo\"]");
    let presets = [("", None)]
        .into_iter()
        .chain(PRESETS.map(|(word, preset)| (word, Some(preset))));
    let presets: Vec<_> = presets.collect();
    let xdp = [
        ("auto", Xdp::Auto),
        ("driver", Xdp::Driver),
        ("generic", Xdp::Generic),
        ("off", Xdp::Off),
    ];
    let tc = [("auto", Tc::Auto), ("tcx", Tc::Tcx), ("clsact", Tc::Clsact)];
    let tcx_order = [("first", TcxOrder::First), ("last", TcxOrder::Last)];
    Attach {
        selection: Selection {
            include: interfaces.unwrap_or(default.selection.include),
            exclude: section.texts("exclude", Pattern::parse).unwrap_or_default(),
            preset: section.word("preset", &presets, default.selection.preset),
        },
        namespaces: namespaces(section.texts("namespaces", namespace).unwrap_or_default()),
        xdp: section.word("xdp", &xdp, default.xdp),
        tc: section.word("tc", &tc, default.tc),
        tcx_order: section.word("tcx_order", &tcx_order, default.tcx_order),
        pin_dir: section.text("pin_dir", pin_dir).unwrap_or(default.pin_dir),
        at_stop: section.word("at_stop", &AT_STOP, default.at_stop),
    }
}

/// `auto`, or the path of a namespace.
fn namespace(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text == AUTO || path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("\"auto\" for those with a resolver in them, or an absolute path such as \"/run/netns/blue\"".to_owned())
    }
}

fn namespaces(listed: Vec<PathBuf>) -> Namespaces {
    let (autos, paths): (Vec<_>, Vec<_>) = listed.into_iter().partition(|path| path == Path::new(AUTO));
    Namespaces {
        resolvers: !autos.is_empty(),
        paths,
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

/// Whoever reaches the page sees all names that are asked for: nobody but this host does.
fn listen_on_loopback(text: &str) -> Result<Option<SocketAddr>, String> {
    let allowed = "address and port of this host alone, such as \"127.0.0.1:9534\" or \"[::1]:9534\", or \"\" to switch \
                   it off";
    match listen(text) {
        Ok(address) if address.is_none_or(|address| address.ip().is_loopback()) => Ok(address),
        _ => Err(allowed.to_owned()),
    }
}

fn socket(text: &str) -> Result<Option<PathBuf>, String> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        // `sun_path` (include/uapi/linux/un.h) has 108 bytes, one of them for the end.
        path if path.is_absolute() && text.len() < 108 => Ok(Some(path.to_owned())),
        _ => Err(format!(
            "an absolute path of 107 bytes at most, such as \"{DEFAULT_SOCKET}\", or \"\" to switch it off"
        )),
    }
}

fn pods(section: &mut Section<'_>) -> Pods {
    let sources = [("off", PodSource::Off), ("cri", PodSource::Cri)];
    Pods {
        source: section.word("source", &sources, PodSource::Off),
        socket: section.text("socket", runtime_socket).unwrap_or_default(),
    }
}

fn runtime_socket(text: &str) -> Result<Option<PathBuf>, String> {
    let allowed = "an absolute path of 107 bytes at most, such as \"/run/containerd/containerd.sock\", or \"\" to try \
                   those of containerd, CRI-O and k3s";
    socket(text).map_err(|_| allowed.to_owned())
}

fn group(text: &str) -> Result<Option<String>, String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    match text {
        "" => Ok(None),
        _ if text.chars().all(is_plain) => Ok(Some(text.to_owned())),
        _ => Err("the name of a group, as in /etc/group, or \"\" for none".to_owned()),
    }
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
mod tests;
