//! Frames that others have made: real ones, and those of the lab, which hickory-proto and etherparse build.

use std::sync::LazyLock;

use guard_sim::random::Random;
use guard_tests::{
    frame::{Edns0, HELD, Query, left_to_the_card},
    question::ResponseCode,
};

use super::{Chance as _, spoil};

/// What came in on `lo` between two dnsmasq 2.90, a third that pointed back, and a client that asked over both families,
/// with and without EDNS: queries, answers, errors, cookies, checksums that are left to a card. A frame a line.
const CAPTURED: &str = include_str!("../../corpus/dnsmasq-on-lo.hex");

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| CAPTURED.lines().map(from_hex).chain(of_the_lab()).collect());

/// One of them, as it is or spoiled.
pub(crate) fn seed(random: &mut Random) -> Vec<u8> {
    let mut frame = SEEDS[random.below(SEEDS.len() as u64) as usize].clone();
    if random.once_in(2) {
        spoil(random, &mut frame);
    }
    frame
}

fn from_hex(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| {
        str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    digits.filter_map(byte).collect()
}

/// Queries and their answers, behind tags, whole and with a checksum that a card is to complete.
fn of_the_lab() -> Vec<Vec<u8>> {
    let ends = [
        ["192.0.2.1:40000", "192.0.2.2:53"],
        ["[2001:db8::1]:40000", "[2001:db8::2]:53"],
    ];
    let mut frames = Vec::new();
    for (ends, vlans) in ends.into_iter().zip([vec![7, 4094], vec![7]]) {
        for edns in [Edns0::Without, Edns0::With { dnssec_ok: true }] {
            let Ok(mut query) = Query::new("Web.Service.Consul", ends[0], ends[1]) else {
                continue;
            };
            query.edns = edns;
            frames.extend(query.frame());
            frames.extend(query.frame().and_then(|frame| left_to_the_card(&frame)));
            query.envelope.vlans.clone_from(&vlans);
            frames.extend(query.frame());
            frames.extend(query.answer_frame(ResponseCode::ServFail, HELD));
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use guard_common::packet::Packet;

    use super::*;

    #[test]
    fn every_seed_is_a_frame_whose_ports_are_found() {
        assert_eq!(SEEDS.len(), 23 + 16);
        for seed in SEEDS.iter() {
            let packet = Packet::walk(seed.as_slice()).unwrap();
            assert!(packet.source_port == 53 || packet.destination_port == 53, "{seed:02x?}");
        }
    }
}
