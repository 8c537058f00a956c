//! A query or a response as it comes before the judge: everything that is asked of it later, in numbers.

use crate::{
    budget::{Subject, ZONES},
    bytes::Bytes,
    flow::{Place, Settled, Sighting},
    judge::{Endpoint, Hop},
    key::{Hashed, Key, Secret},
    marks::Found,
    packet::Packet,
    policy::Policy,
    question::{FLAG_QR, FLAG_RD, Header, Name, Question},
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
    /// What budgets ask of it; addresses and zones stand there only after [`Case::fill_subject`].
    pub subject: Subject,
    /// Stands for the flow: 5-tuple, ID and key.
    pub flow: u64,
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
    /// The flags word of the header.
    pub flags: u16,
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
    /// Nothing.
    pub spare: [u8; 7],
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

/// The two ends of a query: their addresses folded ([`Address::fold`](crate::address::Address::fold)), and their ports.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    client: (u32, u16),
    server: (u32, u16),
}

impl Ends {
    /// Who asks, and who is asked.
    #[inline(always)]
    pub const fn new(client: (u32, u16), server: (u32, u16)) -> Self {
        Self { client, server }
    }

    /// Stands for the flow of a query with this key and ID between them.
    #[inline(always)]
    pub const fn flow(self, key: Key, id: u16, secret: &Secret) -> u64 {
        let addresses = (self.client.0 as u64) << 32 | self.server.0 as u64;
        let ports_and_id = (self.client.1 as u64) << 32 | (self.server.1 as u64) << 16 | id as u64;
        secret.mix(addresses ^ key.0, ports_and_id ^ secret.0[1])
    }

    /// Who asks.
    #[inline(always)]
    pub const fn client(self) -> Endpoint {
        Self::endpoint(self.client)
    }

    /// Who is asked.
    #[inline(always)]
    pub const fn server(self) -> Endpoint {
        Self::endpoint(self.server)
    }

    #[inline(always)]
    const fn endpoint((folded, port): (u32, u16)) -> Endpoint {
        Endpoint {
            address: (folded >> 16) as u16,
            port,
        }
    }
}

impl Case {
    /// Fills in what is asked, and tells by its key.
    #[inline(always)]
    pub fn fill_question(&mut self, question: &Question, hashed: Hashed, ifindex: u32) {
        self.name_at = question.name_at as u16;
        self.name_len = question.name_len as u16;
        self.plain = hashed.plain;
        self.subject.qtype = question.qtype;
        self.subject.key = hashed.key.within(ifindex >> NAMESPACE_SHIFT);
    }

    /// Fills in what else the judge has to know of a message whose question is filled in. `None` if the packet is shorter
    /// than it says.
    #[inline(always)]
    pub fn fill<B: Bytes + ?Sized>(
        &mut self,
        frame: &B,
        packet: &Packet,
        header: Header,
        sight: Sight,
        secret: &Secret,
    ) -> Option<()> {
        let (source, destination) = packet.addresses(frame)?;
        let own_index = sight.ifindex & ((1 << NAMESPACE_SHIFT) - 1);
        self.same_host = own_index == LOOPBACK_IFINDEX || source == destination;
        let from = (source.fold(secret), packet.source_port);
        let to = (destination.fold(secret), packet.destination_port);
        let ends = if header.is_response() {
            Ends::new(to, from)
        } else {
            Ends::new(from, to)
        };
        self.flow = ends.flow(self.subject.key, header.id, secret);
        self.now_ns = sight.now_ns;
        self.packets = sight.packets;
        (self.client, self.server) = (ends.client(), ends.server());
        self.id = header.id;
        self.flags = header.flags;
        self.subject.ifindex = sight.ifindex;
        self.subject.egress = sight.egress;
        self.subject.elsewhere = false;
        self.subject.onward = false;
        Some(())
    }

    /// Fills in what only budgets, hygiene and the agent ask of a message: who, whom, and in which zones. `walk` walks the
    /// name, and `key` hashes a question. `None` if the packet is shorter than it says.
    #[inline(always)]
    pub fn fill_subject<B: Bytes + ?Sized>(
        &mut self,
        frame: &B,
        packet: &Packet,
        policy: &Policy,
        walk: impl FnOnce(usize) -> Option<Name>,
        key: impl Fn(&Question) -> Option<Key>,
    ) -> Option<()> {
        let (source, destination) = packet.addresses(frame)?;
        (self.subject.client, self.subject.server) = if self.responds() {
            (destination, source)
        } else {
            (source, destination)
        };
        self.subject.zones = [0; ZONES];
        if self.responds() || policy.zone_labels == [0; ZONES] {
            return Some(());
        }
        self.fill_zones(policy, walk, key)
    }

    /// Fills in the zones of a query that a policy tells apart, as [`Case::fill_subject`] does.
    #[inline(always)]
    pub fn fill_zones(
        &mut self,
        policy: &Policy,
        walk: impl FnOnce(usize) -> Option<Name>,
        key: impl Fn(&Question) -> Option<Key>,
    ) -> Option<()> {
        let name = walk(self.name_at.into())?;
        for index in 0..ZONES {
            let labels = policy.zone_labels[index];
            self.subject.zones[index] = 0;
            // The digest of a zone is the key of a name without a type.
            if let Some(at) = name.zone_at(labels) {
                let zone = Question {
                    name_at: self.name_at as usize + at,
                    name_len: name.len() - at,
                    qtype: 0,
                    qclass: 0,
                };
                self.subject.zones[index] = key(&zone)?.0;
            }
        }
        Some(())
    }

    /// Stands for client, server and question of a case whose subject is filled in, whatever port and ID it comes with.
    #[inline(always)]
    pub fn pending(&self, secret: &Secret) -> u64 {
        let Subject {
            client,
            server,
            key,
            ifindex,
            ..
        } = self.subject;
        secret.mix(
            client.digest(secret) ^ key.0,
            server.digest(secret).rotate_left(32) ^ secret.0[1] ^ ifindex as u64,
        )
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

    /// Whether it is a response.
    #[inline(always)]
    pub const fn responds(&self) -> bool {
        self.flags & FLAG_QR != 0
    }

    /// Whether RD is set.
    #[inline(always)]
    pub const fn wants_recursion(&self) -> bool {
        self.flags & FLAG_RD != 0
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

    /// Where the packet is seen.
    #[inline(always)]
    pub const fn place(&self) -> Place {
        Place::new(self.subject.ifindex, self.subject.egress)
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
