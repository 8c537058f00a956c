//! The heaviest items of a stream, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005) over weighted items: an item that is not in the table takes the
//! place of the lightest one and inherits its weight, which is by how much it can be overestimated. Whatever has more
//! than the `room`th part of all weight is in the table, however many other items there are.
//!
//! What is old fades, to a third in [`FADE_NS`], so that a weight is one of the last ten seconds or so. The fading is
//! done forwards (Cormode and others 2009, "Forward decay"): instead of old weights that shrink, new ones grow, and the
//! order in the table never changes by itself.

use std::{
    borrow::Borrow,
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hash},
};

use hashbrown::HashTable;

/// Nanoseconds in which a weight fades to 1/e: 5 s, the mean age in a window of 10 s.
pub(super) const FADE_NS: u64 = 5_000_000_000;
/// Nanoseconds after which the growth starts again from 1: 16 times the above. e^32 is far from any limit of an `f64`.
const RESCALE_NS: u64 = 16 * FADE_NS;

/// The table. Each item has a note that is dropped with it.
#[derive(Debug)]
pub(super) struct Heavy<K, N = ()> {
    room: usize,
    slots: Vec<Slot<K, N>>,
    /// Numbers of the slots: a binary heap, the lightest on top.
    heap: Vec<usize>,
    /// Numbers of the slots, by the hashes of their items: an item is hashed once for each sample, also where it takes
    /// the place of another one.
    index: HashTable<usize>,
    hasher: RandomState,
    /// Weight and variance of everything, in units that have grown since `landmark_ns`.
    total: f64,
    variance: f64,
    landmark_ns: u64,
    latest_ns: u64,
}

#[derive(Debug)]
struct Slot<K, N> {
    item: K,
    hash: u64,
    note: N,
    weight: f64,
    /// Of that, what it has inherited.
    inherited: f64,
    variance: f64,
    samples: u32,
    /// Its place in the heap.
    at: usize,
}

/// What is known of an item. Counts fade.
#[derive(Debug)]
pub(super) struct Weight<'a, K, N> {
    /// The item.
    pub(super) item: &'a K,
    /// Its note.
    pub(super) note: &'a N,
    /// Its count: not too low but for the sampling.
    pub(super) count: f64,
    /// By how much the count can be off: what it may have inherited, and twice the deviation of the sampling.
    pub(super) error: f64,
    /// Its share of everything, 0 to 1.
    pub(super) share: f64,
    /// By how much the share can be off.
    pub(super) share_error: f64,
    /// Samples of it since it is in the table.
    pub(super) samples: u32,
}

impl<K: Eq + Hash, N: Default> Heavy<K, N> {
    /// A table of at most `room` items, at least one.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room: room.max(1),
            slots: Vec::new(),
            heap: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            total: 0.0,
            variance: 0.0,
            landmark_ns: 0,
            latest_ns: 0,
        }
    }

    /// Adds a sample of an item that stands for `weight` of its kind; `own` makes the item if it is not there yet.
    /// Returns its note.
    pub(super) fn add<Q>(&mut self, item: &Q, weight: u32, now_ns: u64, own: impl FnOnce(&Q) -> K) -> &mut N
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let growth = self.advance(now_ns);
        let weight = f64::from(weight);
        // What a sample drawn with probability 1/w adds to the variance of a sum of such samples.
        let variance = weight * (weight - 1.0).max(0.0) * growth * growth;
        let weight = weight * growth;
        self.total += weight;
        self.variance += variance;
        let hash = self.hasher.hash_one(item);
        let number = match self.find(hash, item) {
            Some(number) => number,
            None if self.slots.len() < self.room => self.insert(hash, own(item)),
            None => self.replace(hash, own(item)),
        };
        let slot = &mut self.slots[number];
        slot.weight += weight;
        slot.variance += variance;
        slot.samples = slot.samples.saturating_add(1);
        let at = slot.at;
        self.sink(at);
        &mut self.slots[number].note
    }

    /// The items, the heaviest first, without those that may as well be there by chance: those that have inherited
    /// more than they brought along, and those that have faded.
    pub(super) fn heaviest(&self, now_ns: u64) -> Vec<Weight<'_, K, N>> {
        let fading = self.fading(now_ns);
        let mut heaviest: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.inherited * 2.0 <= slot.weight && slot.weight * fading >= 0.5)
            .map(|slot| self.weigh(slot, fading))
            .collect();
        heaviest.sort_by(|one, other| other.count.total_cmp(&one.count));
        heaviest
    }

    /// What is known of an item, if it is in the table.
    pub(super) fn get<Q>(&self, item: &Q, now_ns: u64) -> Option<Weight<'_, K, N>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let number = self.find(self.hasher.hash_one(item), item)?;
        Some(self.weigh(&self.slots[number], self.fading(now_ns)))
    }

    /// The count of everything.
    pub(super) fn total(&self, now_ns: u64) -> f64 {
        self.total * self.fading(now_ns)
    }

    fn find<Q>(&self, hash: u64, item: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let is_it = |number: &usize| self.slots[*number].item.borrow() == item;
        self.index.find(hash, is_it).copied()
    }

    fn weigh<'a>(&self, slot: &'a Slot<K, N>, fading: f64) -> Weight<'a, K, N> {
        let share = slot.weight / self.total;
        // Of a share: the item and the rest are sampled apart from each other.
        let rest = (self.variance - slot.variance).max(0.0);
        let deviation = ((1.0 - share).powi(2) * slot.variance + share.powi(2) * rest).sqrt();
        Weight {
            item: &slot.item,
            note: &slot.note,
            count: slot.weight * fading,
            error: (slot.inherited + 2.0 * slot.variance.sqrt()) * fading,
            share,
            share_error: (slot.inherited + 2.0 * deviation) / self.total,
            samples: slot.samples,
        }
    }

    /// How much a weight of now has grown.
    fn advance(&mut self, now_ns: u64) -> f64 {
        if self.slots.is_empty() {
            self.landmark_ns = now_ns;
        }
        // Two CPUs may tell of the same moment in either order.
        self.latest_ns = self.latest_ns.max(now_ns);
        if self.latest_ns - self.landmark_ns > RESCALE_NS {
            let fading = self.fading(self.latest_ns);
            self.total *= fading;
            self.variance *= fading * fading;
            for slot in &mut self.slots {
                slot.weight *= fading;
                slot.inherited *= fading;
                slot.variance *= fading * fading;
            }
            self.landmark_ns = self.latest_ns;
        }
        1.0 / self.fading(self.latest_ns)
    }

    fn fading(&self, now_ns: u64) -> f64 {
        let age_ns = now_ns.max(self.latest_ns).saturating_sub(self.landmark_ns);
        (-(age_ns as f64) / FADE_NS as f64).exp()
    }

    fn insert(&mut self, hash: u64, item: K) -> usize {
        let number = self.slots.len();
        self.slots.push(Slot {
            item,
            hash,
            note: N::default(),
            weight: 0.0,
            inherited: 0.0,
            variance: 0.0,
            samples: 0,
            at: number,
        });
        self.enlist(hash, number);
        self.heap.push(number);
        self.rise(number);
        number
    }

    /// Puts an item in the place of the lightest.
    fn replace(&mut self, hash: u64, item: K) -> usize {
        let number = self.heap[0];
        let slot = &mut self.slots[number];
        if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other == number) {
            entry.remove();
        }
        slot.item = item;
        slot.hash = hash;
        slot.note = N::default();
        slot.inherited = slot.weight;
        slot.samples = 0;
        self.enlist(hash, number);
        number
    }

    fn enlist(&mut self, hash: u64, number: usize) {
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |number| slots[*number].hash);
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.is_lighter(at, (at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut child = 2 * at + 1;
            if child + 1 < self.heap.len() && self.is_lighter(child + 1, child) {
                child += 1;
            }
            if child >= self.heap.len() || !self.is_lighter(child, at) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }

    fn is_lighter(&self, one: usize, other: usize) -> bool {
        self.slots[self.heap[one]].weight < self.slots[self.heap[other]].weight
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.slots[self.heap[one]].at = one;
        self.slots[self.heap[other]].at = other;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn add(heavy: &mut Heavy<u64>, item: u64, weight: u32, now_ns: u64) {
        heavy.add(&item, weight, now_ns, |item| *item);
    }

    proptest! {
        #[test]
        fn every_count_is_within_its_bound_and_no_heavy_item_is_missing(
            stream in proptest::collection::vec((0_u64..40, 1_u32..50), 1..600),
            room in 1_usize..12,
        ) {
            let mut heavy = Heavy::<u64>::new(room);
            let mut exact = HashMap::<u64, u64>::new();
            for (item, weight) in &stream {
                add(&mut heavy, *item, *weight, 7);
                *exact.entry(*item).or_default() += u64::from(*weight);
            }
            let total: u64 = exact.values().sum();
            prop_assert!((heavy.total(7) - total as f64).abs() < 1e-6);
            prop_assert!(heavy.slots.len() <= room && heavy.index.len() == heavy.slots.len());
            for slot in &heavy.slots {
                let true_weight = exact[&slot.item] as f64;
                prop_assert!(slot.weight + 1e-6 >= true_weight);
                prop_assert!(slot.weight - slot.inherited <= true_weight + 1e-6);
                prop_assert!(slot.inherited <= total as f64 / room as f64 + 1e-6);
            }
            for (item, weight) in exact {
                prop_assert!(weight as f64 <= total as f64 / room as f64 || heavy.get(&item, 7).is_some());
            }
            for at in 1..heavy.heap.len() {
                prop_assert!(!heavy.is_lighter(at, (at - 1) / 2));
                prop_assert_eq!(heavy.slots[heavy.heap[at]].at, at);
            }
        }

        #[test]
        fn time_never_breaks_the_table(steps in proptest::collection::vec((0_u64..6, 0_u64..40), 1..300)) {
            let mut heavy = Heavy::<u64>::new(3);
            let mut now_ns = 0_u64;
            for (item, magnitude) in steps {
                now_ns = now_ns.wrapping_add(1 << magnitude);
                add(&mut heavy, item, 5, now_ns);
                let heaviest = heavy.heaviest(now_ns);
                let total = heavy.total(now_ns);
                prop_assert!(total.is_finite() && total > 4.99);
                for weight in heaviest {
                    prop_assert!(weight.count.is_finite() && weight.count <= total + 1e-6 && weight.error >= 0.0);
                }
            }
        }
    }

    #[test]
    fn a_million_other_items_do_not_push_out_a_heavy_one() {
        let mut heavy = Heavy::<u64>::new(128);
        for other in 0..1_000_000 {
            add(&mut heavy, 1_000 + other, 1, other * 4_000);
            if other % 50 == 0 {
                add(&mut heavy, 1, 1, other * 4_000);
            }
        }
        let heaviest = heavy.heaviest(4 * SECOND);
        assert_eq!(heaviest.iter().map(|weight| *weight.item).collect::<Vec<_>>(), [1]);
        let weight = &heaviest[0];
        assert!((0.015..0.03).contains(&weight.share), "{}", weight.share);
        assert!(
            (weight.share - 1.0 / 51.0).abs() <= weight.share_error + 1e-4,
            "{}",
            weight.share_error
        );
    }

    #[test]
    fn what_is_old_fades() {
        let mut heavy = Heavy::<u64>::new(4);
        add(&mut heavy, 1, 100, SECOND);
        assert!((heavy.total(6 * SECOND) - 36.8).abs() < 0.1);
        for second in 10..100 {
            add(&mut heavy, 2, 10, second * SECOND);
        }
        let heaviest = heavy.heaviest(100 * SECOND);
        assert_eq!((heaviest.len(), *heaviest[0].item), (1, 2));
        // Ten a second, for long enough: five seconds' worth of it.
        assert!((40.0..55.0).contains(&heaviest[0].count), "{}", heaviest[0].count);
        assert!(heavy.heaviest(100_000 * SECOND).is_empty());
        add(&mut heavy, 3, 1, 100_000 * SECOND);
        assert_eq!(heavy.heaviest(100_000 * SECOND).len(), 1);
    }

    #[test]
    fn the_error_covers_the_sampling() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 8) % limit
        };
        let mut covered = 0;
        for _ in 0..200 {
            let mut heavy = Heavy::<u64>::new(16);
            for query in 0..4_000 {
                if below(8) == 0 {
                    add(&mut heavy, u64::from(query % 4 == 0), 8, 0);
                }
            }
            let weight = heavy.get(&1, 0).unwrap();
            let is_off = (weight.count - 1_000.0).abs() > weight.error;
            let share_is_off = (weight.share - 0.25).abs() > weight.share_error;
            covered += u32::from(!is_off) + u32::from(!share_is_off);
            assert!(weight.error < 300.0 && weight.share_error < 0.1);
        }
        assert!(covered > 400 * 90 / 100, "{covered} of 400");
    }
}
