//! The queries that a forwarder waits for, each on a socket of its own.

use std::collections::HashMap;

use crate::{
    network::Outbox,
    packet::{Packet, Socket, at},
};

/// What is kept of each query, by its socket.
pub(super) struct Asked<T> {
    address: u16,
    waiting: HashMap<u16, Waiting<T>>,
    count: u64,
}

struct Waiting<T> {
    id: u16,
    token: u64,
    kept: T,
}

impl<T> Asked<T> {
    /// None yet, of a forwarder at this address.
    pub(super) fn new(address: u16) -> Self {
        Self {
            address,
            waiting: HashMap::new(),
            count: 0,
        }
    }

    /// Keeps something of a query that goes out with this ID. Returns its new socket, and the token of a timer for it.
    pub(super) fn put(&mut self, id: u16, kept: T, out: &mut Outbox<'_>) -> (Socket, u64) {
        let socket = out.fresh_socket(self.address);
        self.count += 1;
        let token = self.count << 16 | u64::from(socket.port);
        self.waiting.insert(socket.port, Waiting { id, token, kept });
        (socket, token)
    }

    /// What was kept of the query that a response belongs to, if it may be taken.
    pub(super) fn take(
        &mut self,
        response: &Packet,
        takes: impl FnOnce(&T) -> bool,
        out: &mut Outbox<'_>,
    ) -> Option<T> {
        let waiting = self.waiting.get(&response.to.port)?;
        if waiting.id != response.id || !takes(&waiting.kept) {
            return None;
        }
        out.close(response.to);
        Some(self.waiting.remove(&response.to.port)?.kept)
    }

    /// What was kept of the query whose timer is over, if nobody has answered it.
    pub(super) fn give_up(&mut self, token: u64, out: &mut Outbox<'_>) -> Option<T> {
        let port = token as u16;
        if self.waiting.get(&port)?.token != token {
            return None;
        }
        out.close(at(self.address, port));
        Some(self.waiting.remove(&port)?.kept)
    }
}
