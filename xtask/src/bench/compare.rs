//! The figures of now beside those of a file.

use std::collections::BTreeMap;

use super::record::{PacketRecord, Record};
use crate::number::grouped;

const LABEL: usize = 46;

/// What a difference comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Faster,
    Slower,
    /// One of the two medians lies within what the rounds of the other spread over.
    Noise,
}

impl Change {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Noise => "within the spread",
        }
    }
}

/// What changed for one packet.
pub(super) fn change(before: &PacketRecord, now: &PacketRecord) -> Change {
    if spread(before).contains(&now.ratio_to_empty) || spread(now).contains(&before.ratio_to_empty) {
        Change::Noise
    } else if now.ratio_to_empty < before.ratio_to_empty {
        Change::Faster
    } else {
        Change::Slower
    }
}

/// The ratios that the rounds spread over, as far as their nanoseconds tell.
fn spread(packet: &PacketRecord) -> std::ops::RangeInclusive<f64> {
    let scale = packet.ratio_to_empty / packet.ns_median;
    packet.ns_min * scale..=packet.ns_max * scale
}

/// A line for each packet that both have.
pub(super) fn render(before: &[Record], now: &[Record]) -> String {
    let key = |packet: &PacketRecord| (packet.program.clone(), packet.packet.clone(), packet.live_keys);
    let before: BTreeMap<_, _> = packets(before).map(|packet| (key(packet), packet)).collect();
    let mut text = String::new();
    let mut program = "";
    let mut noise = 0;
    let mut shared = 0;
    for now in packets(now) {
        let Some(before) = before.get(&key(now)) else { continue };
        if now.program != program {
            program = &now.program;
            text += &format!(
                "\n{program:<LABEL$}{:>10}{:>8}{:>8}{:>8}\n",
                "live keys", "before", "now", "change"
            );
        }
        let change = change(before, now);
        shared += 1;
        noise += u32::from(change == Change::Noise);
        text += &format!(
            "{:<LABEL$}{:>10}{:>8.2}{:>8.2}{:>+7.0}%  {}\n",
            now.packet,
            grouped(now.live_keys.into()),
            before.ratio_to_empty,
            now.ratio_to_empty,
            (now.ratio_to_empty / before.ratio_to_empty - 1.0) * 100.0,
            change.word()
        );
    }
    if shared == 0 {
        return "\nno packet was measured both times\n".to_owned();
    }
    text + &format!(
        "\nEach ratio is to the empty program of its own time. Of {shared} packets, {noise} differ by no more than\n\
         the rounds of one time do among themselves: nothing can be said of those.\n"
    )
}

fn packets(records: &[Record]) -> impl Iterator<Item = &PacketRecord> {
    records.iter().filter_map(|record| match record {
        Record::Packet(packet) => Some(packet),
        Record::Other(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(ratio_to_empty: f64, spread: [f64; 2]) -> PacketRecord {
        let [low, high] = spread;
        PacketRecord {
            program: "dnsguard_xdp".into(),
            packet: "query, 20 bytes".into(),
            live_keys: 1,
            // An empty program takes 10 ns.
            ns_median: ratio_to_empty * 10.0,
            ns_min: low * 10.0,
            ns_max: high * 10.0,
            ratio_to_empty,
            verified_insns: None,
        }
    }

    #[test]
    fn a_difference_within_the_spread_is_none() {
        let before = packet(6.0, [5.8, 6.5]);
        assert_eq!(change(&before, &packet(6.4, [6.3, 6.6])), Change::Noise);
        assert_eq!(change(&before, &packet(6.6, [5.9, 6.7])), Change::Noise);
        assert_eq!(change(&before, &packet(6.6, [6.55, 6.7])), Change::Slower);
        assert_eq!(change(&before, &packet(5.0, [4.9, 5.9])), Change::Faster);
    }

    #[test]
    fn the_lines_say_what_changed() {
        let before = [Record::Packet(packet(6.0, [5.8, 6.5]))];
        let now = [Record::Packet(packet(3.0, [2.9, 3.1]))];
        let text = render(&before, &now);
        let line = "query, 20 bytes                                        1    6.00    3.00    -50%  faster\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("Of 1 packets, 0 differ"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(render(&[], &now), "\nno packet was measured both times\n");
    }
}
