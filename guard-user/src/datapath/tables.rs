//! The maps, by what they mean.

use std::{
    fs::File,
    io::{self, Read as _},
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use guard_common::{
    abi,
    counter::{Counters, RowCount},
    judge::{KeyBucket, KeyState},
    key::{Key, Secret},
    policy::{Control, MAX_ROWS, Policy},
    time::Ticks,
};

use tracing::debug;

use super::{object, pressure::Lines};
use crate::sys;

/// Take the value's spin lock while copying it (`BPF_F_LOCK`, include/uapi/linux/bpf.h).
pub(super) const LOCKED: u64 = 4;

/// No packet is judged for so long.
const PACKET: Duration = Duration::from_millis(20);

/// Samples that all CPUs together take of either kind in a 60th of a second before they take fewer: some 4,000 a second.
/// Of those the ring buffer holds most of a second, and the agent looks four times a second.
const SAMPLES_PER_WINDOW: u32 = 64;
/// What each CPU takes at least: not all that are possible have work.
const LEAST_SAMPLES: u32 = 4;

/// A map that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapFault {
    #[error("the kernel object has no usable map {0}: it is not the one of this agent; rebuild both")]
    Missing(&'static str),
    #[error("map {name}: {source}")]
    Access { name: &'static str, source: MapError },
    #[error("cannot draw a secret from /dev/urandom: {0}")]
    Random(#[source] io::Error),
}

/// The open maps.
pub(crate) struct Kernel {
    control: Array<MapData, Control>,
    policies: Array<MapData, Policy>,
    keys: Array<MapData, KeyBucket>,
    counters: PerCpuArray<MapData, Counters>,
    rows: PerCpuArray<MapData, RowCount>,
    lines: Lines,
    /// The bank of `rows` that is in use.
    bank: u32,
    cpus: u32,
}

impl Kernel {
    /// Takes the maps that the agent uses out of the loaded object, and sees to it that there is a secret.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let mut kernel = Self {
            control: take(ebpf, abi::CONTROL)?,
            policies: take(ebpf, abi::POLICIES)?,
            keys: take(ebpf, abi::KEYS)?,
            counters: take(ebpf, abi::COUNTERS)?,
            rows: take(ebpf, abi::ROWS)?,
            lines: Lines::take(ebpf)?,
            bank: 0,
            cpus: nr_cpus().unwrap_or(1) as u32,
        };
        if kernel.secret()? == Secret::default() {
            let mut words = [0; 4];
            let mut random = File::open("/dev/urandom").map_err(MapFault::Random)?;
            for word in &mut words {
                let mut bytes = [0; 8];
                random.read_exact(&mut bytes).map_err(MapFault::Random)?;
                *word = u64::from_ne_bytes(bytes);
            }
            kernel.change_control(|control| control.secret = Secret(words))?;
        }
        Ok(kernel)
    }

    fn control(&self) -> Result<Control, MapFault> {
        self.control.get(&0, 0).map_err(|source| MapFault::Access {
            name: abi::CONTROL,
            source,
        })
    }

    /// What the kernel hashes names and addresses with.
    pub(crate) fn secret(&self) -> Result<Secret, MapFault> {
        Ok(self.control()?.secret)
    }

    /// Changes what programs read first, and returns it. The kernel copies a map value by words.
    fn change_control(&mut self, change: impl FnOnce(&mut Control)) -> Result<Control, MapFault> {
        let _writing = object::writing_control();
        let mut control = self.control()?;
        change(&mut control);
        self.control.set(0, control, 0).map_err(|source| MapFault::Access {
            name: abi::CONTROL,
            source,
        })?;
        Ok(control)
    }

    /// Puts a policy in force, whole, whose rows mean what those of the one before it meant; returns its generation.
    pub(crate) fn switch(&mut self, policy: &Policy) -> Result<u32, MapFault> {
        // What is overwritten is the policy before this one: a packet may still be judged by it.
        wait_for_running_programs();
        self.write(policy)
    }

    /// The same, once no packet is left that is judged by the policy before this one.
    fn write(&mut self, policy: &Policy) -> Result<u32, MapFault> {
        let slot = (self.control()?.active & 1) ^ 1;
        let quota = (SAMPLES_PER_WINDOW / self.cpus).max(LEAST_SAMPLES);
        let access = |source| MapFault::Access {
            name: abi::POLICIES,
            source,
        };
        let mut counting = *policy;
        counting.count_in(self.bank);
        self.policies.set(slot, counting, 0).map_err(access)?;
        let control = self.change_control(|control| {
            // Slot and generation share a word.
            control.active = slot;
            control.generation = control.generation.wrapping_add(1);
            control.summarise(policy);
            control.sample_quota = quota;
        })?;
        Ok(control.generation)
    }

    /// Puts a policy in force, whole, whose rows mean something else, and which begin to count at zero; returns its
    /// generation, and what the first `row_count` rows of the one before it have counted to their end.
    ///
    /// It waits twice for as long as the kernel takes to be done with the packets that it has, which can be a tenth of a
    /// second: whoever asks the agent something meanwhile is answered.
    pub(crate) async fn replace(&mut self, policy: &Policy, row_count: u32) -> Result<(u32, Vec<RowCount>), MapFault> {
        running_programs_ended().await;
        let before = self.bank;
        self.bank ^= 1;
        let switched = self.clear_rows().and_then(|()| self.write(policy));
        let generation = switched.inspect_err(|_| self.bank = before)?;
        running_programs_ended().await;
        let rows = (0..row_count).map(|index| self.row_in(before, index));
        Ok((generation, rows.collect::<Result<_, _>>()?))
    }

    /// The same with the first policy of an agent: what was counted for another agent's is not asked for.
    pub(crate) fn begin(&mut self, policy: &Policy) -> Result<u32, MapFault> {
        self.bank ^= 1;
        self.clear_rows()?;
        self.switch(policy)
    }

    /// Lets the policy hold until a moment of the monotonic clock.
    pub(crate) fn lease(&mut self, until_ns: u64) -> Result<(), MapFault> {
        self.change_control(|control| control.lease_until_ns = until_ns)
            .map(drop)
    }

    /// What was counted at an interface, for each CPU.
    pub(crate) fn counters(&self, ifindex: u32) -> Result<Vec<Counters>, MapFault> {
        let values = self.counters.get(&abi::device_slot(ifindex), 0);
        let values = values.map_err(|source| MapFault::Access {
            name: abi::COUNTERS,
            source,
        })?;
        Ok(values.iter().copied().collect())
    }

    /// What a row of the policy counted, on all CPUs.
    pub(crate) fn row(&self, index: u32) -> Result<RowCount, MapFault> {
        self.row_in(self.bank, index)
    }

    fn row_in(&self, bank: u32, index: u32) -> Result<RowCount, MapFault> {
        let values = self.rows.get(&(bank * MAX_ROWS as u32 + index), 0);
        let values = values.map_err(|source| MapFault::Access {
            name: abi::ROWS,
            source,
        })?;
        Ok(values.iter().fold(RowCount::default(), |sum, count| RowCount {
            within: sum.within.wrapping_add(count.within),
            over: sum.over.wrapping_add(count.over),
        }))
    }

    /// Sets the counts of all rows back: they are those of another policy.
    fn clear_rows(&mut self) -> Result<(), MapFault> {
        let access = |source| MapFault::Access {
            name: abi::ROWS,
            source,
        };
        let first = self.bank * MAX_ROWS as u32;
        for index in first..first + MAX_ROWS as u32 {
            let zeroes = vec![RowCount::default(); self.cpus as usize];
            let zeroes = PerCpuValues::try_from(zeroes).map_err(|error| access(error.into()))?;
            self.rows.set(index, zeroes, 0).map_err(access)?;
        }
        Ok(())
    }

    /// What is remembered of a key; `None` if nothing is.
    pub(crate) fn state(&self, key: Key) -> Result<Option<KeyState>, MapFault> {
        Ok(self.bucket(key)?.state(key).copied())
    }

    /// Forgets a key and its breaker. False if nothing was known of it.
    ///
    /// The bucket is read and written back, each under its lock: what another CPU notes of its other keys between the two
    /// is lost. Those are microseconds, and a loop among them is told a packet later.
    pub(crate) fn forget(&mut self, key: Key) -> Result<bool, MapFault> {
        let mut bucket = self.bucket(key)?;
        if !bucket.forget(key) {
            return Ok(false);
        }
        let written = self.keys.set(abi::key_bucket(key), bucket, LOCKED);
        written.map_err(|source| MapFault::Access {
            name: abi::KEYS,
            source,
        })?;
        Ok(true)
    }

    fn bucket(&self, key: Key) -> Result<KeyBucket, MapFault> {
        let bucket = self.keys.get(&abi::key_bucket(key), LOCKED);
        bucket.map_err(|source| MapFault::Access {
            name: abi::KEYS,
            source,
        })
    }

    /// How full the tables are: of each the share of its lines, 0 to 1, in which a newcomer makes somebody forgotten who
    /// is still of use. A look costs some hundred system calls.
    pub(crate) fn pressure(&mut self, now: Ticks) -> Result<[(&'static str, f64); 4], MapFault> {
        self.lines.pressure(&self.keys, now)
    }

    /// Bytes of each map.
    pub(crate) fn map_bytes() -> impl Iterator<Item = (&'static str, u64)> {
        object::bytes(nr_cpus().unwrap_or(1))
    }
}

impl super::Datapath {
    /// The ring buffer of events; there is one reader.
    pub(crate) fn take_events(&mut self) -> Result<RingBuf<MapData>, MapFault> {
        take(&mut self.ebpf, abi::EVENTS)
    }

    /// The ring buffer of samples; there is one reader, and nobody wakes him.
    pub(crate) fn take_samples(&mut self) -> Result<RingBuf<MapData>, MapFault> {
        take(&mut self.ebpf, abi::SAMPLES)
    }
}

/// Waits until no packet is left that is judged by a policy of before, in a thread of its own.
async fn running_programs_ended() {
    if let Err(error) = tokio::task::spawn_blocking(wait_for_running_programs).await {
        debug!("no thread waits for packets: {error}; waiting here");
        wait_for_running_programs();
    }
}

/// Waits until no packet is left that is judged by a policy of before.
fn wait_for_running_programs() {
    if let Err(error) = sys::wait_for_running_programs() {
        debug!("membarrier: {error}; waiting for {} ms instead", PACKET.as_millis());
        thread::sleep(PACKET);
    }
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, MapFault> {
    let map = ebpf.take_map(abi::map_in_object(name)).ok_or(MapFault::Missing(name))?;
    M::try_from(map).map_err(|source| MapFault::Access { name, source })
}
