//! Captures, record by record: pcap and pcapng in either byte order, from a file or a pipe.
//!
//! `pcap-parser` reads the formats. It takes them from a slice, so that one buffer for one record is enough, whatever the
//! size of the file, and every place in it is known to the byte; and it takes all that people have: microseconds and
//! nanoseconds, several sections, several interfaces with link types of their own.

mod format;

use std::{fmt, io, io::Read, ops::Range};

use self::format::Format;
pub(super) use self::format::Interface;

/// Bytes that are read at once.
const ROOM: usize = 256 * 1_024;

/// A capture that is being read.
pub(super) struct Capture<R> {
    input: Input<R>,
    format: Format,
    /// Records that were read.
    frames: u64,
}

/// One packet, as it was captured.
pub(super) struct Record<'a> {
    /// Counted from 1, like Wireshark's `frame.number`.
    pub(super) number: u64,
    /// Nanoseconds since 1970, if it has a time stamp.
    pub(super) at_ns: Option<u64>,
    /// Its interface and the number of that; none if it is no packet that can be read.
    pub(super) interface: Option<(usize, &'a Interface)>,
    /// Whether it was leaving, if that is written down.
    pub(super) outgoing: Option<bool>,
    /// Bytes that it had on the wire.
    pub(super) wire_len: usize,
    /// What was captured of it.
    pub(super) data: &'a [u8],
}

/// The same, with its place in the buffer.
struct Found {
    at_ns: Option<u64>,
    interface: Option<usize>,
    outgoing: Option<bool>,
    wire_len: usize,
    /// From the first byte of its record or block.
    data: Range<usize>,
}

/// Why a capture cannot be read any further.
#[derive(Debug)]
pub(super) struct Damage {
    /// The byte of the file at which the record begins that cannot be read.
    offset: u64,
    /// Records that were read before it.
    frames: u64,
    fault: Fault,
}

/// What is wrong there.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system says so.
    Unreadable(io::Error),
    /// There is nothing at all.
    Empty,
    /// It is something else; what to do about it.
    NoCapture(&'static str),
    /// It ends within a record.
    CutOff,
    /// A record says something that cannot be.
    Wrong(String),
}

impl<R: Read> Capture<R> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// It is empty, or no capture, or its header is cut off.
    pub(super) fn open(input: R) -> Result<Self, Damage> {
        let mut input = Input::new(input);
        match Format::read(&mut input) {
            Ok(format) => Ok(Self {
                input,
                format,
                frames: 0,
            }),
            Err(fault) => Err(Damage {
                offset: 0,
                frames: 0,
                fault,
            }),
        }
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    ///
    /// What follows cannot be read. It makes no sense to go on then.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Damage> {
        match self.format.next(&mut self.input) {
            Ok(Some(found)) => {
                self.frames += 1;
                Ok(Some(Record {
                    number: self.frames,
                    at_ns: found.at_ns,
                    interface: found.interface.map(|place| (place, &self.format.interfaces()[place])),
                    outgoing: found.outgoing,
                    wire_len: found.wire_len,
                    data: self.input.taken(found.data),
                }))
            }
            Ok(None) => Ok(None),
            Err(fault) => Err(Damage {
                offset: self.input.offset,
                frames: self.frames,
                fault,
            }),
        }
    }

    /// Bytes that were read so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.input.offset
    }
}

/// A stream of which the next bytes can be looked at.
struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    /// The bytes that were taken last, and those that were not taken yet.
    taken: Range<usize>,
    end: usize,
    /// Bytes of the stream that were taken.
    offset: u64,
}

impl<R: Read> Input<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; ROOM],
            taken: 0..0,
            end: 0,
            offset: 0,
        }
    }

    /// The next `length` bytes, or fewer at the end of the stream. They stay where they are.
    fn look(&mut self, length: usize) -> Result<&[u8], Fault> {
        let start = self.taken.end;
        if start + length > self.end {
            self.fill(length).map_err(Fault::Unreadable)?;
        }
        let start = self.taken.end;
        Ok(&self.buffer[start..self.end.min(start + length)])
    }

    /// The next `length` bytes. `None` where the stream ends right here.
    fn look_whole(&mut self, length: usize) -> Result<Option<&[u8]>, Fault> {
        let bytes = self.look(length)?;
        match bytes.len() {
            0 => Ok(None),
            found if found < length => Err(Fault::CutOff),
            _ => Ok(Some(bytes)),
        }
    }

    /// Takes bytes that were looked at.
    fn take(&mut self, length: usize) {
        self.taken = self.taken.end..self.taken.end + length;
        self.offset += length as u64;
    }

    /// A part of what was taken last.
    fn taken(&self, part: Range<usize>) -> &[u8] {
        &self.buffer[self.taken.start + part.start..self.taken.start + part.end]
    }

    /// Reads until `length` bytes can be looked at, or to the end.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        let start = self.taken.end;
        if start + length > self.buffer.len() {
            self.buffer.copy_within(start..self.end, 0);
            (self.taken, self.end) = (0..0, self.end - start);
            if length > self.buffer.len() {
                self.buffer.resize(length.next_power_of_two(), 0);
            }
        }
        while self.end < self.taken.end + length {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What, where, and what to do.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, frames, fault } = self;
        let before = match frames {
            0 => "no packet before it".to_owned(),
            _ => format!("frame {frames} was the last before it, and all up to there were judged"),
        };
        match fault {
            Fault::Unreadable(error) => write!(f, "cannot be read from byte {offset} on: {error}; {before}"),
            Fault::Empty => {
                f.write_str("is empty: no capture; what has written it may have kept it in its buffer (tcpdump -U)")
            }
            Fault::NoCapture(what) => write!(f, "is neither pcap nor pcapng: {what}"),
            Fault::CutOff => write!(
                f,
                "ends within the record that begins at byte {offset}; {before}; copy it once more, or wait until whoever \
                 writes it has ended"
            ),
            Fault::Wrong(what) => write!(
                f,
                "is damaged at byte {offset}: {what}; {before}; what follows cannot be found: copy it once more from where \
                 it was taken"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
