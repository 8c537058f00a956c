//! `dnsguard probe`: asks on purpose, and tells whether the query went round, and through which servers.
//!
//! ```text
//! target, server -> asking --> capture -> mark -> route -> report
//!                          '-> response ------------------^
//! ```
//!
//! It needs no agent and no BPF. The proof is the mark of the kernel's judge, in user space: see [`mark`] and [`route`].

mod asking;
mod capture;
mod mark;
mod report;
mod response;
mod route;
mod server;
mod target;

use std::{net::SocketAddr, time::Duration};

use thiserror::Error;

use self::{
    asking::{Patience, Task},
    report::Report,
    server::Servers,
};
pub(crate) use self::{server::server, target::Target};
use crate::{
    config::Cidr,
    host::{self, Host},
    print::Format,
    search::search_list,
};

/// Questions times servers: more than anybody waits for.
const MAX_QUERIES: usize = 1_000;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Names; none: what the host's configuration makes likely.
    pub(crate) targets: Vec<Target>,
    /// Types; none: the usual ones.
    pub(crate) types: Vec<u16>,
    /// Servers; none: the host's.
    pub(crate) servers: Vec<SocketAddr>,
    /// Servers in these are sent nothing.
    pub(crate) except: Vec<Cidr>,
    /// For one query.
    pub(crate) timeout: Duration,
    /// For all of them.
    pub(crate) max_time: Duration,
}

/// Why nothing was asked.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    /// Every server is one to leave alone.
    #[error(
        "there is no server to ask: {skipped}; name one with --server, or take it out of --except and [probe] except"
    )]
    NoServer { skipped: String },
    /// More than one sitting has room for.
    #[error("{0} queries are more than the {MAX_QUERIES} that one run sends; name fewer names, types or servers")]
    TooMany(usize),
    /// The kernel does not let it.
    #[error("cannot ask: {0}")]
    Failed(#[from] std::io::Error),
}

impl ProbeError {
    /// Whether other arguments would do.
    pub(crate) const fn is_bad_usage(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// Asks, and returns what to print and the exit code.
pub(crate) fn probe(wanted: &Wanted, format: Format) -> Result<(String, u8), ProbeError> {
    let resolv_conf = host::resolv_conf();
    let servers = Servers::choose(&wanted.servers, &resolv_conf, &wanted.except);
    if servers.asked.is_empty() {
        let skipped = servers
            .skipped
            .iter()
            .map(|skipped| format!("{} ({})", skipped.server, skipped.reason));
        return Err(ProbeError::NoServer {
            skipped: skipped.collect::<Vec<_>>().join(", "),
        });
    }
    let questions = if wanted.targets.is_empty() {
        let all: Vec<String> = host::resolv_confs().collect();
        let searched = all.iter().flat_map(|text| search_list(text));
        target::likely(searched, Host::read()?.addresses(), &wanted.types)
    } else {
        target::named(&wanted.targets, &wanted.types)
    };
    let tasks: Vec<_> = questions
        .iter()
        .flat_map(|question| {
            let task = |server: &SocketAddr| Task {
                question: question.clone(),
                server: *server,
            };
            servers.asked.iter().map(task)
        })
        .collect();
    if tasks.len() > MAX_QUERIES {
        return Err(ProbeError::TooMany(tasks.len()));
    }
    let patience = Patience {
        query: wanted.timeout,
        total: wanted.max_time,
    };
    let findings = asking::ask(tasks, patience)?;
    let report = Report::new(&findings, &servers);
    Ok((report.text(format), report.exit_code()))
}
