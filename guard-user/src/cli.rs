//! The command line: what can be typed, and what the help says of it.
//!
//! Flags are parsed into the types that the configuration is made of, so that a flag and its key in the file refuse the
//! same values for the same reasons.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use guard_common::policy::Mode;

use crate::{
    command::{Remote, bugtool, explain, loops, observe, policy, reload, status},
    config::{self, AtStop, Cidr, DEFAULT_PIN_DIR},
    doctor, manual, name,
    print::Format,
    probe, replay,
    selection::{Pattern, Preset},
    top,
};

/// What every help text ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the message says what, on what, and what to do next
  2  bad usage or bad configuration: nothing was touched";

/// The same for a command that asks the agent.
const REMOTE_EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the message says what, on what, and what to do next
  2  bad usage or bad configuration: nothing was touched
  3  found: loops show has something to show
  4  no agent answers
  5  not permitted";

const ABOUT: &str = "\
Cuts DNS query loops and storms in the kernel and tells who makes them.

dnsguard reads DNS headers at the network interfaces. When a query goes round between forwarders it answers or drops \
that one query, and every other name keeps resolving. It watches before it acts: without --mode enforce it detects and \
counts, and touches no packet.";

const ABOUT_EXAMPLES: &str = "\
Examples:
  dnsguard run                                           watch the loopback interface
  dnsguard run --interface lo --mode enforce             cut loops on it
  dnsguard check-config /etc/dnsguard/dnsguard.toml      is the file right?
  dnsguard status                                        is all well?
  dnsguard top                                           who asks most, and what for?
  dnsguard observe -f                                    what happens now?
  dnsguard explain x.consul DS                           what is thought of it, and why?
  dnsguard probe                                         does a query go round?
  dnsguard doctor                                        what is in the way, what is wrong here?
  dnsguard detach --all                                  take everything out of the kernel";

const RUN_EXAMPLES: &str = "\
Examples:
  dnsguard run --config /etc/dnsguard/dnsguard.toml
  dnsguard run --interface lo --interface eth0 --mode enforce
  dnsguard run --events jsonl | jq 'select(.event == \"trip\")'

Stop it with SIGTERM or Ctrl-C: it detaches and leaves nothing behind. If it is killed, or runs with --at-stop stay, \
the last policy stays in force until its lease (30 s) is over; from then on everything passes. An agent that starts takes \
over what it finds, without a gap.";

const CHECK_EXAMPLE: &str = "\
Example:
  dnsguard check-config /etc/dnsguard/dnsguard.toml && systemctl restart dnsguard

A budget with preset = \"aws-link-local\" is checked against the interfaces of the host that this runs on. Any other file \
is checked the same everywhere.";

const PROBE_ABOUT: &str = "\
Ask on purpose: does a query go round, and through which servers?

It sends one query for each name, type and server, spelled in capitals and small letters in a secret pattern, and watches \
the interfaces of this network. If a server gets that spelling again from behind itself, the query went round: names are \
the same in capitals and small letters, and forwarders send on what they got. It needs no running agent, and touches \
no packet of others.

Without names it tries what the host's own configuration makes likely to go round: new names below consul., its search \
domains and the reverse zones of its addresses, and the DS of each.";

const PROBE_EXAMPLES: &str = "\
Examples:
  dnsguard probe                                      what is likely to go round here
  dnsguard probe --type DS consul.                    one name and type
  dnsguard probe '*.corp.example'                     a new name in that zone: no cache knows it
  dnsguard probe --server 127.0.0.1:8600 x.consul     another server
  dnsguard probe --except 169.254.0.0/16              leave these servers alone
  dnsguard probe || [ $? -ne 3 ]                      in an init container: fail on a loop alone

How to read a route: a -> b, a sent it on to b; a ~> b, most likely a did. Hops take CAP_NET_RAW. Without it the probe \
tells who answers, and ends with 5.

A loop that is found is a loop that has been lit: one more query goes round until its servers give up.";

const PROBE_EXIT_CODES: &str = "\
Exit codes:
  0  no query is proven to have gone round, and at least one name was answered
  1  failed, or ended before everything was asked: the message says why
  2  bad usage or bad configuration: nothing was sent
  3  a query went round (before all other codes)
  4  no name got an answer (NOERROR or NXDOMAIN): nothing can be told
  5  hops could not be seen, for want of CAP_NET_RAW: a loop is neither proven nor ruled out";

const DETACH_EXAMPLE: &str = "\
Example:
  dnsguard detach --all

This is the panic button: it needs neither a running agent nor a configuration file.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "dnsguard", version, about = ABOUT, after_help = help([ABOUT_EXAMPLES, EXIT_CODES]))]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What dnsguard can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load the guard, attach it, and watch until told to stop.
    #[command(after_help = help([RUN_EXAMPLES, EXIT_CODES]))]
    Run(Run),
    /// Say whether a configuration file is right, and if not, where and why.
    #[command(after_help = help([CHECK_EXAMPLE, EXIT_CODES]))]
    CheckConfig(CheckConfig),
    /// Show live who asks most and what for, how the budgets stand, and which loops are held.
    #[command(after_help = help([top::EXAMPLES, top::EXIT_CODES]))]
    Top(top::Args),
    /// Ask on purpose: does a query go round, and through which servers?
    #[command(long_about = PROBE_ABOUT, after_help = help([PROBE_EXAMPLES, PROBE_EXIT_CODES]))]
    Probe(Probe),
    /// Judge a capture as the guard would have, with the clock of the capture, and tell what it would have done.
    #[command(long_about = replay::ABOUT, after_help = help([replay::EXAMPLES, replay::EXIT_CODES]))]
    Replay(replay::Args),
    /// One screen: is all well?
    #[command(after_help = help([status::EXAMPLES, status::EXIT_CODES]))]
    Status(Remote),
    /// Show events, and sampled queries, as they come.
    #[command(after_help = help([observe::EXAMPLES, REMOTE_EXIT_CODES]))]
    Observe(observe::Args),
    /// What goes round: list, show, release, allow.
    #[command(after_help = help([loops::EXAMPLES, REMOTE_EXIT_CODES]))]
    Loops(Loops),
    /// What does the guard think of a name and type, and why?
    #[command(after_help = help([explain::EXAMPLES, explain::EXIT_CODES]))]
    Explain(explain::Args),
    /// The configuration in force: get, set, reset, mode.
    #[command(after_help = help([policy::EXAMPLES, REMOTE_EXIT_CODES]))]
    Policy(Policy),
    /// Have the agent read its configuration file again.
    #[command(after_help = help([reload::EXAMPLES, REMOTE_EXIT_CODES]))]
    Reload(Remote),
    /// Gather what somebody who is to help wants to see, in one file.
    #[command(after_help = help([bugtool::EXAMPLES, EXIT_CODES]))]
    Bugtool(bugtool::Args),
    /// Print completions for a shell.
    #[command(after_help = help([manual::COMPLETION_EXAMPLES, EXIT_CODES]))]
    Completion(manual::Completion),
    /// Print the manual page, or write the pages of all commands.
    #[command(after_help = help([manual::MAN_EXAMPLES, EXIT_CODES]))]
    Man(manual::Man),
    /// Look at this host: what is in the guard's way, and which resolver configurations form a loop as written?
    #[command(after_help = help([doctor::EXAMPLES, doctor::EXIT_CODES]))]
    Doctor(doctor::Args),
    /// Remove every trace of the guard from the kernel, also when the agent is dead.
    #[command(after_help = help([DETACH_EXAMPLE, EXIT_CODES]))]
    Detach(Detach),
}

/// `dnsguard loops`
#[derive(Args, Debug)]
pub(crate) struct Loops {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: loops::Loops,
}

/// `dnsguard policy`
#[derive(Args, Debug)]
pub(crate) struct Policy {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: policy::Policy,
}

/// `dnsguard run`
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Configuration file (TOML). Without it every key has its default.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Interface to guard, a name, a glob such as 'veth*', or '/expression/'; can be given several times. Replaces the
    /// list of the configuration file.
    #[arg(long = "interface", value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) interfaces: Vec<Pattern>,
    /// Interface never to guard, whatever else is said. Replaces the list of the configuration file.
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) exclude: Vec<Pattern>,
    /// Guard what this kind of host has as well: auto recognises network plugins by their interfaces. Wins over the file.
    #[arg(long, value_name = "KIND", value_parser = config::preset_parser())]
    pub(crate) preset: Option<Preset>,
    /// observe: detect and count, touch no packet; enforce: answer or drop what is held. Wins over the file.
    #[arg(long, value_name = "MODE", value_parser = config::mode_parser())]
    pub(crate) mode: Option<Mode>,
    /// Where events go: lines of the log, JSON lines on standard output, or nowhere.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = EventFormat::Text)]
    pub(crate) events: EventFormat,
    /// Kernel object to load instead of the one that is built in.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) object: Option<PathBuf>,
    /// Directory for pinned maps and links, on a BPF file system. Wins over the file.
    #[arg(long, value_name = "DIR", value_parser = config::pin_dir)]
    pub(crate) pin_dir: Option<PathBuf>,
    /// Unix socket on which commands are taken. Wins over the file.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// detach: a stop takes everything out of the kernel; stay: it stays in force for a last lease. Wins over the file.
    #[arg(long, value_name = "WHAT", value_parser = config::at_stop_parser())]
    pub(crate) at_stop: Option<AtStop>,
}

/// `dnsguard check-config`
#[derive(Args, Debug)]
pub(crate) struct CheckConfig {
    /// Configuration file (TOML).
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `dnsguard probe`
#[derive(Args, Debug)]
pub(crate) struct Probe {
    /// Names to ask for; *.ZONE is a new name in that zone. None: what the host's configuration makes likely.
    #[arg(value_name = "NAME", value_parser = probe::Target::parse)]
    pub(crate) names: Vec<probe::Target>,
    /// Type to ask for, such as A or DS; can be given several times. None: A and DS, in reverse zones PTR and DS.
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = question_type)]
    pub(crate) types: Vec<u16>,
    /// Server to ask; can be given several times. None: the nameservers of /etc/resolv.conf.
    #[arg(short, long = "server", value_name = "ADDR[:PORT]", value_parser = probe::server)]
    pub(crate) servers: Vec<SocketAddr>,
    /// Address or range whose servers are sent nothing; can be given several times. Adds to the list of the file.
    #[arg(long, value_name = "PREFIX", value_parser = Cidr::or_address)]
    pub(crate) except: Vec<Cidr>,
    /// Configuration file (TOML), for the list of such servers in it. Without it no file is read.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Seconds to wait for an answer to one query, 0.1 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds::<60>)]
    pub(crate) timeout: Duration,
    /// Seconds for all queries together, 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds::<3600>)]
    pub(crate) max_time: Duration,
    /// Lines for people, one JSON document, or the same in one line.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// `dnsguard detach`
#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// Yes, everything: programs, links, filters, pinned maps.
    #[arg(long, required = true, action = ArgAction::SetTrue)]
    pub(crate) all: bool,
    /// Directory in which the agent pinned its maps and links.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR, value_parser = config::pin_dir)]
    pub(crate) pin_dir: PathBuf,
}

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventFormat {
    /// Readable lines of the log.
    Text,
    /// One JSON object a line on standard output.
    Jsonl,
    /// Nowhere; metrics only.
    Off,
}

fn question_type(text: &str) -> Result<u16, String> {
    name::qtype_number(text).ok_or_else(|| "a type such as A, DS or TYPE65".to_owned())
}

/// Reads a tenth of a second up to `MOST` seconds.
fn seconds<const MOST: u32>(text: &str) -> Result<Duration, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.1..=f64::from(MOST)).contains(number));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("a number, 0.1 to {MOST}"))
}

fn help<const N: usize>(parts: [&str; N]) -> String {
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn run(arguments: &[&str]) -> Result<Run, clap::Error> {
        let words = ["dnsguard", "run"].iter().chain(arguments);
        match Cli::try_parse_from(words)?.command {
            Command::Run(run) => Ok(run),
            other => panic!("{other:?} is not run"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_flags_nothing_is_overridden() {
        let run = run(&[]).unwrap();
        assert_eq!(
            (run.config, run.mode, run.pin_dir, run.object),
            (None, None, None, None)
        );
        assert!(run.interfaces.is_empty());
        assert_eq!(run.events, EventFormat::Text);
    }

    #[test]
    fn flags_are_read_into_their_types() {
        let run = run(&[
            "--interface",
            "lo",
            "--interface",
            "eth0",
            "--mode",
            "enforce",
            "--events",
            "jsonl",
        ])
        .unwrap();
        assert_eq!(run.interfaces, ["lo", "eth0"].map(Pattern::literal));
        assert_eq!(run.mode, Some(Mode::Enforce));
        assert_eq!(run.events, EventFormat::Jsonl);
    }

    #[test]
    fn bad_values_are_bad_usage() {
        for arguments in [
            ["--mode", "enforced"],
            ["--interface", "a-name-that-is-too-long"],
            ["--interface", ""],
            ["--pin-dir", "relative/path"],
            ["--events", "xml"],
        ] {
            assert_eq!(run(&arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn probe_reads_names_servers_and_ranges() {
        let probe = |arguments: &[&str]| {
            let words = ["dnsguard", "probe"].iter().chain(arguments);
            match Cli::try_parse_from(words)?.command {
                Command::Probe(probe) => Ok::<_, clap::Error>(probe),
                other => panic!("{other:?} is not probe"),
            }
        };
        let asked = probe(&[
            "-t",
            "ds",
            "--type",
            "TYPE65",
            "-s",
            "::1",
            "--server",
            "127.0.0.1:8600",
            "--timeout",
            "0.5",
            "consul",
            "*.x",
        ])
        .unwrap();
        assert_eq!((asked.types, asked.names.len()), (vec![43, 65], 2));
        assert_eq!(
            asked.servers,
            ["[::1]:53", "127.0.0.1:8600"].map(|text| text.parse().unwrap())
        );
        assert_eq!(
            (asked.timeout, asked.max_time),
            (Duration::from_millis(500), Duration::from_secs(60))
        );
        for bad in [
            &["--type", "XX"][..],
            &["--server", "localhost"],
            &["--except", "10.0.0.1/8"],
            &["--timeout", "0"],
            &["--timeout", "nan"],
            &["--max-time", "3601"],
            &["--output", "xml"],
            &["a..b"],
        ] {
            assert_eq!(probe(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn detach_wants_to_hear_all() {
        let error = Cli::try_parse_from(["dnsguard", "detach"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        let Command::Detach(detach) = Cli::try_parse_from(["dnsguard", "detach", "--all"]).unwrap().command else {
            panic!("not detach");
        };
        assert!(detach.all);
        assert_eq!(detach.pin_dir, Path::new(DEFAULT_PIN_DIR));
    }

    #[test]
    fn every_help_has_an_example_and_the_exit_codes() {
        let mut command = Cli::command();
        command.build();
        let names: Vec<_> = command
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        for name in names.iter().filter(|name| *name != "help") {
            let help = command
                .find_subcommand_mut(name)
                .unwrap()
                .render_long_help()
                .to_string();
            assert!(
                help.contains("Example") && help.contains("Exit codes:"),
                "{name}: {help}"
            );
            assert!(!help.contains("--object"), "{help}");
        }
    }
}
