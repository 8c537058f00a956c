//! `cargo xtask package`: the Debian package, of a release build.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use guard_tests::package::{CARGO_DEB_VERSION, MAINTAINER, Package};

use crate::{
    agent::{Build, KernelObject},
    program,
    workspace::Workspace,
};

/// Make the Debian package, in target/debian.
///
/// Builds the agent with optimisations, with a kernel object from source where its toolchain is at hand and with the
/// committed one elsewhere, then the package with cargo-deb, which is installed if it is missing. The package is for
/// the Debian or Ubuntu that this runs on, and for newer ones.
#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask package\n  \
    cargo xtask package --revision 2 --maintainer 'Jo Doe <jo@example.org>'\n  \
    sudo apt install ./target/debian/dnsguard_*.deb")]
pub(crate) struct PackageArgs {
    /// Debian's revision, which tells packages of the same version apart.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// Name and address of whoever publishes it.
    #[arg(long, value_name = "NAME <MAIL>", default_value = MAINTAINER)]
    maintainer: String,
}

pub(crate) fn run(workspace: &Workspace, args: &PackageArgs) -> Result<ExitCode> {
    provide()?;
    let object = KernelObject::at_hand(workspace)?;
    let agent = Build { workspace, object }.release_agent()?;
    let package = Package {
        agent: &agent,
        revision: args.revision,
        maintainer: &args.maintainer,
        is_small: true,
        output: &workspace.target.join("debian"),
    };
    println!("{}", workspace.shown(&package.build()?));
    Ok(ExitCode::SUCCESS)
}

/// Installs cargo-deb if it is missing, or another version.
pub(crate) fn provide() -> Result<()> {
    program::provide("cargo-deb", CARGO_DEB_VERSION).map(drop)
}
