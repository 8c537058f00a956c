//! What reads bytes of others, as the agent runs it, for whoever feeds it hostile ones (`guard-fuzz`).

use std::{io, sync::Arc, time::Duration};

use guard_common::key::Secret;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    runtime::{Builder, Runtime},
    time,
};
use toml_edit::DocumentMut;

use crate::{
    config::{Config, ConfigError, Edits},
    control::{Rooms, ask::Line, connection, socket::Peer},
    events::feed::Feed,
    facts::Facts,
    metrics::Metrics,
    name,
    snapshot::Snapshot,
};

/// For a response. Half a request gets none, and one that follows events has no end.
const PATIENCE: Duration = Duration::from_millis(1);

/// Reads the text of a configuration file, and compiles what is right with it: what `check-config` would say.
///
/// # Errors
///
/// What is wrong with it, one message each.
pub fn config(text: &str) -> Result<Vec<String>, Vec<String>> {
    let config = Config::parse("dnsguard.toml", text).map_err(|error| match error {
        ConfigError::Wrong(wrong) => wrong.iter().map(ToString::to_string).collect(),
        unreadable @ ConfigError::Unreadable { .. } => vec![unreadable.to_string()],
    })?;
    // A host may well not fit it.
    let _ = config.policy(&Facts::default(), &Secret::default());
    Ok([config.to_string()].into_iter().chain(config.limits()).collect())
}

/// Lays a change by hand over the text of a configuration, as `policy set` does: the text that comes of it.
///
/// # Errors
///
/// The text is no TOML, or the key is none.
pub fn edit(text: &str, key: &str, value: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|_| "no TOML".to_owned())?;
    let mut edits = Edits::default();
    let set = edits.set(key, value);
    set.and_then(|()| edits.apply(&mut document))
        .map_err(|error| error.to_string())?;
    Ok(document.to_string())
}

/// The text of a name in wire form, as everything shows it.
pub fn text_of_name(wire: &[u8]) -> String {
    name::text(wire)
}

/// The wire form, in lower case, of a name in such a text.
pub fn wire_of_name(text: &str) -> Option<Vec<u8>> {
    name::wire(text)
}

/// The control socket of an agent that has just begun to stop: what only looks is answered, and what asks the agent is
/// refused.
#[derive(Debug)]
pub struct Control {
    runtime: Runtime,
    rooms: Arc<Rooms>,
}

impl Control {
    /// Takes requests.
    ///
    /// # Errors
    ///
    /// There are no resources for a runtime.
    pub fn new() -> io::Result<Self> {
        // Its other end goes: nobody takes what is asked.
        let (agent, _) = Line::new();
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            rooms: Arc::new(Rooms::new(Metrics::new(Snapshot::default), Feed::new(), agent)),
        })
    }

    /// All that comes back over a connection on which these bytes were sent.
    ///
    /// # Errors
    ///
    /// There is no connection to be had.
    pub fn respond(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.runtime.block_on(async {
            let (mut client, server) = UnixStream::pair()?;
            let peer = Peer { uid: 0, pid: None };
            let served = connection(server, Arc::clone(&self.rooms), Ok(peer));
            let asked = async {
                let mut response = Vec::new();
                // Whoever is refused early need not take in the rest.
                let _ = client.write_all(request).await;
                let _ = time::timeout(PATIENCE, client.read_to_end(&mut response)).await;
                drop(client);
                response
            };
            let ((), response) = tokio::join!(served, asked);
            Ok(response)
        })
    }
}
