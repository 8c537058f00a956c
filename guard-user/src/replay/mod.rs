//! `dnsguard replay`: the same judge over a capture, with the capture's clock.
//!
//! ```text
//! capture (records) -> link (Ethernet frames) -> devices (interface, direction) -> judge -> report
//!                                                                           clock -'   '-> tally -> summary
//! ```
//!
//! Nothing in it looks at this host or at its clock: the same capture and configuration give the same output, to the byte.

mod capture;
mod clock;
mod devices;
mod judge;
mod link;
mod progress;
mod report;
mod summary;
mod tally;

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use guard_common::policy::Mode;

use self::{
    capture::Capture,
    devices::{Devices, Given, Local},
    judge::Judge,
    progress::Progress,
    report::Report,
    summary::Summary,
};
use crate::{
    config::{self, Config, LinkLocal},
    exit,
    facts::Facts,
    host::Host,
    link_local,
    print::{self, Format},
    selection::Pattern,
};

/// What it is, for its help.
pub(crate) const ABOUT: &str = "\
Judge a capture as the guard would have, with the clock of the capture, and tell what it would have done.

It reads pcap and pcapng (tcpdump, Wireshark): Ethernet with VLAN tags, loopback, raw IP and Linux cooked captures, and \
touches nothing. Events are those of 'dnsguard run', with the number of the frame, as Wireshark counts them.

A capture cannot be changed. Queries are not marked, so a loop is told by what it looks like, and is suspected at most, \
where the guard itself would have proven it. What the guard would have answered or dropped is followed by what really \
followed; in enforce mode, counts after the first verdict are higher than they would have been. Unless a budget needs \
more, the guard goes by the clock of the kernel's last tick, some 4 ms ago, and the replay by that of each packet: where a \
tick falls into the first hops of a loop, the guard itself needs a few hops more.

Interfaces are those that the capture names (pcapng), else those of --interface; 'tcpdump -i any' writes indexes, as \
'ip link' shows them, and --interface 2=eth0 names them. Without it, what looks like loopback is at lo, and the rest at the only other interface that the configuration guards, if there is just one. Every interface \
of the capture is judged, whether the configuration guards it or not. Direction comes from the capture where it has it \
(Linux cooked, pcapng), else from --local; packets of which nobody knows come in.";

/// Examples, for its help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard replay night.pcap                                          what would the defaults have done?
  dnsguard replay --config new.toml --mode enforce night.pcap         and this policy?
  dnsguard replay --interface eth0 --local 10.0.1.5 eth0.pcap         a capture of a NIC: which way did packets go?
  tcpdump -i any -s 0 -U -w - port 53 | dnsguard replay -             as it is captured
  dnsguard replay -o jsonl night.pcap | jq 'select(.event == \"trip\")'";

/// Exit codes, for its help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  no loop, and no budget exceeded
  1  the capture cannot be read, or not to its end: what could be read was judged
  2  bad usage or bad configuration: nothing was read
  3  the guard would have held or shed queries, or would have said that it would";

/// `dnsguard replay`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Capture, pcap or pcapng; - is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Configuration file (TOML). Without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// observe: tell what would be answered or dropped; enforce: judge as if it was. Wins over the file.
    #[arg(long, value_name = "MODE", value_parser = config::mode_parser())]
    mode: Option<Mode>,
    /// Interface that the capture is of, where the capture does not name it, or the one of an index that it has; counts as
    /// guarded. Can be given several times.
    #[arg(long = "interface", value_name = "[INDEX=]NAME", value_parser = Given::parse)]
    interfaces: Vec<Given>,
    /// Address or range of the captured host: packets from there go out. Can be given several times.
    #[arg(long = "local", value_name = "ADDR[/LEN]", value_parser = Local::parse)]
    locals: Vec<Local>,
    /// Lines for people, one JSON document, or JSON lines.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Replays a capture and prints what came of it.
pub(crate) fn replay(args: Args) -> ExitCode {
    let config = match args.config.as_deref().map(Config::load) {
        Some(Ok(config)) => config,
        Some(Err(error)) => return crate::bad_configuration(&error),
        None => Config::default(),
    };
    let config = adapted(config, &args);
    let out = anstream::stdout().lock();
    let done = Guarded::new(config, &args.interfaces, &args.locals)
        .and_then(|guarded| guarded.replay_file(&args.file, out, args.output));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(stopped) => {
            eprintln!("dnsguard: {stopped}");
            ExitCode::from(stopped.code())
        }
    }
}

/// A configuration for a capture: without marks, which a capture cannot carry.
fn adapted(mut config: Config, args: &Args) -> Config {
    config.mode = args.mode.unwrap_or(config.mode);
    (config.marks, config.observe_marks) = (false, false);
    for name in args.interfaces.iter().map(Given::name) {
        if !config.attach.selection.named().any(|known| known == name) {
            config.attach.selection.include.push(Pattern::literal(name));
        }
    }
    config
}

/// Why there is no summary, or why it is not of the whole capture.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("{0}")]
    Configuration(String),
    #[error("standard input is a terminal: give it a capture, or name a file")]
    Terminal,
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Stopped {
    const fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) | Self::Terminal => exit::BAD_USAGE,
            Self::File { .. } | Self::Output(_) => exit::FAILED,
        }
    }
}

/// A configuration, ready to judge with.
struct Guarded {
    config: Config,
    judge: Judge,
}

impl Guarded {
    fn new(config: Config, given: &[Given], locals: &[Local]) -> Result<Self, Stopped> {
        let named: Vec<_> = config.attach.selection.named().map(str::to_owned).collect();
        let devices = Devices::new(&named, given, locals);
        let facts = facts(&config, &devices, locals)?;
        let mut compiled = config
            .policy(&facts, judge::secret())
            .map_err(|error| Stopped::Configuration(error.to_string()))?;
        for question in &config.allow {
            let has_room = compiled.policy.allow(question.key(judge::secret()));
            debug_assert!(has_room, "the file was checked for the number of allowed names");
        }
        let judge = Judge::new(&config, &compiled, &facts, devices);
        Ok(Self { config, judge })
    }

    fn replay_file(self, file: &Path, out: impl Write, format: Format) -> Result<u8, Stopped> {
        if file == Path::new("-") {
            let input = io::stdin().lock();
            if input.is_terminal() {
                return Err(Stopped::Terminal);
            }
            return self.replay(file, input, Progress::new(None), out, format);
        }
        let input = File::open(file).map_err(|error| failed(file, &error))?;
        let length = input.metadata().ok().map(|metadata| metadata.len());
        self.replay(file, input, Progress::new(length), out, format)
    }

    /// Judges everything that can be read. Whoever reads the output may leave when he has seen enough.
    fn replay(
        mut self,
        file: &Path,
        input: impl Read,
        mut progress: Progress,
        out: impl Write,
        format: Format,
    ) -> Result<u8, Stopped> {
        let mut report = Report::new(out, format);
        let mut damage = None;
        let mut written = report.begin();
        if written.is_ok() {
            (written, damage) = self.judge_all(input, &mut progress, &mut report);
        }
        progress.end(self.judge.tally().packets);
        let summary = Summary::new(file, &self.config, &self.judge, damage);
        let code = if summary.has_found() { exit::FOUND } else { exit::DONE };
        match written.and_then(|()| report.end(&summary)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(code),
            written => written?,
        }
        match summary.damage {
            Some(reason) => Err(failed(file, &reason)),
            None => Ok(code),
        }
    }

    /// Judges all packets; says whether everything was written, and why the capture could not be read to its end.
    fn judge_all(
        &mut self,
        input: impl Read,
        progress: &mut Progress,
        report: &mut Report<impl Write>,
    ) -> (io::Result<()>, Option<String>) {
        let mut capture = match Capture::open(input) {
            Ok(capture) => capture,
            Err(damage) => return (Ok(()), Some(damage.to_string())),
        };
        let mut bytes = 0;
        let damage = loop {
            let record = match capture.next() {
                Ok(Some(record)) => record,
                Ok(None) => break None,
                Err(damage) => break Some(damage.to_string()),
            };
            progress.at(record.number, bytes);
            let told = self.judge.packet(&record, &mut |happened| {
                progress.clear();
                report.tell(happened)
            });
            if told.is_err() {
                return (told, None);
            }
            bytes = capture.bytes();
        };
        let told = self.judge.end(&mut |happened| {
            progress.clear();
            report.tell(happened)
        });
        (told, damage)
    }
}

/// What the policy needs to know of the captured host: what the operator says of it.
fn facts(config: &Config, devices: &Devices, locals: &[Local]) -> Result<Facts, Stopped> {
    let mut facts = Facts {
        devices: devices.guarded(),
        ..Facts::default()
    };
    if let Some(link_local) = &config.link_local {
        let nobody = Host::new(Vec::new(), Vec::new());
        for name in link_local.interfaces(&config.attach) {
            let known = link_local::destinations(name, &nobody, link_local.vpc).map_err(|_| {
                Stopped::Configuration(format!(
                    "preset '{}': a replay does not know where the VPC's resolver is; set vpc = \"10.0.0.0/16\" (the VPC's \
                     primary CIDR) in that [[budget]]",
                    LinkLocal::NAME
                ))
            })?;
            let known = known.iter().map(|known| (known.address, known.service));
            facts.services.insert(name.to_owned(), known.collect());
        }
    }
    if config.hygiene.names_own_addresses() {
        facts.addresses = locals.iter().filter_map(Local::address).collect();
        if facts.addresses.is_empty() {
            return Err(Stopped::Configuration(
                "[hygiene] sources has 'own', and a replay does not know the host's addresses; --local ADDR says them, each \
                 for itself"
                    .to_owned(),
            ));
        }
    }
    Ok(facts)
}

fn failed(file: &Path, reason: &impl ToString) -> Stopped {
    let name = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        print::harmless(&file.display().to_string()).into_owned()
    };
    Stopped::File {
        file: name,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
