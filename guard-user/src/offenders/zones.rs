//! Zones that much is asked about: hierarchical heavy hitters over the suffixes of names.
//!
//! For each number of labels there is a table of the heaviest suffixes. Named are, from the deepest up, those whose
//! weight without what is named below them is at least [`PHI`] of everything, so that each query counts in one zone:
//!
//! - A zone has many names. A suffix that is heavy because of a few hot names is none, nor are those above it: these
//!   names stand among the keys.
//! - What has less than half the weight of a zone above it that is named as well goes into that zone: which of the many
//!   children of a swept zone come to the fore is chance.
//! - In the trees of `in-addr.arpa` and `ip6.arpa`, two zones or more side by side are parts of one range of
//!   addresses, and the zone above them is named in their place.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, sync::Arc};

use super::heavy::{FADE_NS, Heavy};
use crate::name::Name;

/// Labels of the deepest suffixes. Of an IPv6 address in `ip6.arpa` that is a /72.
const DEPTHS: usize = 20;
/// The share of everything from which on a zone is named.
const PHI: f64 = 0.1;
/// Samples of a suffix, from which on it is more than chance.
const MIN_SAMPLES: u32 = 4;
/// Names that make a zone.
const MIN_NAMES: u32 = 6;
/// Zones side by side in a reverse tree that are one range.
const MIN_SIBLINGS: usize = 2;

/// The tables.
#[derive(Debug)]
pub(super) struct Zones {
    /// The suffixes of one label, of two, and so on.
    depths: Vec<Heavy<Arc<[u8]>, Names>>,
    /// Whole names: what a suffix weighs as a name of its own.
    names: Heavy<Arc<[u8]>>,
    hasher: RandomState,
}

/// Which names were seen below a suffix lately: a bit for each hash. No fewer names than bits.
#[derive(Debug, Default)]
struct Names {
    bits: u64,
    before: u64,
    since_ns: u64,
}

/// A zone that much is asked about.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// Its name in wire form.
    pub(super) suffix: Arc<[u8]>,
    /// Queries, fading.
    pub(super) count: f64,
    /// By how much that can be off.
    pub(super) error: f64,
    /// Their share of everything, 0 to 1.
    pub(super) share: f64,
    /// By how much that can be off.
    pub(super) share_error: f64,
    depth: usize,
    is_zone: bool,
}

impl Zones {
    /// With at most `room` suffixes of each number of labels.
    pub(super) fn new(room: usize) -> Self {
        Self {
            depths: (0..DEPTHS).map(|_| Heavy::new(room)).collect(),
            names: Heavy::new(room),
            hasher: RandomState::new(),
        }
    }

    /// Adds a sample that stands for `weight` queries.
    pub(super) fn add(&mut self, name: &Name, weight: u32, now_ns: u64) {
        let bit = 1 << (self.hasher.hash_one(name.wire()) >> 58);
        self.names.add(name.wire(), weight, now_ns, |wire| Arc::from(wire));
        for (labels, table) in (1..=name.labels()).zip(&mut self.depths) {
            table
                .add(name.suffix(labels), weight, now_ns, |wire| Arc::from(wire))
                .see(bit, now_ns);
        }
    }

    /// The zones, the heaviest first.
    pub(super) fn named(&self, now_ns: u64) -> Vec<Zone> {
        let mut named = Vec::new();
        // Every name has a last label.
        let total = self.depths.first().map_or(0.0, |table| table.total(now_ns));
        for (at, table) in self.depths.iter().enumerate().rev() {
            for weight in table.heaviest(now_ns) {
                if weight.count < PHI * total {
                    break;
                }
                if weight.samples < MIN_SAMPLES {
                    continue;
                }
                let own = self.names.get(&**weight.item, now_ns).map_or(0.0, |own| own.count);
                let found = Zone {
                    suffix: Arc::clone(weight.item),
                    count: weight.count,
                    error: weight.error,
                    share: weight.count / total,
                    share_error: weight.share_error * table.total(now_ns) / total,
                    depth: at + 1,
                    is_zone: weight.note.count(now_ns) >= MIN_NAMES,
                };
                place(&mut named, found, own, total);
            }
        }
        named.retain(|found| found.is_zone);
        named.sort_by(|one, other| other.count.total_cmp(&one.count));
        named
    }
}

/// Names a suffix, if what is named below it leaves enough. It comes with all that it weighs, and is a zone if it has
/// the names of one; `own` is what it weighs as a name of its own.
fn place(named: &mut Vec<Zone>, mut found: Zone, own: f64, total: f64) {
    let whole = found.count;
    let (below, parts) = below(named, &found);
    let rest = whole - below;
    if rest < PHI * total && !(is_range(&found) && parts >= MIN_SIBLINGS) {
        return;
    }
    // A hot name is a key, also if there is a zone that is called by it.
    let is_hot = own >= PHI * total && own * 2.0 >= whole;
    found.is_zone &= !is_hot || rest - own >= PHI * total;
    if found.is_zone {
        named.retain(|one| !is_below(one, &found) || one.count * 2.0 >= whole);
        if is_hot {
            named.push(Zone {
                count: own,
                is_zone: false,
                ..found.clone()
            });
        }
    }
    let own = if found.is_zone && is_hot { own } else { 0.0 };
    let (below, _) = self::below(named, &found);
    let left = (whole - below - own).max(0.0);
    found.share *= left / whole;
    found.count = left;
    named.push(found);
}

/// What is named below a suffix: how much it weighs, and how many zones that is.
fn below(named: &[Zone], found: &Zone) -> (f64, usize) {
    let below = named.iter().filter(|one| is_below(one, found));
    below.fold((0.0, 0), |(weight, zones), one| {
        (weight + one.count, zones + usize::from(one.is_zone))
    })
}

fn is_below(one: &Zone, other: &Zone) -> bool {
    one.depth > other.depth && suffix_of(&one.suffix, one.depth - other.depth) == Some(&*other.suffix)
}

/// A name in wire form without its first `labels` labels.
fn suffix_of(wire: &[u8], labels: usize) -> Option<&[u8]> {
    let mut rest = wire;
    for _ in 0..labels {
        let length = usize::from(*rest.first()?);
        rest = rest.get(1 + length..)?;
    }
    Some(rest)
}

/// Whether it stands for a range of addresses.
fn is_range(zone: &Zone) -> bool {
    zone.depth >= 3
        && suffix_of(&zone.suffix, zone.depth - 2)
            .is_some_and(|tree| tree == b"\x07in-addr\x04arpa\0" || tree == b"\x03ip6\x04arpa\0")
}

impl Names {
    fn see(&mut self, bit: u64, now_ns: u64) {
        let age_ns = now_ns.saturating_sub(self.since_ns);
        if age_ns > 2 * FADE_NS {
            self.before = if age_ns > 4 * FADE_NS { 0 } else { self.bits };
            self.bits = 0;
            self.since_ns = now_ns;
        }
        self.bits |= bit;
    }

    fn count(&self, now_ns: u64) -> u32 {
        if now_ns.saturating_sub(self.since_ns) > 4 * FADE_NS {
            0
        } else {
            (self.bits | self.before).count_ones()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::name;

    const SECOND: u64 = 1_000_000_000;

    /// A generator that any run repeats.
    fn random() -> impl FnMut(u64) -> u64 {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        }
    }

    fn add(zones: &mut Zones, name: &str, weight: u32, now_ns: u64) {
        zones.add(&Name::parse(name).unwrap(), weight, now_ns);
    }

    fn named(zones: &Zones, now_ns: u64) -> Vec<String> {
        zones
            .named(now_ns)
            .iter()
            .map(|zone| name::text(&zone.suffix))
            .collect()
    }

    proptest! {
        #[test]
        fn zones_share_no_query_and_have_many_names(
            queries in proptest::collection::vec((proptest::collection::vec(0_u8..9, 1..5), 1_u32..9, 0_u8..3), 1..400),
        ) {
            let mut zones = Zones::new(4_096);
            let mut below = HashMap::<Vec<u8>, HashSet<Vec<u8>>>::new();
            let mut weights = HashMap::<Vec<u8>, f64>::new();
            for (labels, weight, tree) in queries {
                let labels: Vec<_> = labels.iter().map(u8::to_string).collect();
                let tree = ["in-addr.arpa", "com", "ip6.arpa"][usize::from(tree)];
                let name = Name::parse(&format!("{}.{tree}", labels.join("."))).unwrap();
                zones.add(&name, weight, 0);
                for labels in 1..=name.labels() {
                    below.entry(name.suffix(labels).to_vec()).or_default().insert(name.wire().to_vec());
                    *weights.entry(name.suffix(labels).to_vec()).or_default() += f64::from(weight);
                }
            }
            let named = zones.named(0);
            prop_assert!(named.iter().map(|zone| zone.share).sum::<f64>() <= 1.0 + 1e-6);
            for zone in &named {
                prop_assert!(below[&*zone.suffix].len() >= MIN_NAMES as usize);
                prop_assert!(zone.share >= PHI - 1e-6 && zone.count <= weights[&*zone.suffix] + 1e-6, "{zone:?}");
            }
        }
    }

    #[test]
    fn a_sweep_over_a_12_is_named_by_its_first_octet() {
        let mut random = random();
        // From the first samples on.
        for samples in [32, 100, 500, 5_000] {
            let mut zones = Zones::new(128);
            for sample in 0..samples {
                let (b, c, d) = (16 + random(16), random(256), random(256));
                add(
                    &mut zones,
                    &format!("{d}.{c}.{b}.104.in-addr.arpa"),
                    8,
                    sample * 200_000,
                );
            }
            assert_eq!(named(&zones, SECOND), ["104.in-addr.arpa."], "{samples} samples");
            assert!(zones.named(SECOND)[0].share > 0.99);
        }
    }

    #[test]
    fn parts_of_a_range_are_named_as_one() {
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..1_000 {
            let (b, c, d) = (16 + random(4), random(256), random(256));
            add(&mut zones, &format!("{d}.{c}.{b}.104.in-addr.arpa"), 1, 0);
        }
        assert_eq!(named(&zones, 0), ["104.in-addr.arpa."]);
        assert!(zones.named(0)[0].share > 0.99);
    }

    #[test]
    fn a_sweep_from_one_end_is_named_by_where_it_is() {
        let mut zones = Zones::new(128);
        for address in 0..10_000 {
            let (c, d) = (address / 256, address % 256);
            add(
                &mut zones,
                &format!("{d}.{c}.16.104.in-addr.arpa"),
                1,
                address * 200_000,
            );
        }
        assert_eq!(named(&zones, 2 * SECOND), ["16.104.in-addr.arpa."]);
    }

    #[test]
    fn a_sweep_over_ipv6_is_named_as_deep_as_we_look() {
        let (mut zones, mut random) = (Zones::new(128), random());
        let digits = |number: u64, count: usize| -> String {
            (0..count).map(|at| format!("{:x}.", number >> (4 * at) & 15)).collect()
        };
        for _ in 0..1_000 {
            let host = digits(random(1 << 32) << 32 | random(1 << 32), 16);
            add(
                &mut zones,
                &format!("{host}{}ip6.arpa", digits(0x2001_0db8_0000_0007, 16)),
                1,
                0,
            );
        }
        let prefix = digits(0x2001_0db8_0000_0007, 16);
        assert_eq!(named(&zones, 0), [format!("{prefix}ip6.arpa.")]);
        let mut zones = Zones::new(128);
        for _ in 0..100 {
            let host = digits(7, 16);
            add(&mut zones, &format!("{host}{prefix}ip6.arpa"), 1, 0);
        }
        assert!(named(&zones, 0).is_empty(), "one name is no zone");
    }

    #[test]
    fn random_subdomains_are_named_by_their_victim() {
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..2_000 {
            let (a, b) = (random(1 << 40), random(1 << 40));
            add(&mut zones, &format!("{a:x}-{b:x}.victim.example.com"), 4, 0);
            add(&mut zones, &format!("www{}.site{}.net", random(4), random(400)), 4, 0);
        }
        assert_eq!(named(&zones, 0), ["victim.example.com.", "net."]);
    }

    #[test]
    fn a_hot_name_is_no_zone_and_makes_none() {
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..1_000 {
            add(&mut zones, "hot.example.com", 2, 0);
            add(&mut zones, &format!("host{}.lan", random(30)), 1, 0);
        }
        assert_eq!(named(&zones, 0), ["lan."]);
    }

    #[test]
    fn a_zone_is_named_beside_the_hot_name_it_is_called_by() {
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..1_000 {
            add(&mut zones, "example.com", 3, 0);
            add(&mut zones, &format!("{:x}.example.com", random(1 << 40)), 1, 0);
        }
        assert_eq!(named(&zones, 0), ["example.com."]);
        let share = zones.named(0)[0].share;
        assert!((0.2..0.3).contains(&share), "{share}");
    }

    #[test]
    fn what_is_spread_over_the_world_has_no_zone() {
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..5_000 {
            add(&mut zones, &format!("www.a{}.t{}", random(1_000), random(100)), 1, 0);
        }
        assert!(named(&zones, 0).is_empty());
    }

    #[test]
    fn labels_are_compared_whole() {
        // The bytes of the one suffix end like the other, yet it is not below it.
        let (mut zones, mut random) = (Zones::new(128), random());
        for _ in 0..500 {
            let label = format!("{:08x}", random(1 << 32));
            let mut wire = [&[8][..], label.as_bytes(), b"\x05a\x03com\0"].concat();
            zones.add(&Name::read(&wire).unwrap(), 1, 0);
            wire.truncate(9);
            wire.extend_from_slice(b"\x01b\x03com\0");
            zones.add(&Name::read(&wire).unwrap(), 1, 0);
        }
        let mut names = named(&zones, 0);
        names.sort();
        assert_eq!(names, ["a\\003com.", "b.com."]);
    }

    #[test]
    fn a_storm_that_is_over_is_not_named() {
        let (mut zones, mut random) = (Zones::new(64), random());
        for _ in 0..1_000 {
            add(&mut zones, &format!("{:x}.old.example", random(1 << 40)), 1, 0);
        }
        for query in 0..600 {
            add(
                &mut zones,
                &format!("{:x}.new.example", random(1 << 40)),
                1,
                (25 * SECOND) + query * SECOND / 60,
            );
        }
        assert_eq!(named(&zones, 35 * SECOND), ["new.example."]);
    }
}
