//! What lies around a packet in a file: pcap records, pcapng blocks.

use std::io::Read;

use pcap_parser::{
    Block, InterfaceDescriptionBlock, LegacyPcapBlock, OptionCode, PcapError, SHB_MAGIC, nom::IResult, parse_block_be,
    parse_block_le, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
};

use super::{Fault, Found, Input};

/// Bytes of the longest packet that libpcap writes (`MAXIMUM_SNAPLEN` is 262,144, and four times that for D-Bus).
const MAX_PACKET: usize = 1 << 20;
/// Bytes of the longest block: a packet with its options, or a list of names.
const MAX_BLOCK: usize = 16 << 20;
/// Interfaces that a file may describe.
const MAX_INTERFACES: usize = 65_536;

const PCAP_HEADER: usize = 24;
/// Bytes of the shortest block, and of what has to be seen to know how long a block is: type, length, and in front of a
/// section the order of its bytes.
const BLOCK_HEADER: usize = 12;
/// The order of a section's bytes, as a section in big-endian has it (draft-ietf-opsawg-pcapng section 4.1).
const BIG_ENDIAN: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
const LITTLE_ENDIAN: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];
/// Packet data in an Enhanced Packet Block (section 4.3) and in a Simple Packet Block (section 4.4).
const ENHANCED_DATA: usize = 28;
const SIMPLE_DATA: usize = 12;
/// The option of an Enhanced Packet Block whose two lowest bits say which way it went (section 4.3.1).
const EPB_FLAGS: OptionCode = OptionCode(2);
/// The Packet Block, which became obsolete before 2010 (appendix A).
const OBSOLETE_PACKET: u32 = 2;
/// What Wireshark counts as a frame and we do not read: such a block, and an entry of the systemd journal.
const NO_PACKET: Found = Found {
    at_ns: None,
    interface: None,
    outgoing: None,
    wire_len: 0,
    data: 0..0,
};

/// What the file is written in.
pub(super) enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// An interface that packets were captured at.
#[derive(Clone, Debug)]
pub(in crate::replay) struct Interface {
    /// Its name, if the file has it.
    pub(in crate::replay) name: Option<String>,
    /// The link type of its packets, as <https://www.tcpdump.org/linktypes.html> has them.
    pub(in crate::replay) link: u32,
    /// Bytes that are captured of a packet at most; 0 if there is no limit.
    snaplen: usize,
    clock: Clock,
}

/// How time stamps are written.
#[derive(Clone, Copy, Debug)]
struct Clock {
    per_second: u128,
    offset_ns: i128,
}

/// Reads one record.
type ReadRecord = fn(&[u8]) -> IResult<&[u8], LegacyPcapBlock<'_>, PcapError<&[u8]>>;

pub(super) struct Pcap {
    parse: ReadRecord,
    big_endian: bool,
    /// Bytes in front of the data.
    header: usize,
    /// Units of the time stamp's fraction in a second.
    per_second: u32,
    interface: [Interface; 1],
}

#[derive(Default)]
pub(super) struct Pcapng {
    big_endian: bool,
    /// Those of all sections.
    interfaces: Vec<Interface>,
    /// Where those of this section begin.
    section: usize,
}

impl Format {
    pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<Self, Fault> {
        let start = input.look_whole(4)?.ok_or(Fault::Empty)?;
        let magic = [start[0], start[1], start[2], start[3]];
        if u32::from_le_bytes(magic) == SHB_MAGIC {
            return Ok(Self::Pcapng(Pcapng::default()));
        }
        if let Some(what) = stranger(magic) {
            return Err(Fault::NoCapture(what));
        }
        let bytes = input.look_whole(PCAP_HEADER)?.ok_or(Fault::Empty)?;
        let Ok((_, header)) = parse_pcap_header(bytes) else {
            return Err(Fault::NoCapture("tcpdump -w FILE and Wireshark write such files"));
        };
        let (modified, big_endian) = (header.is_modified_format(), header.is_bigendian());
        let per_second = if header.is_nanosecond_precision() {
            1_000_000_000
        } else {
            1_000_000
        };
        let pcap = Pcap {
            parse: match (modified, big_endian) {
                (true, _) => parse_pcap_frame_modified,
                (false, true) => parse_pcap_frame_be,
                (false, false) => parse_pcap_frame,
            },
            big_endian,
            header: if modified { 24 } else { 16 },
            per_second,
            interface: [Interface {
                name: None,
                // The upper bits say how long the frame check sequence is.
                link: header.network.0 as u32 & 0x03ff_ffff,
                snaplen: header.snaplen as usize,
                clock: Clock {
                    per_second: per_second.into(),
                    offset_ns: 0,
                },
            }],
        };
        input.take(PCAP_HEADER);
        Ok(Self::Pcap(pcap))
    }

    pub(super) fn next<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, Fault> {
        match self {
            Self::Pcap(pcap) => pcap.next(input),
            Self::Pcapng(pcapng) => pcapng.next(input),
        }
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        match self {
            Self::Pcap(pcap) => &pcap.interface,
            Self::Pcapng(pcapng) => &pcapng.interfaces,
        }
    }
}

/// What else begins with these bytes, and what to do with it.
const fn stranger(magic: [u8; 4]) -> Option<&'static str> {
    match magic {
        [0x1f, 0x8b, ..] => Some("it is compressed; gunzip -c FILE | dnsguard replay -"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("it is compressed; zstd -dc FILE | dnsguard replay -"),
        [0xfd, b'7', b'z', b'X'] => Some("it is compressed; xz -dc FILE | dnsguard replay -"),
        [0x04, 0x22, 0x4d, 0x18] => Some("it is compressed; lz4 -dc FILE | dnsguard replay -"),
        [b's', b'n', b'o', b'o'] => Some("it is a snoop capture; editcap -F pcapng FILE OTHER makes one of it"),
        _ => None,
    }
}

impl Pcap {
    fn next<R: Read>(&self, input: &mut Input<R>) -> Result<Option<Found>, Fault> {
        let Some(header) = input.look_whole(self.header)? else {
            return Ok(None);
        };
        let length = number(&header[8..12], self.big_endian) as usize;
        let most = MAX_PACKET.max(self.interface[0].snaplen.min(MAX_BLOCK));
        if length > most {
            return Err(Fault::Wrong(format!(
                "a packet of {length} bytes, {most} at most are possible"
            )));
        }
        let whole = self.header + length;
        let record = input.look_whole(whole)?.ok_or(Fault::CutOff)?;
        // All of it is there, and the parser of a record asks for nothing else.
        let Ok((_, record)) = (self.parse)(record) else {
            return Err(Fault::Wrong("a record that cannot be read".to_owned()));
        };
        if record.ts_usec >= self.per_second {
            let (fraction, per_second) = (record.ts_usec, self.per_second);
            return Err(Fault::Wrong(format!(
                "a time stamp of {fraction} parts of a second that has {per_second}"
            )));
        }
        let fraction_ns = u64::from(record.ts_usec) * u64::from(1_000_000_000 / self.per_second);
        let found = Found {
            at_ns: Some(u64::from(record.ts_sec) * 1_000_000_000 + fraction_ns),
            interface: Some(0),
            outgoing: None,
            wire_len: record.origlen as usize,
            data: self.header..whole,
        };
        input.take(whole);
        Ok(Some(found))
    }
}

impl Pcapng {
    /// The next block that is a frame.
    fn next<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, Fault> {
        while let Some(length) = self.block_len(input)? {
            let bytes = input.look_whole(length)?.ok_or(Fault::CutOff)?;
            let found = self.block(bytes)?;
            input.take(length);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Bytes of the next block; `None` at the end.
    fn block_len<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<usize>, Fault> {
        let Some(header) = input.look_whole(BLOCK_HEADER)? else {
            return Ok(None);
        };
        if number(&header[..4], false) == SHB_MAGIC {
            self.big_endian = match [header[8], header[9], header[10], header[11]] {
                BIG_ENDIAN => true,
                LITTLE_ENDIAN => false,
                _ => return Err(Fault::Wrong("a section in an unknown order of bytes".to_owned())),
            };
            self.section = self.interfaces.len();
        }
        let length = number(&header[4..8], self.big_endian) as usize;
        if !(BLOCK_HEADER..=MAX_BLOCK).contains(&length) {
            return Err(Fault::Wrong(format!(
                "a block of {length} bytes, {BLOCK_HEADER} to {MAX_BLOCK} are possible"
            )));
        }
        Ok(Some(length))
    }

    fn block(&mut self, bytes: &[u8]) -> Result<Option<Found>, Fault> {
        let parse = if self.big_endian {
            parse_block_be
        } else {
            parse_block_le
        };
        let Ok((_, block)) = parse(bytes) else {
            let kind = number(&bytes[..4], self.big_endian);
            return Err(Fault::Wrong(format!(
                "a block of type {kind:#x} that contradicts itself"
            )));
        };
        let found = match block {
            Block::InterfaceDescription(block) => {
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err(Fault::Wrong(format!("more than {MAX_INTERFACES} interfaces")));
                }
                self.interfaces.push(Interface::read(&block, self.big_endian)?);
                return Ok(None);
            }
            Block::EnhancedPacket(block) => {
                let place = self.place(block.if_id)?;
                let stamp = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                let flags = block.options.iter().find(|option| option.code == EPB_FLAGS);
                let flags = flags.and_then(|option| option.value.get(..4));
                Found {
                    at_ns: Some(self.interfaces[place].clock.ns(stamp)),
                    interface: Some(place),
                    outgoing: flags.and_then(|flags| match number(flags, self.big_endian) & 3 {
                        1 => Some(false),
                        2 => Some(true),
                        _ => None,
                    }),
                    wire_len: block.origlen as usize,
                    data: ENHANCED_DATA..ENHANCED_DATA + block.caplen as usize,
                }
            }
            Block::SimplePacket(block) => {
                let place = self.place(0)?;
                let wire_len = block.origlen as usize;
                let limit = match self.interfaces[place].snaplen {
                    0 => usize::MAX,
                    snaplen => snaplen,
                };
                Found {
                    at_ns: None,
                    interface: Some(place),
                    outgoing: None,
                    wire_len,
                    data: SIMPLE_DATA..SIMPLE_DATA + wire_len.min(limit).min(block.data.len()),
                }
            }
            Block::SystemdJournalExport(_) => NO_PACKET,
            Block::Unknown(_) if number(bytes, self.big_endian) == OBSOLETE_PACKET => NO_PACKET,
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    /// The place of an interface that a block of this section names.
    fn place(&self, id: u32) -> Result<usize, Fault> {
        let place = self.section + id as usize;
        if place < self.interfaces.len() {
            return Ok(place);
        }
        let known = self.interfaces.len() - self.section;
        Err(Fault::Wrong(format!(
            "a packet of interface {id}, where {known} are described"
        )))
    }
}

impl Interface {
    fn read(block: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Result<Self, Fault> {
        let name = block.if_name().and_then(Result::ok).map(str::to_owned);
        let base = if block.if_tsresol & 0x80 == 0 { 10_u128 } else { 2 };
        let per_second = base.checked_pow((block.if_tsresol & 0x7f).into());
        let per_second = per_second.ok_or_else(|| {
            let resolution = block.if_tsresol;
            Fault::Wrong(format!("an interface with time stamps of resolution {resolution:#x}"))
        })?;
        // The crate reads it as if all files were little-endian.
        let offset = block
            .options
            .iter()
            .find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| option.value.first_chunk::<8>());
        let offset = offset.map_or(0, |bytes| match big_endian {
            true => i64::from_be_bytes(*bytes),
            false => i64::from_le_bytes(*bytes),
        });
        Ok(Self {
            name: name.filter(|name| !name.is_empty()),
            link: block.linktype.0 as u32,
            snaplen: block.snaplen as usize,
            clock: Clock {
                per_second,
                offset_ns: i128::from(offset) * 1_000_000_000,
            },
        })
    }
}

impl Clock {
    /// Nanoseconds since 1970; what is before is 1970.
    fn ns(self, stamp: u64) -> u64 {
        // The two that there are; a division of 128 bits is slow.
        let ns = match self.per_second {
            1_000_000_000 => i128::from(stamp),
            1_000_000 => i128::from(stamp) * 1_000,
            per_second => (u128::from(stamp) * 1_000_000_000 / per_second) as i128,
        };
        (ns + self.offset_ns).clamp(0, u64::MAX.into()) as u64
    }
}

/// Four bytes.
fn number(bytes: &[u8], big_endian: bool) -> u32 {
    let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}
