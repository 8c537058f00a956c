//! `dnsguard doctor`: what stands in the guard's way on this host, and what is wrong with its DNS as it is written.
//!
//! It reads and asks the kernel, and changes nothing; it sends no packet, and needs no agent. What it may not see it
//! says.

mod finding;
mod interfaces;
mod kernel;
mod loops;
mod native;
mod pressure;
mod privileges;
mod processes;
mod programs;
mod report;
mod resolvers;
mod roots;

use std::{collections::BTreeSet, path::PathBuf};

use self::{
    finding::Finding, loops::Resolvers, privileges::Privileges, processes::Processes, report::Report, roots::Roots,
};
use crate::{config::Config, ethtool::Statistics, host::Host, netlink::Netlink, print::Format};

/// Examples and exit codes, for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard doctor                                        what is in the way, and what is wrong with DNS here?
  dnsguard doctor --config /etc/dnsguard/dnsguard.toml   the same for that configuration
  dnsguard doctor -o json | jq '.findings[] | select(.level == \"fail\")'
  dnsguard doctor || [ $? -ne 3 ]                        in a script: go on unless it found something

It reads and asks the kernel; it changes nothing and sends no packet. A loop as written is what configurations say: \
`dnsguard probe` proves it. Without root it goes as far as it may, and says what it could not see.";

/// What its exit codes mean.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  nothing to mend
  1  failed: the message says what, on what, and what to do next
  2  bad usage or bad configuration
  3  something is to be mended: a finding is warn or fail";

/// The port that consul answers DNS on.
const CONSUL_PORT: u16 = 8600;
/// The port of DNS, whatever the configuration says.
const DNS_PORT: u16 = 53;

/// `dnsguard doctor`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Configuration file (TOML): which interfaces, ports and pin directory. Without it no file is read, and all
    /// interfaces that carry DNS are looked at.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long counters are watched for growth, in seconds: 0 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(0..=60))]
    pub(crate) seconds: u64,
    /// A table for people, one JSON object, or JSON a line.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Format,
}

/// Looks at everything; returns what to print and the exit code. `config` is `None` where none was named.
///
/// # Errors
///
/// The kernel does not tell this host's addresses or interfaces: nothing could be said then.
pub(crate) fn examine(config: Option<&Config>, seconds: u64, output: Format) -> anyhow::Result<(String, u8)> {
    let roots = Roots::host();
    let standard = Config::default();
    let of = config.unwrap_or(&standard);
    let host = Host::read()?;
    let ports: BTreeSet<u16> = of.ports.iter().copied().chain([DNS_PORT, CONSUL_PORT]).collect();
    let privileges = Privileges::read(&roots);
    let mut processes = Processes::read(&ports);
    let resolvers = Resolvers::read(&roots, &mut processes);

    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    let mut statistics = Statistics::open()?;
    let names = interfaces::choose(config, &links, &netlink.default_routes()?, &host);

    let mut findings: Vec<Finding> = kernel::check(&roots, &of.attach);
    findings.extend(privileges::check(privileges));
    findings.extend(interfaces::check(
        &roots,
        &names,
        config.is_some(),
        &links,
        &of.attach,
        &mut statistics,
    ));
    findings.extend(programs::check(&names, &links, &of.attach, &netlink, privileges));
    findings.extend(resolvers::check(
        config, &resolvers, &processes, &host, &links, &netlink, privileges,
    ));
    findings.extend(loops::check(&roots, &resolvers, &processes, &host));
    findings.extend(pressure::check(&roots, &names, &mut statistics, seconds));
    let report = Report::new(findings);
    Ok((report.text(output), report.exit_code()))
}
