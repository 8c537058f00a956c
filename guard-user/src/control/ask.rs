//! What a connection asks of the running agent, and the way there.

use tokio::sync::{mpsc, oneshot};

use super::{
    api::{Change, Done, Explanation, Which},
    socket::Peer,
};
use crate::question::Question;

/// Requests that wait for the agent.
const QUEUE: usize = 32;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What was asked for makes no sense.
    Bad(String),
    /// What was asked for is not there.
    Missing(String),
    /// It failed.
    Failed(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Bad(why) | Self::Missing(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

/// What comes back.
pub(crate) type Answer<T> = Result<T, Refusal>;

/// Something that only the agent can do.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What is thought of a key.
    Explain(Question, oneshot::Sender<Answer<Explanation>>),
    /// To be done, for somebody.
    Do(Deed, Peer, oneshot::Sender<Answer<Done>>),
}

/// Something to be done.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Close breakers.
    Release(Which),
    /// Only watch a key.
    Allow(Which),
    /// No longer only watch it.
    Disallow(Which),
    /// Change a key of the configuration.
    Set(Change),
    /// Take such changes back.
    Reset(Change),
    /// Read the file again.
    Reload,
}

/// The way to the agent.
#[derive(Clone, Debug)]
pub(crate) struct Line(mpsc::Sender<Ask>);

impl Line {
    /// A way to the agent, and its end there.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// What is thought of a key.
    pub(crate) async fn explain(&self, question: Question) -> Answer<Explanation> {
        self.ask(|answer| Ask::Explain(question, answer)).await
    }

    /// Has something done for `peer`.
    pub(crate) async fn carry_out(&self, deed: Deed, peer: Peer) -> Answer<Done> {
        self.ask(|answer| Ask::Do(deed, peer, answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Answer<T>>) -> Ask) -> Answer<T> {
        let stops = || Refusal::Failed("the agent is stopping".to_owned());
        let (sender, answer) = oneshot::channel();
        self.0.send(ask(sender)).await.map_err(|_| stops())?;
        answer.await.map_err(|_| stops())?
    }
}

impl Peer {
    /// What events call him.
    pub(crate) fn words(self) -> String {
        match self.pid {
            Some(pid) => format!("uid {}, pid {pid}", self.uid),
            None => format!("uid {}", self.uid),
        }
    }
}
