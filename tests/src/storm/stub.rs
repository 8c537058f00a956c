//! Clients of our own, which ask as stub resolvers do, each from an address of its own.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{task::JoinSet, time::sleep_until};

use super::tally::Lookup;
use crate::{
    Namespace,
    client::{Retry, exchange_from, inside},
    prober::gather,
    question::{Question, RecordType, random_id},
};

/// Below this are the names that good clients ask for; none twice, so that no cache on the way knows one.
pub(super) const ZONE: &str = "good.example.";

/// How long a good client waits in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often it asks meanwhile.
const TRIES: u32 = 3;

/// The shortest time from one question of a client to its next, and how much longer it may be.
const PAUSE_MS: u64 = 200;
const VARIES_MS: u64 = 300;

/// One client.
#[derive(Clone, Debug)]
pub(super) struct Stub {
    /// Every name that it asks for is a new one below this.
    pub(super) zone: String,
    /// Its address.
    pub(super) source: IpAddr,
    /// Whom it asks.
    pub(super) server: SocketAddr,
}

impl Stub {
    /// Lets several ask for `length`, and waits for their last answers, up to 5 s more. In the order of the clients.
    pub(super) fn all(namespace: &Namespace, stubs: Vec<Self>, length: Duration) -> Result<Vec<Vec<Lookup>>> {
        inside(namespace, async {
            let mut asking = JoinSet::new();
            for (number, stub) in stubs.into_iter().enumerate() {
                asking.spawn(async move { Ok((number, stub.ask(length).await?)) });
            }
            let mut asked = gather(asking).await?;
            asked.sort_unstable_by_key(|(number, _)| *number);
            Ok(asked.into_iter().map(|(_, lookups)| lookups).collect())
        })?
    }

    async fn ask(self, length: Duration) -> Result<Vec<Lookup>> {
        let start = Instant::now();
        let mut due = Duration::from_millis(u64::from(random_id()) % VARIES_MS);
        let mut asked = JoinSet::new();
        for number in 0.. {
            if due >= length {
                break;
            }
            sleep_until((start + due).into()).await;
            due += Duration::from_millis(PAUSE_MS + u64::from(random_id()) % VARIES_MS);
            let (source, server) = (self.source, self.server);
            let name = format!("q{number}.{}", self.zone);
            asked.spawn(async move {
                let question = Question::new(&name, RecordType::A)?;
                let reply = exchange_from(source, server, &question, TRIES, PATIENCE / TRIES, Retry::Same).await?;
                Ok(Lookup {
                    waited: reply.answered().then_some(reply.waited),
                    first_try: reply.answered() && reply.tries == 1,
                })
            });
        }
        gather(asked).await
    }
}
