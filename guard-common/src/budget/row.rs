//! Which packets a budget counts.

use crate::{
    address::{Address, Prefix},
    budget::Rate,
    key::{Key, Secret},
    policy::{Action, Mode, Ranges},
};

/// Label counts by which a policy can tell zones.
pub const ZONES: usize = 4;
/// Interfaces that a row can be about.
pub const MAX_DEVICES: usize = 4;
/// Types that a row can be about.
pub const MAX_TYPES: usize = 4;

/// What shares a bucket.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything that the row is about.
    #[default]
    All = 0,
    /// What goes to its destinations, all of them together.
    Destination = 1,
    /// What comes from the same client prefix.
    Client = 2,
    /// What asks the same question.
    Key = 3,
    /// What asks for names in the same zone.
    Zone = 4,
    /// What passes the same interface.
    Interface = 5,
}

impl Scope {
    /// Its word in configuration, events and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Destination => "destination",
            Self::Client => "client",
            Self::Key => "key",
            Self::Zone => "zone",
            Self::Interface => "interface",
        }
    }

    #[inline(always)]
    const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Destination,
            2 => Self::Client,
            3 => Self::Key,
            4 => Self::Zone,
            5 => Self::Interface,
            _ => Self::All,
        }
    }
}

/// A query, as far as a row looks at it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject {
    /// Who asks.
    pub client: Address,
    /// Who is asked.
    pub server: Address,
    /// What for.
    pub key: Key,
    /// Digests of its zones, one for each label count of the policy; 0 where the name has fewer labels.
    pub zones: [u64; ZONES],
    /// The interface.
    pub ifindex: u32,
    /// The QTYPE.
    pub qtype: u16,
    /// Whether it is leaving.
    pub egress: bool,
    /// Whether this very packet has been seen on another interface of the node already.
    pub elsewhere: bool,
    /// Whether it has been seen on another one in the same direction.
    pub onward: bool,
}

/// What narrows a row down; everything that is empty leaves it as wide as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filters {
    /// Interface indexes; 0 for none.
    pub devices: [u32; MAX_DEVICES],
    /// QTYPEs; 0 for none.
    pub types: [u16; MAX_TYPES],
    /// The digest of the one zone that it is about; 0 for any.
    pub zone: u64,
    /// Index in the policy's label counts: of the zone that it is about, or of the zones that it tells apart.
    pub zone_index: u8,
    /// Destinations, in the policy's ranges.
    pub destinations: Ranges,
}

/// One budget, compiled: one scope, one prefix length for each family, one zone at the most.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How much it allows.
    pub rate: Rate,
    /// What tells its buckets from those of other rows. Stays the same as long as the budget means the same.
    id: u64,
    zone: u64,
    v4_mask: Address,
    v6_mask: Address,
    devices: [u32; MAX_DEVICES],
    types: [u16; MAX_TYPES],
    scope: u8,
    incoming: u8,
    outgoing: u8,
    action: u8,
    observes: u8,
    zone_index: u8,
    spare: u16,
    destinations: Ranges,
    rest: u32,
}

const _: () = assert!(size_of::<Row>() == 112);

impl Row {
    /// A row that is about nothing.
    pub const NONE: Self = Self::new(0, Scope::All, (false, false), Rate::EMPTY, Action::Drop, Mode::Observe);

    /// A row for the directions (in, out), whose `id` no other row has.
    pub const fn new(id: u64, scope: Scope, directions: (bool, bool), rate: Rate, action: Action, mode: Mode) -> Self {
        Self {
            rate,
            id,
            zone: 0,
            v4_mask: Address([u32::MAX; 4]),
            v6_mask: Address([u32::MAX; 4]),
            devices: [0; MAX_DEVICES],
            types: [0; MAX_TYPES],
            scope: scope as u8,
            incoming: directions.0 as u8,
            outgoing: directions.1 as u8,
            action: action as u8,
            observes: matches!(mode, Mode::Observe) as u8,
            zone_index: 0,
            spare: 0,
            destinations: Ranges::NONE,
            rest: 0,
        }
    }

    /// The same row with clients told apart by the first `v4` and `v6` bits of their addresses.
    #[must_use]
    pub const fn by_prefix(mut self, v4: u8, v6: u8) -> Self {
        self.v4_mask = Prefix::new([0xff; 16], 96 + v4).mask();
        self.v6_mask = Prefix::new([0xff; 16], v6).mask();
        self
    }

    /// The same row, narrowed down.
    #[must_use]
    pub const fn with(mut self, filters: &Filters) -> Self {
        self.devices = filters.devices;
        self.types = filters.types;
        self.zone = filters.zone;
        self.zone_index = filters.zone_index;
        self.destinations = filters.destinations;
        self
    }

    /// What happens to a query over budget.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        Action::from_u32(self.action as u32)
    }

    /// Whether it only watches, whatever the policy's mode.
    #[inline(always)]
    pub const fn observes(&self) -> bool {
        self.observes != 0
    }

    /// Its destinations, in the policy's ranges; none is all.
    #[inline(always)]
    pub const fn destinations(&self) -> Ranges {
        self.destinations
    }

    /// The tag of the bucket that a query is charged to; `None` if the row is not about it. Whether the query goes to
    /// one of the row's destinations is left to the caller, who has the ranges.
    #[inline(always)]
    pub fn tag(&self, subject: &Subject, secret: &Secret) -> Option<u64> {
        let direction = if subject.egress { self.outgoing } else { self.incoming };
        if direction == 0 {
            return None;
        }
        let names_devices = self.devices[0] != 0;
        if names_devices && !self.is_about(subject.ifindex) {
            return None;
        }
        let scope = Scope::from_u8(self.scope);
        // One packet crosses several interfaces. A row that is about some of them counts what it sees there; any other
        // row counts a packet once, where it sees it first.
        let counted = if self.incoming != 0 && self.outgoing != 0 {
            subject.elsewhere
        } else {
            subject.onward
        };
        if counted && !names_devices && !matches!(scope, Scope::Interface) {
            return None;
        }
        if self.types[0] != 0 && (subject.qtype == 0 || !self.types.contains(&subject.qtype)) {
            return None;
        }
        let zone = if (self.zone_index as usize) < ZONES {
            subject.zones[self.zone_index as usize]
        } else {
            0
        };
        if self.zone != 0 && zone != self.zone {
            return None;
        }
        let instance = match scope {
            Scope::All | Scope::Destination => 0,
            Scope::Client => self.prefix(&subject.client).digest(secret),
            Scope::Key => subject.key.0,
            Scope::Zone if zone == 0 => return None,
            Scope::Zone => zone,
            Scope::Interface => subject.ifindex as u64,
        };
        Some(self.tag_of(instance, secret))
    }

    /// Whether it gives every question a bucket, whoever asks it, and wherever.
    pub fn is_for_any_key(&self) -> bool {
        let narrows = self.devices[0] != 0 || self.types[0] != 0 || self.zone != 0 || !self.destinations.is_empty();
        self.scope == Scope::Key as u8 && !narrows
    }

    /// The tag of the bucket that a query of `key`, which was not seen elsewhere, is charged to, if that is so. `None` for the
    /// other direction.
    #[inline(always)]
    pub const fn tag_of_key(&self, key: Key, egress: bool, secret: &Secret) -> Option<u64> {
        let direction = if egress { self.outgoing } else { self.incoming };
        if direction == 0 {
            return None;
        }
        Some(self.tag_of(key.0, secret))
    }

    #[inline(always)]
    const fn tag_of(&self, instance: u64, secret: &Secret) -> u64 {
        let tag = secret.mix(self.id ^ secret.0[0], instance ^ secret.0[1]);
        if tag == 0 { 1 } else { tag }
    }

    #[inline(always)]
    fn is_about(&self, ifindex: u32) -> bool {
        let [a, b, c, d] = self.devices;
        ifindex == a || ifindex == b || ifindex == c || ifindex == d
    }

    #[inline(always)]
    const fn prefix(&self, address: &Address) -> Address {
        let mask = if address.is_v4() { &self.v4_mask } else { &self.v6_mask };
        let (a, m) = (&address.0, &mask.0);
        Address([a[0] & m[0], a[1] & m[1], a[2] & m[2], a[3] & m[3]])
    }
}
