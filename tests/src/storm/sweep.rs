//! The storm itself: one pod that asks for the name of every address of a prefix.
//!
//! Names are distinct, so nothing that counts queries of one name sees anything. The prefix and the shape are those of a
//! storm that really was (Stripe, "The secret life of DNS packets", 2019).

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::network::{RESOLVER, SWEEPER, dns};
use crate::{Namespace, question::random_id};

/// The zone that all its names are in.
pub const SWEPT: &str = "104.in-addr.arpa.";

/// Names below [`SWEPT`]: 104.16.0.0/12.
const NAMES: u32 = 1 << 20;

/// A busy resolver has many ports open.
const PORTS: usize = 64;

/// How long the sender sleeps when it is on time. Where this is longer than the policer's bucket takes for one packet,
/// others find a packet's worth in it between two beats, and the sweep takes less from them than it does in real life.
const BEAT: Duration = Duration::from_micros(100);

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swept {
    /// Queries.
    pub sent: u64,
    /// Until the last one.
    pub seconds: f64,
}

impl Swept {
    /// Queries per second.
    pub fn pps(self) -> f64 {
        if self.seconds > 0.0 {
            self.sent as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// The sockets of the pod that sweeps.
#[derive(Debug)]
pub(super) struct Sweep {
    sockets: Vec<UdpSocket>,
}

impl Sweep {
    pub(super) fn new(pods: &Namespace) -> Result<Self> {
        let bind = || {
            (0..PORTS)
                .map(|_| UdpSocket::bind((SWEEPER, 0)))
                .collect::<Result<_, _>>()
        };
        let sockets = pods.run(bind).context("bind the sweeping pod")?;
        Ok(Self { sockets })
    }

    /// Sends `pps` queries a second until it is over, at most for `longest`. Answers are left where they are.
    pub(super) fn run(&self, pps: u32, longest: Duration, over: &AtomicBool) -> Result<Swept> {
        let start = Instant::now();
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) && start.elapsed() < longest {
            let due = (start.elapsed().as_secs_f64() * f64::from(pps)) as u32;
            while sent < due {
                let socket = &self.sockets[sent as usize % PORTS];
                socket
                    .send_to(&query(sent), dns(RESOLVER))
                    .context("send a query of the sweep")?;
                sent += 1;
            }
            sleep(BEAT);
        }
        Ok(Swept {
            sent: sent.into(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// A PTR query for the address with this number, by hand: there are thousands a second.
fn query(number: u32) -> Vec<u8> {
    let [_, low, third, fourth] = (number % NAMES).to_be_bytes();
    let mut message = Vec::with_capacity(64);
    message.extend_from_slice(&random_id().to_be_bytes());
    // RD, one question.
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for octet in [fourth, third, 16 + low, 104] {
        let label = octet.to_string();
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    // The rest of the name, type PTR, class IN.
    message.extend_from_slice(b"\x07in-addr\x04arpa\0\0\x0c\0\x01");
    message
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;

    use super::*;

    #[test]
    fn a_sweep_asks_for_every_address_of_the_prefix_in_turn() {
        for (number, name) in [
            (0, "0.0.16.104.in-addr.arpa. IN PTR"),
            (258, "2.1.16.104.in-addr.arpa. IN PTR"),
            (NAMES - 1, "255.255.31.104.in-addr.arpa. IN PTR"),
            (NAMES, "0.0.16.104.in-addr.arpa. IN PTR"),
        ] {
            let message = Message::from_vec(&query(number)).unwrap();
            assert_eq!(message.queries[0].to_string(), name);
        }
    }
}
