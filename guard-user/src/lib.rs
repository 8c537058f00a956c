//! dnsguard: cuts DNS query loops and storms in the kernel, and tells who makes them.
//!
//! ```text
//! cli -> config -> policy --> datapath (maps, hooks) --> loops, watch --> events, snapshot --> log, metrics
//! ```
#![deny(unsafe_code)]

mod agent;
mod allowance;
mod attachment;
mod cli;
mod command;
mod config;
mod control;
mod datapath;
mod descriptors;
mod device;
mod doctor;
mod drivers;
mod ethtool;
mod events;
mod exit;
mod facts;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod host;
mod host_policy;
mod http;
mod interfaces;
mod link_local;
mod linux;
mod loops;
mod manual;
mod metrics;
mod name;
mod neighbours;
mod netlink;
mod offenders;
mod page;
mod pods;
mod print;
mod privileges;
mod probe;
mod question;
mod replay;
mod run;
mod search;
mod selection;
mod service;
mod settings;
mod snapshot;
mod sockets;
mod storms;
mod sys;
mod top;
mod view;
mod watch;

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command},
    config::Config,
    settings::{Flags, Settings},
};

/// The program: reads its command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match cli.command {
        Command::CheckConfig(check) => match Config::check(&check.file, &facts::check_services) {
            Ok(config) => {
                println!("{}: ok: {config}", check.file.display());
                config.limits().for_each(|limit| println!("{limit}"));
                ExitCode::SUCCESS
            }
            Err(error) => bad_configuration(&error),
        },
        Command::Run(run) => {
            let flags = Flags {
                mode: run.mode,
                interfaces: run.interfaces,
                exclude: run.exclude,
                preset: run.preset,
                pin_dir: run.pin_dir,
                socket: run.socket,
                at_stop: run.at_stop,
            };
            let settings = Settings::new(run.config, &flags);
            match settings.and_then(|settings| Ok((settings.load()?, settings))) {
                Ok((loaded, settings)) => report(run::run(settings, loaded, run.events, run.object.as_deref())),
                Err(error) => bad_configuration(&error),
            }
        }
        Command::Top(asked) => show(&asked),
        Command::Probe(asked) => probe(asked),
        Command::Replay(asked) => replay::replay(asked),
        Command::Status(remote) => finish(command::status::status(&remote)),
        Command::Observe(asked) => match command::observe::observe(&asked) {
            Ok(code) => ExitCode::from(code),
            Err(error) => finish(Err(error)),
        },
        Command::Loops(asked) => finish(command::loops::loops(asked.what)),
        Command::Explain(asked) => finish(command::explain::explain(&asked)),
        Command::Policy(asked) => finish(command::policy::policy(asked.what)),
        Command::Reload(remote) => finish(command::reload::reload(&remote)),
        Command::Bugtool(asked) => report(command::bugtool::bugtool(&asked)),
        Command::Completion(asked) => report(manual::completion(&asked)),
        Command::Man(asked) => report(manual::man(&asked)),
        Command::Doctor(asked) => doctor(&asked),
        Command::Detach(detach) => report(detach_all(&detach)),
    }
}

fn finish(outcome: command::Outcome) -> ExitCode {
    match outcome {
        Ok((text, code)) => match print::print(&text) {
            Ok(()) => ExitCode::from(code),
            Err(error) => report(Err(error)),
        },
        Err(error) => {
            eprintln!("dnsguard: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn show(asked: &top::Args) -> ExitCode {
    match top::top(asked).map_err(anyhow::Error::downcast) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ok(error)) => finish(Err(error)),
        Err(Err(error)) => report(Err(error)),
    }
}

fn probe(asked: cli::Probe) -> ExitCode {
    let mut except = asked.except;
    match asked.config.as_deref().map(Config::load) {
        Some(Ok(config)) => except.extend(config.probe.except),
        Some(Err(error)) => return bad_configuration(&error),
        None => {}
    }
    let wanted = probe::Wanted {
        targets: asked.names,
        types: asked.types,
        servers: asked.servers,
        except,
        timeout: asked.timeout,
        max_time: asked.max_time,
    };
    match probe::probe(&wanted, asked.output) {
        Ok((text, code)) => match print::print(&text) {
            Ok(()) => ExitCode::from(code),
            Err(error) => report(Err(error)),
        },
        Err(error) => {
            let code = if error.is_bad_usage() {
                exit::BAD_USAGE
            } else {
                exit::FAILED
            };
            eprintln!("dnsguard: {error}");
            ExitCode::from(code)
        }
    }
}

fn doctor(asked: &doctor::Args) -> ExitCode {
    let config = match asked.config.as_deref().map(Config::load) {
        Some(Ok(config)) => Some(config),
        Some(Err(error)) => return bad_configuration(&error),
        None => None,
    };
    let examined = doctor::examine(config.as_ref(), asked.seconds, asked.output);
    match examined.and_then(|(text, code)| print::print(&text).map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(Err(error)),
    }
}

fn detach_all(detach: &cli::Detach) -> anyhow::Result<()> {
    let removed = datapath::remove_all(&detach.pin_dir)?;
    println!(
        "{}: {removed} pins removed, nothing of dnsguard is left there",
        detach.pin_dir.display()
    );
    Ok(())
}

fn bad_configuration(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(exit::BAD_USAGE)
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dnsguard: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, in one line. Many a message names its cause itself: that is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The log goes to standard error: `RUST_LOG` sets its level. Unless it does, aya's own debug lines stay out.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,aya=warn,aya_obj=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .log_internal_errors(false)
        .init();
}
