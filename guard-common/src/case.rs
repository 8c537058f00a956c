//! A query or a response as it comes before the judge: everything that is asked of it later, in numbers.

use crate::{
    budget::{Subject, ZONES},
    bytes::Bytes,
    flow::{Settled, Sighting},
    judge::{Endpoint, Hop},
    key::{Hashed, Key, Secret},
    marks::Found,
    packet::Packet,
    policy::Policy,
    question::{Message, Question},
    spelling::NamePlace,
};

/// An interface of another network namespace goes by its index with the number of the namespace above this bit; that of
/// the agent's own is 0. The kernel counts indexes up from 1, and comes nowhere near.
pub const NAMESPACE_SHIFT: u32 = 24;
/// The index that the loopback interface has in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// A query or a response.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What budgets ask of it.
    pub subject: Subject,
    /// Stands for the flow: 5-tuple, ID and key.
    pub flow: u64,
    /// Stands for client, server and question, whatever port and ID it comes with.
    pub pending: u64,
    /// Nanoseconds of the monotonic clock.
    pub now_ns: u64,
    /// Packets on the wire.
    pub packets: u32,
    /// Who asks.
    pub client: Endpoint,
    /// Who is asked.
    pub server: Endpoint,
    /// The DNS ID.
    pub id: u16,
    /// Where the name lies in the frame.
    pub name_at: u16,
    /// Its bytes in wire form; 0 for what is no DNS message.
    pub name_len: u16,
    /// Whether RD is set.
    pub wants_recursion: bool,
    /// Whether both ends are this very host, so that addresses tell nothing.
    pub same_host: bool,
    /// Whether the name is all small letters.
    pub plain: bool,
    /// Of a query: what is known of it, a [`Sighting`].
    pub sighting: u8,
    /// Of a response: whether its query was let through.
    pub asked: bool,
    /// Of a response: what is known of its query, a [`Settled`].
    pub settled: u8,
    /// The slot of `POLICIES` that it is judged by.
    pub policy: u8,
}

/// Where and when a packet is seen.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// The interface.
    pub ifindex: u32,
    /// Whether the packet is leaving.
    pub egress: bool,
    /// Packets on the wire: a GSO packet is several.
    pub packets: u32,
    /// Nanoseconds of the monotonic clock.
    pub now_ns: u64,
}

impl Case {
    /// Fills in what the judge has to know of a message. `key` hashes a question, `zone` the last so many labels of a name.
    /// `None` if the packet is shorter than it says.
    #[inline(always)]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a piece of the packet or of the policy; in line everywhere"
    )]
    pub fn fill<B: Bytes + ?Sized>(
        &mut self,
        frame: &B,
        packet: &Packet,
        message: &Message,
        sight: Sight,
        (secret, policy): (&Secret, &Policy),
        key: impl FnOnce(&Question) -> Option<Hashed>,
        zone: impl Fn(&Message, u8) -> u64,
    ) -> Option<()> {
        let question = &message.question;
        let Hashed { key, plain } = key(question)?;
        let key = key.within(sight.ifindex >> NAMESPACE_SHIFT);
        let (source, destination) = packet.addresses(frame)?;
        let from = (source.digest(secret), packet.source_port);
        let to = (destination.digest(secret), packet.destination_port);
        let responds = message.is_response();
        let (client, server) = if responds { (to, from) } else { (from, to) };
        let ports_and_id = (client.1 as u64) << 32 | (server.1 as u64) << 16 | message.id as u64;
        self.flow = secret.mix(client.0 ^ key.0, server.0.rotate_left(32) ^ ports_and_id);
        self.pending = secret.mix(
            client.0 ^ key.0,
            server.0.rotate_left(32) ^ secret.0[1] ^ sight.ifindex as u64,
        );
        self.now_ns = sight.now_ns;
        self.packets = sight.packets;
        self.client = Endpoint {
            address: client.0 as u16,
            port: client.1,
        };
        self.server = Endpoint {
            address: server.0 as u16,
            port: server.1,
        };
        self.id = message.id;
        self.name_at = question.name_at as u16;
        self.name_len = question.name_len as u16;
        self.wants_recursion = message.wants_recursion();
        let own_index = sight.ifindex & ((1 << NAMESPACE_SHIFT) - 1);
        self.same_host = own_index == LOOPBACK_IFINDEX || source == destination;
        self.plain = plain;
        self.asked = false;
        self.settled = 0;
        let (client, server) = if responds {
            (destination, source)
        } else {
            (source, destination)
        };
        self.subject = Subject {
            client,
            server,
            key,
            zones: [0; ZONES],
            ifindex: sight.ifindex,
            qtype: question.qtype,
            egress: sight.egress,
            elsewhere: false,
            onward: false,
        };
        if !responds {
            for index in 0..ZONES {
                let labels = policy.zone_labels[index];
                if labels != 0 {
                    self.subject.zones[index] = zone(message, labels);
                }
            }
        }
        Some(())
    }

    /// Fills in what the link-local budget has to know of a TCP segment that opens a connection to a DNS port.
    #[inline(always)]
    pub fn fill_connection<B: Bytes + ?Sized>(&mut self, frame: &B, packet: &Packet, sight: Sight) -> Option<()> {
        let (client, server) = packet.addresses(frame)?;
        self.now_ns = sight.now_ns;
        self.packets = sight.packets;
        self.client = Endpoint { address: 0, port: 0 };
        self.name_len = 0;
        self.subject = Subject {
            client,
            server,
            key: Key(0),
            zones: [0; ZONES],
            ifindex: sight.ifindex,
            qtype: 0,
            egress: sight.egress,
            elsewhere: false,
            onward: false,
        };
        Some(())
    }

    /// Where the name lies, within the bounds that the kernel's verifier wants to see.
    #[inline(always)]
    pub const fn name(&self) -> NamePlace {
        NamePlace {
            at: (self.name_at & 0x3ff) as usize,
            length: (self.name_len & 0xff) as usize,
        }
    }

    /// Whether a response is spelled in a way that a mark may be to blame for.
    #[inline(always)]
    pub const fn may_be_respelled(&self) -> bool {
        !self.plain && Settled::from_number(self.settled as u32).may_be_respelled()
    }

    /// Whether a response whose name looks like a mark that is out is to be changed: if the mark was put on its own query,
    /// or if that was all small letters and has been joined with the marked one.
    #[inline(always)]
    pub const fn is_to_be_respelled(&self, found: Found) -> bool {
        found.own || Settled::from_number(self.settled as u32).plain
    }

    /// The hop that a query is.
    #[inline(always)]
    pub const fn hop(&self) -> Hop {
        Hop {
            client: self.client,
            server: self.server,
            id: self.id,
            same_host: self.same_host,
            plain: self.plain,
            egress: self.subject.egress,
            sighting: Sighting::from_u8(self.sighting),
        }
    }
}
