//! What the operator wants: the configuration file, with the flags of the command line on top.
//!
//! A [`Config`] is right by construction: it comes from the defaults or from a file that was checked whole, and the
//! flags are checked by the same functions. Nothing in it needs checking again.

mod budget;
mod cidr;
mod edit;
mod file;
mod hygiene;
mod limit;
mod listing;
mod policy;
mod section;
mod zone;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use guard_common::policy::{Action, Mode};

use crate::{
    question::Question,
    selection::{PRESETS, Pattern, Preset, Selection},
};

pub(crate) use self::{
    budget::{Budget, LinkLocal, Sharing},
    cidr::Cidr,
    edit::{EditError, Edits, has_key},
    file::{ConfigError, Live},
    hygiene::Hygiene,
    policy::{BudgetRow, Compiled},
    zone::Zone,
};

/// Where maps and links are pinned unless the operator says otherwise.
pub(crate) const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/dnsguard";

/// Where commands are taken unless the operator says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/dnsguard/control.sock";

/// What can become of the guard at a stop, and the words for it.
pub(crate) const AT_STOP: [(&str, AtStop); 2] = [
    (AtStop::Detach.word(), AtStop::Detach),
    (AtStop::Stay.word(), AtStop::Stay),
];

/// The modes and their words.
pub(crate) const MODES: [(&str, Mode); 2] = [("observe", Mode::Observe), ("enforce", Mode::Enforce)];

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Watch, or act.
    pub(crate) mode: Mode,
    /// Whether suspect queries are marked in enforce mode.
    pub(crate) marks: bool,
    /// Whether they are in observe mode.
    pub(crate) observe_marks: bool,
    /// Ports on which DNS is spoken.
    pub(crate) ports: Vec<u16>,
    /// Where and how programs are attached.
    pub(crate) attach: Attach,
    /// The times of the breaker.
    pub(crate) breaker: Breaker,
    /// What a held query gets.
    pub(crate) answer: Answer,
    /// How long the kernel goes on without a word from the agent: whole seconds, 5 to 300.
    pub(crate) lease: Duration,
    /// The metrics endpoint.
    pub(crate) metrics: Metrics,
    /// The page for a browser.
    pub(crate) page: Page,
    /// Limits, each of a name of its own; what they compile to has room in the kernel.
    pub(crate) budgets: Vec<Budget>,
    /// The limit on what each interface sends to link-local services.
    pub(crate) link_local: Option<LinkLocal>,
    /// Where DNS may go, where it may come from, and who is given recursion.
    pub(crate) hygiene: Hygiene,
    /// Search-list suffixes beside those that are found: in lower case, with their final dots.
    pub(crate) search_suffixes: Vec<String>,
    /// What the probe leaves alone.
    pub(crate) probe: Probe,
    /// Where commands are taken.
    pub(crate) control: Control,
    /// Who says which pod has an address.
    pub(crate) pods: Pods,
    /// Names and types that are only watched, whatever the mode: at most [`guard_common::policy::MAX_ALLOWED`].
    pub(crate) allow: Vec<Question>,
}

/// Where commands are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// Absolute path of the socket; `None` switches it off.
    pub(crate) socket: Option<PathBuf>,
    /// The group whose members may give commands, beside root.
    pub(crate) group: Option<String>,
}

/// Who says which pod has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pods {
    /// Who is asked.
    pub(crate) source: PodSource,
    /// Absolute path of its socket; `None` means where runtimes have it.
    pub(crate) socket: Option<PathBuf>,
}

/// Who is asked for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PodSource {
    /// Nobody.
    #[default]
    Off,
    /// The container runtime, by the Container Runtime Interface.
    Cri,
}

/// What the probe leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Servers at these addresses are sent nothing.
    pub(crate) except: Vec<Cidr>,
}

/// Network namespaces beside the agent's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Those in which somebody listens on a port of DNS.
    pub(crate) resolvers: bool,
    /// Those at these absolute paths, such as `/run/netns/blue`.
    pub(crate) paths: Vec<PathBuf>,
}

impl Namespaces {
    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        !self.resolvers && self.paths.is_empty()
    }
}

/// Where and how programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attach {
    /// Which interfaces.
    pub(crate) selection: Selection,
    /// Network namespaces beside the agent's own in which `lo` is guarded.
    pub(crate) namespaces: Namespaces,
    /// XDP, for packets that come in.
    pub(crate) xdp: Xdp,
    /// TC, where XDP is not.
    pub(crate) tc: Tc,
    /// The place in a chain of tcx.
    pub(crate) tcx_order: TcxOrder,
    /// Absolute path of the directory for pinned maps and links.
    pub(crate) pin_dir: PathBuf,
    /// What becomes of all that when the agent is told to stop.
    pub(crate) at_stop: AtStop,
}

/// What becomes of the guard in the kernel when the agent is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtStop {
    /// It is taken out.
    Detach,
    /// It stays in force for a last lease, for the next agent to take over.
    Stay,
}

impl AtStop {
    /// Its word in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Detach => "detach",
            Self::Stay => "stay",
        }
    }
}

/// Which kind of XDP is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Xdp {
    /// On physical interfaces the best that works: driver, generic, else TC. On others TC.
    Auto,
    /// In the driver, else fail.
    Driver,
    /// In the generic receive path, else fail.
    Generic,
    /// Never.
    Off,
}

/// Which kind of TC attachment is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tc {
    /// The best that works: tcx, clsact.
    Auto,
    /// A tcx link, else fail.
    Tcx,
    /// A filter at the clsact qdisc, else fail.
    Clsact,
}

/// The place of our programs in a chain of tcx, among those that hang there when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcxOrder {
    /// Before all others.
    First,
    /// After all others: what one of them redirects or drops is not seen.
    Last,
}

/// The times of the breaker, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breaker {
    /// The first hold.
    pub(crate) hold_ms: u32,
    /// The longest hold; not shorter than the first.
    pub(crate) hold_max_ms: u32,
    /// What the query that is let through after a hold has to get its answer.
    pub(crate) test_ms: u32,
}

/// What a held query gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// An answer, or silence.
    pub(crate) action: Action,
    /// The RCODE of an answer.
    pub(crate) rcode: Rcode,
    /// Answers that one client gets for a key in one hold.
    pub(crate) per_client: u32,
    /// Answers that all clients together get for a key in one hold.
    pub(crate) per_hold: u32,
    /// Ranges that get answers, at most [`guard_common::policy::MAX_TRUSTED`].
    pub(crate) trusted: Vec<Cidr>,
}

/// The RCODE of an answer (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    /// 2: the client may ask another server.
    ServFail,
    /// 3: the name does not exist.
    NxDomain,
    /// 5: this server does not want to.
    Refused,
}

/// The metrics endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// Where it listens; `None` switches it off.
    pub(crate) listen: Option<SocketAddr>,
    /// Looped names that have a series of their own.
    pub(crate) top: usize,
}

/// The page for a browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Where it listens, an address of the loopback interface; `None` switches it off.
    pub(crate) listen: Option<SocketAddr>,
}

impl Config {
    /// Reads a file and checks it whole.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        file::load(path)
    }

    /// Reads the text of the file with this name and checks it whole.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        file::parse(file, text, None)
    }

    /// Reads a file and checks it whole, and against the host as far as it names interfaces.
    pub(crate) fn check(path: &Path, live: Live<'_>) -> Result<Self, ConfigError> {
        file::check(path, live)
    }

    /// Whether a budget or a rule of hygiene is about the interface of this name.
    pub(crate) fn limits_at(&self, device: &str) -> bool {
        self.limited_interfaces().any(|name| name == device)
    }

    /// Whether any budget or rule of hygiene is about certain interfaces.
    pub(crate) fn names_interfaces(&self) -> bool {
        self.limited_interfaces().next().is_some()
    }

    /// The interfaces that budgets and rules of hygiene are about by name.
    fn limited_interfaces(&self) -> impl Iterator<Item = &String> {
        let budgets = self.budgets.iter().flat_map(|budget| &budget.filter.interfaces);
        budgets.chain(&self.hygiene.interfaces)
    }

    /// A line for each budget and one for the rules of hygiene, if there are any.
    pub(crate) fn limits(&self) -> impl Iterator<Item = String> {
        let link_local = self.link_local.iter().map(LinkLocal::to_string);
        let budgets = self.budgets.iter().map(Budget::to_string);
        let hygiene = (!self.hygiene.is_empty()).then(|| self.hygiene.to_string());
        link_local.chain(budgets).chain(hygiene)
    }
}

impl Default for Config {
    fn default() -> Self {
        const TRUSTED: [([u16; 8], u8); 8] = [
            ([0, 0, 0, 0, 0, 0xffff, 0x7f00, 0], 96 + 8),
            ([0, 0, 0, 0, 0, 0, 0, 1], 128),
            ([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0], 96 + 8),
            ([0, 0, 0, 0, 0, 0xffff, 0xac10, 0], 96 + 12),
            ([0, 0, 0, 0, 0, 0xffff, 0xc0a8, 0], 96 + 16),
            ([0, 0, 0, 0, 0, 0xffff, 0xa9fe, 0], 96 + 16),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
            ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
        ];
        Self {
            mode: Mode::Observe,
            marks: true,
            observe_marks: false,
            ports: vec![53],
            attach: Attach {
                selection: Selection {
                    include: vec![Pattern::literal("lo")],
                    exclude: Vec::new(),
                    preset: None,
                },
                namespaces: Namespaces::default(),
                xdp: Xdp::Auto,
                tc: Tc::Auto,
                tcx_order: TcxOrder::First,
                pin_dir: PathBuf::from(DEFAULT_PIN_DIR),
                at_stop: AtStop::Detach,
            },
            breaker: Breaker {
                hold_ms: 1_000,
                hold_max_ms: 300_000,
                test_ms: 2_000,
            },
            answer: Answer {
                action: Action::Answer,
                rcode: Rcode::ServFail,
                per_client: 16,
                per_hold: 256,
                trusted: TRUSTED.map(|(words, bits)| Cidr::mapped(words.into(), bits)).to_vec(),
            },
            lease: Duration::from_secs(30),
            metrics: Metrics {
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 9_533))),
                top: 20,
            },
            page: Page::default(),
            budgets: Vec::new(),
            link_local: None,
            hygiene: Hygiene::default(),
            search_suffixes: Vec::new(),
            probe: Probe::default(),
            control: Control {
                socket: Some(PathBuf::from(DEFAULT_SOCKET)),
                group: None,
            },
            pods: Pods::default(),
            allow: Vec::new(),
        }
    }
}

/// One line for `check-config` and for the log.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        let remedy = match self.answer.action {
            Action::Answer => self.answer.rcode.word(),
            Action::Drop => "silence",
        };
        write!(
            f,
            "{} on {}, port {}; held queries get {remedy}, for {} ms up to {} ms; lease {} s; metrics ",
            mode_word(self.mode),
            self.attach.selection.words(),
            ports.join(", "),
            self.breaker.hold_ms,
            self.breaker.hold_max_ms,
            self.lease.as_secs(),
        )?;
        match self.metrics.listen {
            Some(listen) => write!(f, "at http://{listen}/metrics")?,
            None => f.write_str("off")?,
        }
        match self.page.listen {
            Some(listen) => write!(f, "; page at http://{listen}/"),
            None => Ok(()),
        }
    }
}

impl Rcode {
    /// Its number on the wire.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::Refused => 5,
        }
    }

    /// Its name in the registry of RCODEs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::Refused => "REFUSED",
        }
    }
}

/// The word of a mode in configuration, events and metrics.
pub(crate) const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Enforce => "enforce",
    }
}

/// Reads the word of a mode on the command line.
pub(crate) fn mode_parser() -> impl TypedValueParser<Value = Mode> {
    word_parser(&MODES)
}

/// Reads the word for what becomes of the guard at a stop on the command line.
pub(crate) fn at_stop_parser() -> impl TypedValueParser<Value = AtStop> {
    word_parser(&AT_STOP)
}

/// Reads the word of a preset on the command line.
pub(crate) fn preset_parser() -> impl TypedValueParser<Value = Preset> {
    word_parser(&PRESETS)
}

/// Reads one of these words on the command line.
fn word_parser<T: Copy + Send + Sync>(words: &'static [(&str, T)]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word)).map(|word| {
        let found = words.iter().find(|(known, _)| *known == word);
        found.expect("nothing but one of the words comes through").1
    })
}

/// Reads the path of the pin directory.
pub(crate) fn pin_dir(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let is_plain = path.is_absolute() && path.components().all(|part| part != std::path::Component::ParentDir);
    if is_plain && path.parent().is_some() {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "an absolute path below a BPF file system, such as {DEFAULT_PIN_DIR}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        assert_eq!(
            Config::default().to_string(),
            "observe on lo, port 53; held queries get SERVFAIL, for 1000 ms up to 300000 ms; lease 30 s; \
             metrics at http://127.0.0.1:9533/metrics"
        );
    }

    #[test]
    fn the_pin_dir_is_below_something() {
        assert!(pin_dir("/sys/fs/bpf/x").is_ok());
        for bad in ["", "/", "x", "/sys/fs/bpf/../x"] {
            assert!(pin_dir(bad).is_err(), "{bad}");
        }
    }
}
