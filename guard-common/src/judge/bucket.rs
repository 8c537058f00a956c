//! Where the keys live: a flat array of buckets, each a lock, seven tags, and seven states.

use super::{Hop, KeyState, Rules, Ruling, Spelled, evidence::FORGET_TICKS};
use crate::{flow::Sighting, key::Key, time::Ticks};

/// Keys in a bucket.
pub const SLOTS: usize = 7;

/// Ticks after which a breaker that nobody asks for any more gives up its slot: 10 min, twice the longest hold.
const RETIRE_TICKS: u32 = 572_205;

/// The kernel's spin lock; it knows the type by this name (`include/uapi/linux/bpf.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct bpf_spin_lock {
    val: u32,
}

/// Keys whose hash falls into the same place: 64 bytes of lock and tags, then 64 bytes a key. Whoever changes
/// it holds the lock.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyBucket {
    /// The lock.
    pub lock: bpf_spin_lock,
    /// The slot that was picked last.
    picked: u32,
    tags: [Key; SLOTS],
    states: [KeyState; SLOTS],
}

const _: () = assert!(size_of::<KeyBucket>() == 512);

/// What a look at a key tells of a query: one of these, and the slot of the key where it is the first or the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look(pub usize);

impl Look {
    /// It says nothing, because it goes where the last one went.
    pub const REPEATS: usize = 0;
    /// It is held, whatever it is.
    pub const HELD: usize = 1 << 3;
    /// It says nothing, because it is the first one of a key that nobody waits for.
    pub const BEGINS: Self = Self(1 << 4);
    /// Only [`KeyBucket::query_into`] tells.
    pub const UNCLEAR: Self = Self(1 << 5);
}

/// What becomes of a query that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It says nothing, and has been put down.
    Passes,
    /// It says nothing, because it is the first one of a key that nobody waits for. [`KeyBucket::begin`] puts it down once
    /// it goes on: what a budget sheds of such queries leaves no trace.
    Begins,
    /// Nothing has changed: [`KeyBucket::query_into`] is to judge it.
    Unclear,
}

impl KeyBucket {
    /// Takes in a query of `key`, if it says nothing.
    #[inline(always)]
    pub fn takes(&mut self, key: Key, hop: &Hop, now: Ticks) -> Taken {
        let slot = match self.find(key) {
            Some(slot) => slot,
            None if may_begin(hop) => return Taken::Begins,
            None => return Taken::Unclear,
        };
        match self.picked(slot) {
            Some(state) => state.takes(hop, now, may_begin(hop)),
            None => Taken::Unclear,
        }
    }

    /// Whether a query of `key` is one that [`KeyBucket::takes`] finds to begin.
    pub fn begins(&self, key: Key, hop: &Hop, now: Ticks) -> bool {
        may_begin(hop) && self.state(key).is_none_or(|state| state.would_begin(hop, now))
    }

    /// What a look at `key` without the lock tells of a query that was not seen elsewhere: what another CPU changes
    /// meanwhile came later. `longest` is that of [`Rules::longest_ticks`].
    #[inline(always)]
    pub fn look(&self, key: Key, hop: &Hop, now: Ticks, longest: u32) -> Look {
        for slot in 0..SLOTS {
            if self.tags[slot] == key {
                let state = &self.states[slot];
                return if state.repeats(hop, now) {
                    Look(slot | Look::REPEATS)
                } else if state.holds(now, longest) {
                    Look(slot | Look::HELD)
                } else if state.would_begin(hop, now) {
                    Look::BEGINS
                } else {
                    Look::UNCLEAR
                };
            }
        }
        Look::BEGINS
    }

    /// Puts down a query that begins: its key is given a slot if it has none. False if every slot is taken by an open
    /// breaker. What another CPU has made of the key since a look has told so stays.
    #[inline(always)]
    pub fn begin(&mut self, key: Key, hop: &Hop, now: Ticks) -> bool {
        match self.entry(key, now) {
            Some(state) => {
                state.passes(hop, now);
                true
            }
            None => false,
        }
    }

    /// Puts down a query of the key in this slot that is held: how many have been in this hold, and when it ends. `random`
    /// is drawn for this query.
    #[inline(always)]
    pub fn note_held(&mut self, slot: usize, now: Ticks, random: u32) -> Option<(u32, Ticks)> {
        let state = self.states.get_mut(slot)?;
        Some((state.note_held(now, random), state.until()))
    }

    /// Puts down a query of the key in this slot that repeats. Where there are very many of them, the first in each step
    /// of the clock stands for the others: else CPUs that see the same key would take its line from each other for each.
    #[inline(always)]
    pub fn note_repeat(&mut self, slot: usize, hop: &Hop, now: Ticks) {
        if let Some(state) = self.states.get_mut(slot)
            && !state.is_busy(now)
        {
            state.note_repeat(hop, now);
        }
    }

    /// Judges one query of `key`. `None` when every slot is taken by an open breaker: the query passes.
    pub fn query(&mut self, key: Key, hop: &Hop, now: Ticks, rules: &Rules) -> Option<Ruling> {
        let mut ruling = Ruling::NOTHING;
        self.query_into(key, hop, now, rules, &mut ruling).then_some(ruling)
    }

    /// The same, with the ruling written where it belongs. False if there is none.
    #[inline(always)]
    pub fn query_into(&mut self, key: Key, hop: &Hop, now: Ticks, rules: &Rules, ruling: &mut Ruling) -> bool {
        match self.entry(key, now) {
            Some(state) => {
                state.query_into(hop, now, rules, ruling);
                true
            }
            None => false,
        }
    }

    /// Takes note of an answer (NOERROR, NXDOMAIN) for `key`; `asked` says whether its query was let through. A ruling is
    /// returned when it closed a breaker.
    #[inline(always)]
    pub fn answered(&mut self, key: Key, asked: bool, now: Ticks, rules: &Rules) -> Option<Ruling> {
        let slot = self.find(key)?;
        self.picked(slot)?.answered(asked, now, rules)
    }

    /// Takes in how a query of `key` is spelled whose [`Ruling::suspects`] asked for it. A ruling is returned when something
    /// comes of it.
    #[inline(always)]
    pub fn spelled(&mut self, key: Key, hop: &Hop, query: &Spelled, now: Ticks, rules: &Rules) -> Option<Ruling> {
        let slot = self.find(key)?;
        self.picked(slot)?.spelled(hop, query, now, rules)
    }

    /// Takes back a mark of `key`, because there is no room to remember how to undo it, from a query whose spelling has
    /// this digest, and would have had the other one with the mark; `others` says whether marks of other names take the
    /// room.
    #[inline(always)]
    pub fn unmark(&mut self, key: Key, digest: u64, flipped: u64, others: bool) {
        if let Some(slot) = self.find(key)
            && let Some(state) = self.picked(slot)
        {
            state.unmark(digest, flipped, others);
        }
    }

    /// Takes note of an error for `key`; `asked` says whether its query was let through. It settles nothing, but it shows
    /// that queries end.
    #[inline(always)]
    pub fn failed(&mut self, key: Key, asked: bool) {
        if let Some(slot) = self.find(key)
            && let Some(state) = self.picked(slot)
        {
            state.failed(asked);
        }
    }

    /// What is known of `key`.
    pub fn state(&self, key: Key) -> Option<&KeyState> {
        self.states.get(self.find(key)?)
    }

    /// Forgets `key` and its breaker. False if nothing is known of it.
    pub fn forget(&mut self, key: Key) -> bool {
        let Some(slot) = self.find(key) else { return false };
        self.tags[slot] = Key::default();
        self.states[slot] = KeyState::default();
        true
    }

    /// Whether a new key takes the place of one that is remembered for something, or finds none at all: every slot has
    /// an open breaker, or a key with hops that nobody has answered.
    pub fn is_full(&self, now: Ticks) -> bool {
        let in_use = |(tag, state): (&Key, &KeyState)| {
            let idle = now.since(state.touched);
            let is_of_use = if state.is_open() {
                idle <= RETIRE_TICKS
            } else {
                state.hops > 0 && idle <= FORGET_TICKS
            };
            *tag != Key::default() && is_of_use
        };
        self.tags.iter().zip(&self.states).all(in_use)
    }

    /// The state of `key`, which is given a slot if it has none. `None` if every slot is taken by an open breaker.
    #[inline(always)]
    fn entry(&mut self, key: Key, now: Ticks) -> Option<&mut KeyState> {
        let found = match self.find(key) {
            Some(slot) => Some(slot),
            None => self.claim(key, now),
        };
        self.picked(found?)
    }

    /// The state in a slot. The number goes through memory that the kernel's verifier does not follow: it would check
    /// everything that comes after once for each slot.
    #[inline(always)]
    fn picked(&mut self, slot: usize) -> Option<&mut KeyState> {
        self.picked = slot as u32;
        let this = core::hint::black_box(self);
        this.states.get_mut(this.picked as usize)
    }

    #[inline(always)]
    fn find(&self, key: Key) -> Option<usize> {
        let mut found = SLOTS;
        for slot in 0..SLOTS {
            if self.tags[slot] == key {
                found = slot;
            }
        }
        if found < SLOTS { Some(found) } else { None }
    }

    /// Gives `key` an empty slot, else that of the key that was quiet for longest; suspects count as eight times as
    /// recent, and open breakers are kept.
    #[inline(always)]
    fn claim(&mut self, key: Key, now: Ticks) -> Option<usize> {
        let mut victim = SLOTS;
        let mut quiet = 0;
        for slot in 0..SLOTS {
            let state = &self.states[slot];
            let idle = now.since(state.touched);
            let worth = if self.tags[slot] == Key::default() {
                u32::MAX
            } else if state.is_open() {
                if idle > RETIRE_TICKS { idle } else { 0 }
            } else if state.is_suspect() {
                (idle >> 3) + 1
            } else {
                idle + 1
            };
            if worth > quiet {
                quiet = worth;
                victim = slot;
            }
        }
        let state = self.states.get_mut(victim)?;
        *state = KeyState {
            touched: now,
            since: now,
            ..KeyState::default()
        };
        if victim < SLOTS {
            self.tags[victim] = key;
        }
        Some(victim)
    }
}

/// Whether a query may be put down only once it goes on. Where a host asks itself, all count: few hops are many there.
#[inline(always)]
const fn may_begin(hop: &Hop) -> bool {
    !hop.same_host && !matches!(hop.sighting, Sighting::Elsewhere)
}
