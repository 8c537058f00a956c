//! How a hook reaches its packet: what XDP and TC have each in their own way.

use guard_common::{
    answer::{Checksum, Plan, checksum_state},
    budget::Service,
    case::{Case, NAMESPACE_SHIFT},
    key::Hashed,
    marks::Found,
    packet::{Family, Packet, Transport},
    question::{Name, Question, Unreadable},
    recent::Recent,
    sample::Kind,
};

use crate::{bench::Desk, frame::Frame};

/// What the agent sets before it loads the programs for another network namespace than its own.
#[unsafe(no_mangle)]
static NAMESPACE: u32 = 0;

/// A number to the verifier, which knows it: the agent's own namespace pays nothing.
#[inline(always)]
fn namespace() -> u32 {
    // SAFETY: a global that nobody writes once the programs are loaded.
    unsafe { core::ptr::read_volatile(&raw const NAMESPACE) }
}

/// A hook with a packet at it.
pub(crate) trait Door {
    /// Whether packets leave through it.
    const EGRESS: bool;

    /// Whether the kernel completes the checksum of what is sent, where it is yet to be completed.
    const COMPLETES: bool;

    /// The packet, as far as it can be read at once.
    fn frame(&self) -> Frame;

    /// The packet, with everything that a question needs readable.
    fn whole_frame(&self) -> Frame;

    /// The index of the interface in its own network namespace.
    fn ifindex(&self) -> u32;

    /// The interface, told apart from those of other network namespaces.
    #[inline(always)]
    fn device(&self) -> u32 {
        self.ifindex() | namespace()
    }

    /// The number of the network namespace, which the verifier knows: what is done for none but the agent's own, or for none
    /// but the others, it takes out.
    #[inline(always)]
    fn namespace(&self) -> u32 {
        namespace() >> NAMESPACE_SHIFT
    }

    /// Packets on the wire: a GSO packet is several.
    fn packets(&self) -> u32;

    /// The link-local service under a budget that the packet goes to, by the policy in a slot: [`NO_LINK`], or a [`Link`].
    fn link(&self, slot: u32) -> u32;

    /// The name at an offset.
    fn name(&self, name_at: usize) -> Result<Name, Unreadable>;

    /// The key of a question, and whether it is all small letters.
    fn key(&self, question: &Question) -> Option<Hashed>;

    /// [`Recent::learn`] behind a function call: the type and class that follow the name at `name_at`.
    fn learn(&self, name_at: usize, recent: &mut Recent) -> Option<u32>;

    /// Whether the UDP checksum in the packet is complete.
    #[inline(always)]
    fn checksum(&self, frame: &Frame, packet: &Packet, udp_len: usize) -> Checksum {
        if Self::COMPLETES {
            checksum_state(frame, packet, udp_len)
        } else {
            Checksum::Whole
        }
    }

    /// Whether the packet has this length, and can be written from its beginning to its end.
    fn has_length(&self, length: usize) -> bool;

    /// Gives the packet the length of the answer, and writes that. `None` if it fails.
    fn write(&self, plan: &Plan) -> Option<()>;

    /// What the program is to return for a packet that goes on.
    const PASS: u32;

    /// What it is to return for a packet that ends here.
    const DROP: u32;

    /// `short::pass` behind a function call.
    fn pass_short(&self, family: u32) -> u32;

    /// `short::charge` behind a function call.
    fn charge_short(&self, passed: u32) -> u32;

    /// Makes a packet the answer that `short::pass` wants ([`crate::short::Answered`]), and sends it back; tells what the
    /// program is to return.
    fn answer_short(&self, answered: u32) -> u32;

    /// `hook::walk` behind a function call.
    fn walk(&self, passed: u32) -> u32;

    /// `hook::judge` behind a function call.
    fn judge(&self, headers: Headers, link: u32, passed: u32) -> u32;

    /// `dns::read` behind a function call.
    fn read(&self, headers: Headers, case: &mut Case) -> u32;

    /// `step::question` behind a function call.
    fn question(&self, name_at: usize, end: usize, case: &mut Case) -> u32;

    /// `dns::segment` behind a function call.
    fn segment(&self, headers: Headers, case: &mut Case) -> u32;

    /// `hook::look_closer` behind a function call.
    fn look_closer(&self, headers: Headers, link: u32, judged: u32) -> u32;

    /// `dns::fill_subject` behind a function call.
    fn fill_subject(&self, headers: Headers, case: &mut Case) -> bool;

    /// `dns::fill_zones` behind a function call.
    fn fill_zones(&self, case: &mut Case) -> bool;

    /// `dns::act` behind a function call.
    fn act(&self, headers: Headers, desk: &mut Desk) -> u32;

    /// Reads how the name on the desk is spelled. False if that fails.
    fn spell(&self, desk: &mut Desk) -> bool;

    /// Changes how the name on the desk is spelled: flips a mark of its own, or makes all letters small where the mark is
    /// somebody else's. False if that fails.
    fn respell(&self, headers: Headers, desk: &mut Desk, found: Found) -> bool;

    /// `event::show` behind a function call.
    fn show(&self, desk: &Desk, kind: Kind, weight: u32);

    /// Makes the packet an answer with a [`guard_common::answer::Remark`] and sends it back; tells what the program is to
    /// return.
    fn answer(&self, headers: Headers, remark: u32) -> u32;
}

/// What [`Door::link`] returns for a packet that is no link-local budget's.
pub(crate) const NO_LINK: u32 = 0;

/// The number of a link-local budget, and the service that a packet of its goes to.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) service: Service,
}

impl Link {
    #[inline(always)]
    pub(crate) const fn pack(self) -> u32 {
        1 << 31 | self.index << 8 | self.service as u32
    }

    #[inline(always)]
    pub(crate) const fn unpack(packed: u32) -> Self {
        Self {
            index: packed >> 8 & 0xff,
            service: Service::from_u8(packed as u8),
        }
    }
}

/// A [`Packet`], its direction and the slot of the policy it is judged by in two numbers, to hand them to a function.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) offsets: u64,
    pub(crate) ports: u32,
}

impl Headers {
    #[inline(always)]
    pub(crate) const fn pack(packet: &Packet, egress: bool, slot: u32) -> Self {
        let v6 = matches!(packet.family, Family::V6) as u64;
        let tcp = matches!(packet.transport, Transport::Tcp) as u64;
        Self {
            offsets: packet.ip_len as u64
                | (packet.ip_at as u64) << 32
                | (packet.transport_at as u64) << 40
                | ((slot & 1) as u64) << 60
                | (egress as u64) << 61
                | v6 << 62
                | tcp << 63,
            ports: (packet.source_port as u32) << 16 | packet.destination_port as u32,
        }
    }

    /// The slot of `POLICIES` that the packet is judged by.
    #[inline(always)]
    pub(crate) const fn slot(self) -> u32 {
        (self.offsets >> 60 & 1) as u32
    }

    /// Whether the packet is leaving.
    #[inline(always)]
    pub(crate) const fn is_egress(self) -> bool {
        self.offsets >> 61 & 1 == 1
    }

    #[inline(always)]
    pub(crate) const fn unpack(self) -> Packet {
        let Self { offsets, ports } = self;
        Packet {
            family: if offsets >> 62 & 1 == 1 { Family::V6 } else { Family::V4 },
            transport: if offsets >> 63 == 1 {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            ip_at: (offsets >> 32 & 0x3f) as usize,
            transport_at: (offsets >> 40 & 0x3ff) as usize,
            ip_len: (offsets & 0x3_ffff) as usize,
            source_port: (ports >> 16) as u16,
            destination_port: ports as u16,
        }
    }
}
