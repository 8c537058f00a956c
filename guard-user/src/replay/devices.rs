//! The interfaces of a capture, and which way its packets went.
//!
//! The judge knows interfaces by their index. Those of a capture get indexes of their own, those that the configuration
//! names before all others: so its budgets know them again by name.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use guard_common::{
    abi::DEVICE_SLOTS,
    address::{Address, Prefix},
    case::LOOPBACK_IFINDEX,
};

use super::link::Told;
use crate::{config::Cidr, selection::interface_name};

const LOOPBACK: &str = "lo";
/// What a packet is at where nobody says what it was at.
const UNNAMED: &str = "capture";
/// What Linux calls all interfaces together.
const ANY: &str = "any";
/// What all are called for which there is no room.
const OTHERS: &str = "others";
/// Interfaces that are told apart: as many as are counted apart.
const MOST: usize = DEVICE_SLOTS - 2;
/// What is remembered of what captures write of interfaces.
const MAX_ORIGINS: usize = 4_096;

/// The interfaces that are known so far.
#[derive(Debug)]
pub(super) struct Devices {
    /// Their names; the index is the place, from 1 on.
    names: Vec<String>,
    origins: HashMap<Origin, u32>,
    /// That of the packet before: most are at the same one.
    latest: Option<(Origin, u32)>,
    given: Vec<Given>,
    /// What packets are at that neither say it nor look like loopback.
    guess: String,
    local: Vec<Prefix>,
    /// How many of them the configuration names.
    guarded: usize,
}

/// What is written in a capture of the interface of a packet: its place there, its index, whether it is loopback.
type Origin = (usize, Option<u32>, bool);

/// The name of an interface that the capture does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The index that the capture has; none if it has none.
    index: Option<u32>,
    name: String,
}

/// Addresses of the host that the capture is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    range: Cidr,
    /// Unless it is a range.
    address: Option<IpAddr>,
}

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ifindex: u32,
    pub(super) egress: bool,
}

impl Devices {
    /// Those that are guarded. Packets that do not name their interface are at the one that was given; without it, what
    /// looks like loopback is at `lo`, and the rest at the only other one that is guarded, if there is just one.
    pub(super) fn new(guarded: &[String], given: &[Given], local: &[Local]) -> Self {
        let mut others = guarded.iter().filter(|name| *name != LOOPBACK);
        let guess = match (others.next(), others.next()) {
            (Some(only), None) => only,
            _ => UNNAMED,
        };
        let mut devices = Self {
            names: vec![LOOPBACK.to_owned()],
            origins: HashMap::new(),
            latest: None,
            given: given.to_vec(),
            guess: guess.to_owned(),
            local: local.iter().map(|local| local.range.prefix()).collect(),
            guarded: 0,
        };
        for name in guarded.iter().map(String::as_str).chain(given.iter().map(Given::name)) {
            devices.index(name);
        }
        devices.guarded = devices.names.len();
        devices
    }

    /// The index of each of them that the configuration or the operator names.
    pub(super) fn guarded(&self) -> BTreeMap<String, u32> {
        let guarded = self.names.iter().take(self.guarded).cloned();
        guarded.zip(1..).collect()
    }

    /// The name of an interface.
    pub(super) fn name(&self, ifindex: u32) -> Option<&str> {
        let place = (ifindex as usize).checked_sub(1)?;
        self.names.get(place).map(String::as_str)
    }

    /// Every index there is.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.names.len() as u32
    }

    /// Whether the name of an interface is one that was made up.
    pub(super) fn is_made_up(&self, ifindex: u32) -> bool {
        let name = self.name(ifindex).unwrap_or_default();
        name == UNNAMED || name.starts_with('#')
    }

    /// Where a packet was seen, from what the capture says of its interface and of its direction, and from its frame.
    /// `None` if it is the leaving copy of a packet on loopback, which the guard looks at as it comes in.
    pub(super) fn place(
        &mut self,
        (number, name): (usize, Option<&str>),
        outgoing: Option<bool>,
        told: Told,
        frame: &[u8],
    ) -> Option<Place> {
        let origin = (number, told.ifindex, told.loopback);
        let ifindex = match self.latest {
            Some((latest, ifindex)) if latest == origin => ifindex,
            _ => self.look_up(origin, name),
        };
        self.latest = Some((origin, ifindex));
        let outgoing = outgoing.or(told.outgoing);
        if ifindex == LOOPBACK_IFINDEX {
            return (outgoing != Some(true)).then_some(Place { ifindex, egress: false });
        }
        let egress = outgoing.unwrap_or_else(|| self.is_local(frame));
        Some(Place { ifindex, egress })
    }

    fn look_up(&mut self, origin: Origin, name: Option<&str>) -> u32 {
        if let Some(known) = self.origins.get(&origin) {
            return *known;
        }
        let (_, ifindex, loopback) = origin;
        let given = self.given.iter().find(|given| given.index == ifindex);
        let name = match (name.filter(|name| *name != ANY), given, ifindex) {
            (Some(name), ..) => name.to_owned(),
            (None, Some(given), _) => given.name.clone(),
            (None, None, _) if loopback => LOOPBACK.to_owned(),
            (None, None, Some(number)) => format!("#{number}"),
            (None, None, None) => self.guess.clone(),
        };
        let index = self.index(&name);
        if self.origins.len() < MAX_ORIGINS {
            self.origins.insert(origin, index);
        }
        index
    }

    /// The index of a name, a new one if it is new.
    fn index(&mut self, name: &str) -> u32 {
        let find = |names: &[String], name| names.iter().position(|known| known == name);
        let has_room = self.names.len() < MOST;
        let known = find(&self.names, name).or_else(|| if has_room { None } else { find(&self.names, OTHERS) });
        let place = known.unwrap_or_else(|| {
            self.names.push(if has_room { name } else { OTHERS }.to_owned());
            self.names.len() - 1
        });
        place as u32 + 1
    }

    fn is_local(&self, frame: &[u8]) -> bool {
        !self.local.is_empty()
            && source(frame).is_some_and(|source| self.local.iter().any(|range| range.contains(&source)))
    }
}

impl Given {
    /// Reads NAME or INDEX=NAME. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (index, name) = match text.split_once('=') {
            Some((index, name)) => {
                let index = index.parse().map_err(|_| "INDEX=NAME, or NAME alone".to_owned())?;
                (Some(index), name)
            }
            None => (None, text),
        };
        let name = interface_name(name)?;
        Ok(Self { index, name })
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Local {
    /// Reads an address or a range. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            range: Cidr::or_address(text)?,
            address: text.parse().ok(),
        })
    }

    /// The address, unless it is a range.
    pub(super) const fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

/// Where an IP packet comes from, whatever it carries.
fn source(frame: &[u8]) -> Option<Address> {
    let mut at = 12;
    // VLAN tags, as the judge takes them: 802.1Q, 802.1ad.
    while at < 20 && matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let packet = frame.get(at + 2..)?;
    let octets = match frame.get(at..at + 2)? {
        [0x08, 0x00] => {
            let mut mapped = [0; 16];
            mapped[10..12].copy_from_slice(&[0xff, 0xff]);
            mapped[12..].copy_from_slice(packet.get(12..16)?);
            mapped
        }
        [0x86, 0xdd] => *packet.get(8..24)?.first_chunk()?,
        _ => return None,
    };
    Some(Address::from_octets(octets))
}
