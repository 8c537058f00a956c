//! `cargo xtask`: what a person types while working on dnsguard.
//!
//! `setup` installs what the kernel object needs, `ebpf` builds that object reproducibly, `package` makes the Debian
//! package, `image` puts the agent into a container image, `manifests` renders what Kubernetes is given, `bench`
//! measures what the guard costs, `fuzz` feeds hostile bytes to what reads bytes of others, `soak` wears it for as long
//! as one likes, `test` runs everything there is to run and ends with one line of counts, `lint` is what must be clean
//! before a commit. A machine that cannot build
//! the kernel object still builds, tests and runs the rest with the committed one.

#![forbid(unsafe_code)]

mod accuracy;
mod advice;
mod agent;
mod bench;
mod debian;
mod demo;
mod deny;
mod ebpf;
mod elf;
mod fuzz;
mod host;
mod image;
mod instructions;
mod interrupt;
mod kubernetes;
mod linker;
mod lint;
mod manifest;
mod marks;
mod number;
mod object;
mod package;
mod preparation;
mod program;
mod progress;
mod root;
mod second_half;
mod setup;
mod soak;
mod sources;
mod step;
mod tally;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// What a person types while working on dnsguard.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::SetupArgs),
    Ebpf(ebpf::EbpfArgs),
    Accuracy(accuracy::AccuracyArgs),
    Bench(bench::BenchArgs),
    Demo(demo::DemoArgs),
    Fuzz(fuzz::FuzzArgs),
    Soak(soak::SoakArgs),
    Package(package::PackageArgs),
    Image(image::ImageArgs),
    Manifests(kubernetes::ManifestsArgs),
    Test(test::TestArgs),
    Lint(lint::LintArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", step::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::open()?;
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::Ebpf(args) => ebpf::run(&workspace, &args),
        Command::Accuracy(args) => accuracy::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Fuzz(args) => fuzz::run(&workspace, &args),
        Command::Soak(args) => soak::run(&workspace, &args),
        Command::Package(args) => package::run(&workspace, &args),
        Command::Image(args) => image::run(&workspace, &args),
        Command::Manifests(args) => kubernetes::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Lint(args) => lint::run(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
