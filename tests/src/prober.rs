//! A good client: what the name service is worth to somebody who does nothing wrong.
//!
//! **Invariant: every query is its own client.** A new source port and ID each, no retry, 1 s to be answered.
//! So what is measured is the service, not how well a client works around it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    Namespace,
    client::{self, Reply, Retry},
    question::{Question, RecordType},
};

/// A query without an answer after this is lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How the queries of one run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Clients that asked, in number.
    pub sent: u64,
    /// Clients that got NOERROR or NXDOMAIN.
    pub answered: u64,
    /// Clients that got another response, such as SERVFAIL or REFUSED.
    pub failed: u64,
    /// Clients that got nothing.
    pub lost: u64,
    /// Queries on the wire, retries included.
    pub queries: u64,
    /// Half of the answers came within this many microseconds; 0 without answers.
    pub p50_us: u64,
    /// 99 of 100 answers came within this many microseconds; 0 without answers.
    pub p99_us: u64,
    /// The slowest answer, in microseconds; 0 without answers.
    pub max_us: u64,
}

impl Report {
    /// The share of clients that were answered, 0 to 1; 0 if nobody asked.
    pub fn answered_ratio(&self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "no run sends 2^52 queries")]
        let ratio = self.answered as f64 / self.sent as f64;
        ratio
    }

    /// Counts what every client got.
    pub(crate) fn of(replies: &[Reply]) -> Self {
        let mut times: Vec<u64> = replies
            .iter()
            .filter(|reply| reply.answered())
            .map(|reply| u64::try_from(reply.waited.as_micros()).unwrap_or(u64::MAX))
            .collect();
        times.sort_unstable();
        let count = |kind: fn(&Reply) -> bool| replies.iter().filter(|reply| kind(reply)).count() as u64;
        Self {
            sent: replies.len() as u64,
            answered: times.len() as u64,
            failed: count(|reply| reply.message.is_some() && !reply.answered()),
            lost: count(|reply| reply.message.is_none()),
            queries: replies.iter().map(|reply| u64::from(reply.tries)).sum(),
            p50_us: percentile(&times, 50),
            p99_us: percentile(&times, 99),
            max_us: times.last().copied().unwrap_or(0),
        }
    }
}

/// The value that `percent` of 100 do not exceed (nearest rank); 0 for none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Sends good queries at a steady rate.
#[derive(Clone, Copy, Debug)]
pub struct Prober;

impl Prober {
    /// Asks `server` for the A records of `names` in turn, `qps` queries per second for `duration`.
    ///
    /// A `*` in a name becomes a label of its own for each query, so that no cache on the way knows the answer.
    /// Returns once the last query is answered or lost: up to 1 s later.
    pub fn run(
        namespace: &Namespace,
        server: SocketAddr,
        names: &[String],
        qps: u32,
        duration: Duration,
    ) -> Result<Report> {
        ensure!(!names.is_empty() && qps > 0, "a prober needs a name and a rate");
        let total = (duration.as_secs_f64() * f64::from(qps)) as u32;
        let questions = (0..total)
            .map(|number| {
                let name = &names[number as usize % names.len()];
                let name = name.replace('*', &format!("q{number}"));
                Question::new(&name, RecordType::A)
            })
            .collect::<Result<Vec<_>>>()?;
        let run = async move {
            let start = Instant::now();
            let mut clients = JoinSet::new();
            for (number, question) in (0..).zip(questions) {
                let due = start + Duration::from_secs(1) * number / qps;
                sleep_until(due.into()).await;
                clients.spawn(async move { client::exchange(server, &question, 1, TIMEOUT, Retry::Same).await });
            }
            gather(clients).await
        };
        Ok(Report::of(&client::inside(namespace, run)??))
    }
}

/// Many clients, each with its question, all at the same moment.
pub(crate) async fn crowd(
    server: SocketAddr,
    questions: Vec<Question>,
    tries: u32,
    timeout: Duration,
    retry: Retry,
) -> Result<Vec<Reply>> {
    let mut clients = JoinSet::new();
    for question in questions {
        clients.spawn(async move { client::exchange(server, &question, tries, timeout, retry).await });
    }
    gather(clients).await
}

/// What every client came back with, in the order in which they ended.
pub(crate) async fn gather<T: 'static>(mut clients: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut ended = Vec::with_capacity(clients.len());
    while let Some(client) = clients.join_next().await {
        ended.push(client.context("a client panicked")??);
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        assert_eq!(percentile(&[], 99), 0);
        assert_eq!(percentile(&[7], 50), 7);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), 50);
        assert_eq!(percentile(&hundred, 99), 99);
    }
}
