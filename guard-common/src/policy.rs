//! The operator's policy in the form in which the kernel reads it.
//!
//! The agent writes a whole [`Policy`] into the slot of `POLICIES` that is not in use, then switches
//! [`Control::active`]. A packet is judged by the slot that it met first from its beginning to its end, and the agent
//! writes into a slot only when no packet is left that began before the last switch: what judges a packet is one whole
//! policy or the other.

use crate::{
    address::{Address, Prefix},
    budget::{LinkRules, Rate, Row, ZONES},
    hygiene::Hygiene,
    judge::Rules,
    key::{Key, Secret},
    packet::Ports,
};

/// Address ranges that a policy can trust.
pub const MAX_TRUSTED: usize = 32;
/// Rows of budgets that a policy can have.
pub const MAX_ROWS: usize = 64;
/// Address ranges that its rows and its hygiene can name together.
pub const MAX_RANGES: usize = 256;
/// Keys that the operator can allow.
pub const MAX_ALLOWED: usize = 32;
/// Words of the port set.
const PORT_WORDS: usize = 65_536 / 64;

/// Watch, or act.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Detect and count; touch no packet.
    #[default]
    Observe = 0,
    /// Answer or drop what is held.
    Enforce = 1,
}

/// What happens to a held query.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is answered in place with [`Policy::rcode`].
    #[default]
    Answer = 0,
    /// It is dropped in silence.
    Drop = 1,
}

impl Action {
    /// The action of a number; unknown numbers are `Answer`.
    #[inline(always)]
    pub const fn from_u32(number: u32) -> Self {
        if number == Self::Drop as u32 {
            Self::Drop
        } else {
            Self::Answer
        }
    }
}

/// One policy, whole. Plain data: every bit pattern of the right length is a value (modes and actions that are
/// unknown read as the first).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    mode: u32,
    action: u32,
    /// RCODE of an answer: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    pub rcode: u32,
    /// A repeat of the same query within fewer ticks is no client's.
    pub rapid_ticks: u32,
    /// The times of the breaker.
    pub rules: Rules,
    /// Answers that one client gets in one hold, and for one budget in a second; after that, silence.
    pub answers_per_client: u32,
    /// Queries held in one hold after which nobody gets an answer any more.
    pub answers_per_hold: u32,
    trusted_len: u32,
    trusted: [Prefix; MAX_TRUSTED],
    ports: [u64; PORT_WORDS],
    /// Whether the steps of the coarse clock (up to 10 ms) are too long for one of the budgets.
    pub fine_clock: u32,
    row_count: u32,
    range_count: u32,
    /// Of which label counts queries bring the digests of their zones: 1 to 7 labels from the right; 0 for none.
    pub zone_labels: [u8; ZONES],
    /// Where DNS may go, and where it may come from.
    pub hygiene: Hygiene,
    /// How fast one budget's clients get answers, all together.
    pub answer_rate: Rate,
    /// The link-local budgets.
    pub link: LinkRules,
    rows: [Row; MAX_ROWS],
    ranges: [Prefix; MAX_RANGES],
    /// The bank of `ROWS` in which its rows are counted: 0 or 1.
    row_bank: u32,
    allowed_count: u32,
    allowed: [Key; MAX_ALLOWED],
}

/// Ranges of the policy: the first, and how many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    first: u16,
    count: u16,
}

impl Ranges {
    /// No range at all.
    pub const NONE: Self = Self { first: 0, count: 0 };

    /// Whether there is none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Both numbers in one.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        (self.first as u32) << 16 | self.count as u32
    }

    /// The ranges of a number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self {
            first: (number >> 16) as u16,
            count: number as u16,
        }
    }
}

impl Policy {
    /// A policy without ports, which looks at nothing, and without trusted ranges, which answers nobody.
    pub const fn new(mode: Mode, action: Action, rules: Rules) -> Self {
        Self {
            mode: mode as u32,
            action: action as u32,
            rcode: 2,
            rapid_ticks: 0,
            rules,
            answers_per_client: 0,
            answers_per_hold: 0,
            trusted_len: 0,
            trusted: [Prefix::new([0; 16], 128); MAX_TRUSTED],
            ports: [0; PORT_WORDS],
            fine_clock: 0,
            row_count: 0,
            range_count: 0,
            zone_labels: [0; ZONES],
            hygiene: Hygiene::NONE,
            answer_rate: Rate::EMPTY,
            link: LinkRules::NONE,
            rows: [Row::NONE; MAX_ROWS],
            ranges: [Prefix::new([0; 16], 128); MAX_RANGES],
            row_bank: 0,
            allowed_count: 0,
            allowed: [Key(0); MAX_ALLOWED],
        }
    }

    /// Adds a budget's row; they are asked in this order, and the first that has no room decides. False if there is no
    /// room for it.
    pub fn add_row(&mut self, row: Row) -> bool {
        let Some(slot) = self.rows.get_mut(self.row_count as usize) else {
            return false;
        };
        *slot = row;
        self.row_count += 1;
        true
    }

    /// The row with this number.
    #[inline(always)]
    pub fn row(&self, index: u32) -> Option<&Row> {
        if index >= self.row_count {
            return None;
        }
        // The mask is the bound that the kernel's verifier follows.
        Some(&self.rows[index as usize & (MAX_ROWS - 1)])
    }

    /// How many rows there are.
    #[inline(always)]
    pub const fn row_count(&self) -> u32 {
        self.row_count
    }

    /// Counts its rows in this bank of `ROWS`: two policies whose rows mean different things never share one.
    pub const fn count_in(&mut self, bank: u32) {
        self.row_bank = bank & 1;
    }

    /// Where in `ROWS` the row with this number is counted.
    #[inline(always)]
    pub const fn row_slot(&self, index: u32) -> u32 {
        (self.row_bank & 1) * MAX_ROWS as u32 + (index & (MAX_ROWS as u32 - 1))
    }

    /// Whether it has neither budgets nor rules of hygiene, so that only the judge has a say; link-local budgets aside.
    #[inline(always)]
    pub const fn is_without_rules(&self) -> bool {
        self.row_count == 0 && self.hygiene.is_empty()
    }

    /// Allows a key: it is only watched, whatever the mode. False if there is no room for it.
    pub fn allow(&mut self, key: Key) -> bool {
        let Some(slot) = self.allowed.get_mut(self.allowed_count as usize) else {
            return false;
        };
        *slot = key;
        self.allowed_count += 1;
        true
    }

    /// Whether the operator has allowed this key.
    #[inline(always)]
    pub fn allows(&self, key: Key) -> bool {
        let mut allowed = false;
        for index in 0..MAX_ALLOWED {
            if index as u32 >= self.allowed_count {
                break;
            }
            allowed |= self.allowed[index] == key;
        }
        allowed
    }

    /// Adds ranges for a row or for hygiene. `None` if there is no room for them.
    pub fn add_ranges(&mut self, prefixes: &[Prefix]) -> Option<Ranges> {
        let first = self.range_count as usize;
        let slots = self.ranges.get_mut(first..first + prefixes.len())?;
        slots.copy_from_slice(prefixes);
        self.range_count += prefixes.len() as u32;
        Some(Ranges {
            first: first as u16,
            count: prefixes.len() as u16,
        })
    }

    /// Whether one of the ranges holds this address.
    #[inline(always)]
    pub fn holds(&self, ranges: Ranges, address: &Address) -> bool {
        let mut held = 0;
        for index in 0..MAX_RANGES {
            if index >= ranges.count as usize {
                break;
            }
            // The mask is the bound that the kernel's verifier follows.
            held |= self.ranges[(ranges.first as usize + index) & (MAX_RANGES - 1)].bit_of(address);
        }
        held != 0
    }

    /// Watch, or act.
    #[inline(always)]
    pub const fn mode(&self) -> Mode {
        if self.mode == Mode::Enforce as u32 {
            Mode::Enforce
        } else {
            Mode::Observe
        }
    }

    /// What happens to a held query.
    #[inline(always)]
    pub const fn action(&self) -> Action {
        Action::from_u32(self.action)
    }

    /// Whether every query that is held is dropped, whoever sends it.
    #[inline(always)]
    const fn drops_what_is_held(&self) -> bool {
        matches!((self.mode(), self.action()), (Mode::Enforce, Action::Drop)) && self.allowed_count == 0
    }

    /// Sets how many answers there are: for one client in a hold, and for all clients in a hold; the same for each budget
    /// in a second.
    pub fn limit_answers(&mut self, per_client: u32, per_hold: u32) {
        self.answers_per_client = per_client;
        self.answers_per_hold = per_hold;
        self.answer_rate = Rate::new(per_hold.into(), 1, per_hold).unwrap_or(Rate::EMPTY);
    }

    /// Adds a port on which DNS is spoken.
    pub const fn add_port(&mut self, port: u16) {
        self.ports[port as usize / 64] |= 1 << (port % 64);
    }

    /// Whether DNS is spoken on this port.
    #[inline(always)]
    pub const fn has_port(&self, port: u16) -> bool {
        self.ports[port as usize / 64] >> (port % 64) & 1 != 0
    }

    /// Adds a range whose addresses get answers. False if there is no room for it.
    pub fn trust(&mut self, prefix: Prefix) -> bool {
        let Some(slot) = self.trusted.get_mut(self.trusted_len as usize) else {
            return false;
        };
        *slot = prefix;
        self.trusted_len += 1;
        true
    }

    /// Whether this address gets answers.
    #[inline(always)]
    pub fn trusts(&self, address: &Address) -> bool {
        let mut trusted = 0;
        for index in 0..MAX_TRUSTED {
            if index as u32 >= self.trusted_len {
                break;
            }
            trusted |= self.trusted[index].bit_of(address);
        }
        trusted != 0
    }
}

/// What the kernel reads first for every DNS packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// Nanoseconds of the monotonic clock until which the policy holds. The agent moves it on while it lives; once it
    /// is over, everything passes.
    pub lease_until_ns: u64,
    /// The slot of `POLICIES` that is in use: 0 or 1.
    pub active: u32,
    /// Counts the policies that have been put in force.
    pub generation: u32,
    /// Drawn when the maps are made; the keys in the tables mean nothing without it.
    pub secret: Secret,
    /// Samples that each CPU takes of either kind in a 60th of a second, before it takes fewer of more.
    pub sample_quota: u32,
    /// Whether the policy has link-local budgets: 0 or 1.
    pub has_links: u32,
    /// A bit for each port on which DNS is spoken, at its number modulo 64: whatever has neither port there is no DNS.
    pub port_bits: u64,
    /// A repeat of the same query within fewer ticks is no client's; as in the policy.
    pub rapid_ticks: u32,
    /// Whether a query that says nothing may take the short way: 0 or 1. Nothing but the judge and budgets have a say on it
    /// then, the coarse clock will do, and no more ports speak DNS than stand here.
    pub is_short: u32,
    /// Ports on which DNS is spoken, sixteen bits each, the last of them again where there are fewer.
    pub ports: u64,
    /// Zero, which only the kernel's verifier does not know.
    pub zero: u64,
    /// The most ticks that a hold or a test lasts; as in the policy.
    pub longest_ticks: u32,
    /// Whether the policy has budgets that the short way charges: 0, 1, [`Control::ONE_ROW_FOR_ANY_KEY`], or
    /// [`Control::ROWS_OF_ZONES`].
    pub has_rows: u32,
    /// Whether every query that is held is dropped, whoever sends it: 0 or 1.
    pub drops_held: u32,
    /// Nothing.
    pub spare: u32,
    /// Nothing.
    pub rest: [u64; 3],
}

const _: () = assert!(size_of::<Control>() == 128);

/// Ports that the short way knows.
const SHORT_PORTS: u32 = 4;

impl Control {
    /// There is one budget, and it limits every question by itself.
    pub const ONE_ROW_FOR_ANY_KEY: u32 = 2;
    /// Some of the budgets ask for zones.
    pub const ROWS_OF_ZONES: u32 = 3;

    /// Takes from a policy what is asked of every packet.
    pub fn summarise(&mut self, policy: &Policy) {
        self.has_links = !policy.link.is_empty() as u32;
        self.port_bits = policy.ports.iter().fold(0, |bits, word| bits | word);
        self.rapid_ticks = policy.rapid_ticks;
        self.longest_ticks = policy.rules.longest_ticks();
        self.drops_held = policy.drops_what_is_held() as u32;
        let mut ports = (0..=u16::MAX).filter(|port| policy.has_port(*port));
        let mut last = 0;
        self.ports = 0;
        for _ in 0..SHORT_PORTS {
            last = ports.next().unwrap_or(last);
            self.ports = self.ports << 16 | u64::from(last);
        }
        let is_long = !policy.hygiene.is_empty() || !policy.link.is_empty();
        self.is_short = (!is_long && policy.fine_clock == 0 && ports.next().is_none()) as u32;
        self.has_rows = match &policy.rows[..policy.row_count as usize] {
            [] => 0,
            [row] if row.is_for_any_key() => Self::ONE_ROW_FOR_ANY_KEY,
            _ if policy.zone_labels != [0; ZONES] => Self::ROWS_OF_ZONES,
            _ => 1,
        };
    }

    /// The same number, of which the kernel's verifier knows nothing any more: it would check what comes after once for each
    /// way in which the number may have come about.
    #[inline(always)]
    pub const fn blur(&self, number: usize) -> usize {
        number ^ self.zero as usize
    }

    /// Whether DNS is spoken on this port, of a policy for the short way.
    #[inline(always)]
    pub const fn has_port(&self, port: u16) -> bool {
        const ONES: u64 = 0x0001_0001_0001_0001;
        // Mostly there is one, or this is the last.
        if port == self.ports as u16 {
            return true;
        }
        let others = self.ports ^ ((port as u64) * ONES);
        // Whether one of the four is zero.
        others.wrapping_sub(ONES) & !others & (ONES << 15) != 0
    }

    /// Whether one of these may be a port on which DNS is spoken. If not, there is no need to look at the policy.
    #[inline(always)]
    pub const fn may_be_dns(&self, ports: Ports) -> bool {
        let [source, destination] = ports.modulo_64();
        (self.port_bits >> source | self.port_bits >> destination) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(
            Mode::Observe,
            Action::Answer,
            Rules {
                hold_ticks: 1,
                hold_max_ticks: 1,
                test_ticks: 1,
                marks: 0,
            },
        )
    }

    #[test]
    fn ports_are_a_set() {
        let mut policy = policy();
        policy.add_port(53);
        policy.add_port(65_535);
        assert!(policy.has_port(53) && policy.has_port(65_535));
        assert!(!policy.has_port(0) && !policy.has_port(52) && !policy.has_port(54) && !policy.has_port(117));
    }

    #[test]
    fn a_fresh_policy_trusts_nobody() {
        assert!(!policy().trusts(&Address::default()));
    }

    #[test]
    fn what_is_allowed_is_those_keys_and_no_others() {
        let mut policy = policy();
        assert!(!policy.allows(Key(0)) && !policy.allows(Key(7)));
        assert!((1..=MAX_ALLOWED as u64).all(|number| policy.allow(Key(number))));
        assert!(!policy.allow(Key(99)));
        assert!(policy.allows(Key(1)) && policy.allows(Key(MAX_ALLOWED as u64)));
        assert!(!policy.allows(Key(0)) && !policy.allows(Key(99)));
    }

    #[test]
    fn the_banks_of_rows_do_not_meet() {
        let mut policy = policy();
        assert_eq!((policy.row_slot(0), policy.row_slot(63)), (0, 63));
        policy.count_in(1);
        assert_eq!((policy.row_slot(0), policy.row_slot(63)), (64, 127));
    }

    #[test]
    fn ranges_beyond_the_last_slot_are_refused() {
        let mut policy = policy();
        for _ in 0..MAX_TRUSTED {
            assert!(policy.trust(Prefix::new([9; 16], 128)));
        }
        assert!(!policy.trust(Prefix::new([0; 16], 0)));
        assert!(!policy.trusts(&Address::default()));
    }
}
