//! The link-local budget: what one interface sends to services that AWS polices together.
//!
//! Above 1024 packets a second an elastic network interface loses packets to DNS, IMDS and time service alike, in
//! silence (Amazon VPC user guide, "DNS quotas"). One bucket for each interface counts every packet to them. When it
//! runs short, DNS is shed in this order, and nothing else is shed at all:
//!
//! | first | what | while the bucket is |
//! |---|---|---|
//! | repeat | a query whose source waits for the answer to the same question | below three quarters |
//! | share | a query of a source that has more than its share | below what its share asks for |
//! | exhausted | any other | empty, and so is the reserve |
//!
//! What is held by a breaker does not come here: it does not leave. The reserve is a second, small bucket for DNS alone,
//! a sixteenth of the rate: whatever else takes all of the first one, names of sources that ask little still resolve.
//!
//! The share is max-min fair without anybody adding up sources: a source may have had, lately, as many packets as the
//! square of the bucket's level allows (after the dynamic thresholds of Choudhury and Hahne, 1998). Heavy sources draw
//! the level down until all of them stand at the same bound; whoever asks for less never meets it. Within a source that
//! is above its share, a zone that has taken little is let through until the source has twice its share: so a sweep
//! behind one forwarder does not take the other names of that forwarder with it.

use super::{Bucket, Rate, Subject, meter::SHARE_HALF_SHIFT, share::PACKET};
use crate::{
    address::Address,
    judge::bpf_spin_lock,
    key::Secret,
    policy::{Action, Mode},
    remedy::Reason,
    time::Ticks,
};

/// Interfaces that can have a link-local budget: an instance has 15 at most.
pub const MAX_LINKS: usize = 16;
/// Addresses of link-local services.
pub const MAX_SERVICES: usize = 16;

/// The part of the rate, and of the burst, that the reserve has.
const RESERVE_RATE: u32 = 16;
const RESERVE_BURST: u32 = 8;
/// Packets that a source may always have had lately.
const SMALL_SHARE: u32 = 2 * PACKET;

/// A link-local service.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Service {
    /// The resolver.
    #[default]
    Dns = 0,
    /// The instance metadata service.
    Imds = 1,
    /// The time service.
    Ntp = 2,
    /// Any other.
    Other = 3,
}

impl Service {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Dns, Self::Imds, Self::Ntp, Self::Other];

    /// Its word in metrics and messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Imds => "imds",
            Self::Ntp => "ntp",
            Self::Other => "other",
        }
    }

    /// The service of a number; unknown numbers are `Other`.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Dns,
            1 => Self::Imds,
            2 => Self::Ntp,
            _ => Self::Other,
        }
    }
}

/// The link-local budgets of a policy: one rate, a bucket for each interface.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LinkRules {
    rate: Rate,
    reserve: Rate,
    /// The share at a full bucket, in sixteenths of a packet.
    full_share: u64,
    /// The level of a full bucket, in sixteenths of a packet.
    full_level: u64,
    /// The level below which repeats are shed, in sixteenths of a packet.
    repeat_level: u64,
    /// Of each service's last byte, its lower six bits: what is not in here goes to none of them.
    last_bytes: u64,
    services: [Address; MAX_SERVICES],
    service_kinds: [u8; MAX_SERVICES],
    devices: [u32; MAX_LINKS],
    service_count: u8,
    device_count: u8,
    action: u8,
    observes: u8,
    spare: u32,
}

impl LinkRules {
    /// No budget on any interface.
    pub const NONE: Self = Self {
        rate: Rate::EMPTY,
        reserve: Rate::EMPTY,
        full_share: 0,
        full_level: 1,
        repeat_level: 0,
        last_bytes: 0,
        services: [Address([0; 4]); MAX_SERVICES],
        service_kinds: [0; MAX_SERVICES],
        devices: [0; MAX_LINKS],
        service_count: 0,
        device_count: 0,
        action: 0,
        observes: 0,
        spare: 0,
    };

    /// `limit` packets a second, 1 to 100,000, and `burst` at once, 1 to 100,000; `None` otherwise. It is about no
    /// interface and no service yet.
    pub fn new(limit: u32, burst: u32, action: Action, mode: Mode) -> Option<Self> {
        if !(1..=100_000).contains(&limit) || !(1..=100_000).contains(&burst) {
            return None;
        }
        // A source that has all of the rate to itself stands at limit * half-life / ln 2 packets. The bucket is then
        // half full: the other half is for whoever comes next.
        let half_ns = 1_u64 << (Ticks::SHIFT + SHARE_HALF_SHIFT);
        let standing = u64::from(limit) * u64::from(PACKET) * half_ns / 693_147_181;
        Some(Self {
            rate: Rate::new(limit.into(), 1, burst)?,
            reserve: Rate::new((limit / RESERVE_RATE).max(1).into(), 1, (burst / RESERVE_BURST).max(1))?,
            // The share goes with the square of the level.
            full_share: standing * 4,
            full_level: u64::from(burst) * u64::from(PACKET),
            repeat_level: u64::from(burst) * 12,
            action: action as u8,
            observes: matches!(mode, Mode::Observe) as u8,
            ..Self::NONE
        })
    }

    /// Adds an address. False if there is no room for it.
    pub fn add_service(&mut self, address: Address, service: Service) -> bool {
        let at = self.service_count as usize;
        let (Some(slot), Some(kind)) = (self.services.get_mut(at), self.service_kinds.get_mut(at)) else {
            return false;
        };
        *slot = address;
        *kind = service as u8;
        self.last_bytes |= Self::last_byte(&address);
        self.service_count += 1;
        true
    }

    /// Adds an interface. False if there is no room for it.
    pub fn add_device(&mut self, ifindex: u32) -> bool {
        let Some(slot) = self.devices.get_mut(self.device_count as usize) else {
            return false;
        };
        *slot = ifindex;
        self.device_count += 1;
        true
    }

    /// Whether no interface has a budget.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.device_count == 0
    }

    /// How much it allows.
    pub const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// What happens to a query that is shed.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        Action::from_u32(self.action as u32)
    }

    /// Whether it only watches, whatever the policy's mode.
    #[inline(always)]
    pub const fn observes(&self) -> bool {
        self.observes != 0
    }

    /// The number of an interface's budget; `None` if it has none.
    #[inline(always)]
    pub fn link_of(&self, ifindex: u32) -> Option<u32> {
        for link in 0..MAX_LINKS {
            if link as u8 >= self.device_count {
                break;
            }
            if self.devices[link] == ifindex {
                return Some(link as u32);
            }
        }
        None
    }

    /// The service at an address, if it is one of them.
    #[inline(always)]
    pub fn service_at(&self, address: &Address) -> Option<Service> {
        if self.last_bytes & Self::last_byte(address) == 0 {
            return None;
        }
        for index in 0..MAX_SERVICES {
            if index as u8 >= self.service_count {
                break;
            }
            if self.services[index].is(address) {
                return Some(Service::from_u8(self.service_kinds[index]));
            }
        }
        None
    }

    /// The share that a source may have at a level, in sixteenths of a packet; never less than two packets.
    #[inline(always)]
    pub fn share_at(&self, level: u64) -> u32 {
        let filled = (level << 16).checked_div(self.full_level).unwrap_or(0);
        let share = (filled * filled).wrapping_mul(self.full_share) >> 32;
        if share < SMALL_SHARE as u64 {
            SMALL_SHARE
        } else if share > u32::MAX as u64 {
            u32::MAX
        } else {
            share as u32
        }
    }

    #[inline(always)]
    const fn last_byte(address: &Address) -> u64 {
        1 << (u32::from_be(address.0[3]) & 63)
    }
}

/// The bucket of one interface: a cache line. Whoever changes it holds the lock.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkBudget {
    /// The lock.
    pub lock: bpf_spin_lock,
    spare: u32,
    bucket: Bucket,
    reserve: Bucket,
    rest_of_line: [u64; 5],
}

const _: () = assert!(size_of::<LinkBudget>() == 64);

impl LinkBudget {
    /// What is left, in sixteenths of a packet.
    #[inline(always)]
    pub fn level(&self, rules: &LinkRules, now_ns: u64) -> u64 {
        self.bucket.level(&rules.rate, now_ns)
    }

    /// Takes what a DNS query needs, if it is there or in the reserve.
    #[inline(always)]
    pub fn take(&mut self, rules: &LinkRules, now_ns: u64, packets: u32) -> bool {
        self.bucket.take(&rules.rate, now_ns, packets) || self.reserve.take(&rules.reserve, now_ns, packets)
    }

    /// Takes what a packet needs that is never shed.
    #[inline(always)]
    pub fn charge(&mut self, rules: &LinkRules, now_ns: u64, packets: u32) {
        self.bucket.overdraw(&rules.rate, now_ns, packets);
    }
}

/// The tags of the shares of a query's source, and of its zone within that source. `link` stands for the budget.
#[inline(always)]
pub fn share_tags(subject: &Subject, link: u32, secret: &Secret) -> (u64, u64) {
    let source = subject.client.digest(secret) ^ link as u64;
    let zone = secret.mix(source ^ secret.0[0], subject.zones[0] ^ secret.0[1]);
    (source | 1, zone | 1)
}

/// Whether a source is above its share, asked for what it and its zone may have: `source` and `zone` add the packet to
/// a share unless it has reached the limit that they are given, and return what it had before.
#[inline(always)]
pub fn exceeds_share(limit: u32, mut source: impl FnMut(u32) -> u32, mut zone: impl FnMut(u32) -> u32) -> bool {
    let had = source(limit);
    if had < limit {
        zone(u32::MAX);
        return false;
    }
    let twice = limit.saturating_mul(2);
    if had >= twice || zone(limit >> 2) >= limit >> 2 {
        return true;
    }
    source(u32::MAX);
    false
}

/// Why a DNS query is shed before the bucket is asked, if it is. `repeats` says whether its source waits for the same
/// answer already; `exceeds_share` is told what a source may have.
#[inline(always)]
pub fn sheds(rules: &LinkRules, level: u64, repeats: bool, exceeds_share: impl FnOnce(u32) -> bool) -> Option<Reason> {
    if repeats && level < rules.repeat_level {
        return Some(Reason::Repeat);
    }
    if exceeds_share(rules.share_at(level)) {
        return Some(Reason::Share);
    }
    None
}
