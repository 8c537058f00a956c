//! The runtime of this node: which pods it has now.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    io,
    path::PathBuf,
    time::Duration,
};

use guard_cri::{
    CallError, Client,
    message::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxStatusRequest, PodSandboxStatusResponse},
    prost::Message,
};
use tokio::time::timeout;
use tracing::debug;

use super::{
    Sockets,
    directory::MAX_PODS,
    sandbox::{self, Sandbox},
};

/// Where runtimes have their sockets: containerd, CRI-O, the containerd of k3s.
const KNOWN_SOCKETS: [&str; 3] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
];

/// How long the runtime may take for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A runtime, and what it has said.
#[derive(Debug)]
pub(super) struct Runtime {
    sockets: Sockets,
    client: Option<Client>,
    /// By the runtime's name for each.
    sandboxes: HashMap<Vec<u8>, Sandbox>,
    /// Those of which it would not say anything: they are asked for after all others.
    stuck: HashSet<Vec<u8>>,
}

/// Why it is not known which pods there are.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuntimeError {
    #[error(
        "no container runtime answers at {tried}: {source}; give its socket in [pods] socket, and let the agent open it"
    )]
    Absent { tried: String, source: io::Error },
    #[error("the container runtime did not answer {method} within {} s", PATIENCE.as_secs())]
    Silent { method: &'static str },
    #[error("the container runtime cannot be asked: {0}")]
    Call(#[from] CallError),
}

/// Where to look for the runtime.
pub(super) fn sockets(configured: Option<&PathBuf>) -> Sockets {
    match configured {
        Some(socket) => vec![socket.clone()],
        None => KNOWN_SOCKETS.map(PathBuf::from).to_vec(),
    }
}

impl Runtime {
    /// The first of these that answers.
    pub(super) fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            client: None,
            sandboxes: HashMap::new(),
            stuck: HashSet::new(),
        }
    }

    /// The pods that it has now. What is known of one is not asked for again, and one of which the runtime does not say
    /// anything costs the others nothing but time.
    ///
    /// # Errors
    ///
    /// It is not there, does not answer in time, or answers what cannot be read. What it said before is kept, so that the
    /// next attempt goes on from there.
    pub(super) async fn sandboxes(&mut self) -> Result<impl Iterator<Item = &Sandbox>, RuntimeError> {
        let looked = self.look().await;
        if looked.is_err() {
            // Whatever it was, a new connection begins anew.
            self.client = None;
        }
        looked?;
        Ok(self.sandboxes.values())
    }

    async fn look(&mut self) -> Result<(), RuntimeError> {
        let request = ListPodSandboxRequest::ready();
        let listed: ListPodSandboxResponse = self.call(ListPodSandboxRequest::METHOD, &request).await?;
        let ready: HashMap<_, _> = listed
            .items
            .into_iter()
            .filter_map(|item| Some((sandbox::pod(&item)?, item)))
            .take(MAX_PODS)
            .map(|(pod, item)| (item.id, pod))
            .collect();
        self.sandboxes.retain(|id, _| ready.contains_key(id));
        self.stuck.retain(|id| ready.contains_key(id));
        let news = ready.into_iter().filter(|(id, _)| !self.sandboxes.contains_key(id));
        let mut news: Vec<_> = news.collect();
        news.sort_by_key(|(id, _)| self.stuck.contains(id));
        for (id, pod) in news {
            let request = PodSandboxStatusRequest {
                pod_sandbox_id: id.clone(),
                verbose: true,
            };
            let said: PodSandboxStatusResponse = match self.call(PodSandboxStatusRequest::METHOD, &request).await {
                Ok(said) => said,
                // It went away in between, or something is wrong with it: the others are good.
                Err(RuntimeError::Call(error @ (CallError::Refused { .. } | CallError::Strange { .. }))) => {
                    debug!("pod {pod} is not known: {error}");
                    continue;
                }
                // It has just given the list. The rest has its turn next time.
                Err(error @ RuntimeError::Silent { .. }) => {
                    debug!("pod {pod} is not known: {error}");
                    self.stuck.insert(id);
                    self.client = None;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if let Some(sandbox) = Sandbox::read(pod, &said) {
                self.sandboxes.insert(id, sandbox);
            }
        }
        Ok(())
    }

    async fn call<R: Message + Default>(
        &mut self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<R, RuntimeError> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(connect(&self.sockets).await?),
        };
        Ok(in_time(method, client.call(method, request)).await??)
    }
}

/// Connects to the first that is there.
async fn connect(sockets: &Sockets) -> Result<Client, RuntimeError> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for socket in sockets {
        match in_time("a connection", Client::connect(socket)).await? {
            Ok(client) => return Ok(client),
            // That one is there and does not work says more than that another is not there.
            Err(error) if error.kind() != io::ErrorKind::NotFound => failed = error,
            Err(_) => {}
        }
    }
    let tried: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    Err(RuntimeError::Absent {
        tried: tried.join(", "),
        source: failed,
    })
}

async fn in_time<T>(method: &'static str, work: impl Future<Output = T>) -> Result<T, RuntimeError> {
    timeout(PATIENCE, work)
        .await
        .map_err(|_| RuntimeError::Silent { method })
}

#[cfg(test)]
mod tests;
