//! DNS messages: queries and responses as resolvers send them, and such as nobody should.

use guard_sim::random::Random;

use super::Chance as _;

/// Names as they come, and names that somebody made to harm who shows them.
const NAMES: [&str; 14] = [
    "",
    "a",
    "com",
    "consul",
    "www.example.com",
    "web.service.consul",
    "1.2.0.192.in-addr.arpa",
    "_ldap._tcp.dc._msdcs.example.com",
    "api.default.svc.cluster.local",
    "xn--bcher-kva.example",
    "0.1.2.3.4.5.6.7.8.9",
    "\x1b[2J\x1b]0;owned\x07.example",
    "<script>alert(1)<script>.example",
    "b\u{fc}cher.\u{202e}elpmaxe.\u{1f600}",
];
const TYPES: [u16; 12] = [1, 28, 12, 43, 16, 255, 65, 33, 0, 41, 250, 0xffff];
/// Bytes of the longest label.
const LABEL: usize = 63;

/// A name in wire form, whole and valid, in letters of any case.
pub(crate) fn name(random: &mut Random) -> Vec<u8> {
    let mut name = Vec::new();
    match random.below(8) {
        0 => {
            // As long as names get.
            let whole = random.between(236, 255);
            while name.len() + 1 < whole {
                let left = whole - 1 - name.len();
                let length = if left <= LABEL + 1 {
                    left - 1
                } else {
                    random.between(1, LABEL.min(left - 3))
                };
                label(random, &mut name, length, false);
            }
        }
        1 => {
            for _ in 0..random.between(1, 8) {
                let length = random.between(1, 12);
                label(random, &mut name, length, true);
            }
        }
        2 => (0..random.between(100, 127)).for_each(|_| label(random, &mut name, 1, false)),
        3 => {
            for _ in 0..random.between(1, 6) {
                let length = random.between(1, 16);
                label(random, &mut name, length, false);
            }
        }
        _ => {
            for text in random.pick(&NAMES).split('.').filter(|text| !text.is_empty()) {
                name.push(text.len() as u8);
                name.extend_from_slice(text.as_bytes());
            }
        }
    }
    name.push(0);
    respell(random, &mut name);
    name
}

/// A label of letters and digits, or of any bytes.
fn label(random: &mut Random, name: &mut Vec<u8>, length: usize, binary: bool) {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789-_";
    name.push(length as u8);
    for _ in 0..length {
        name.push(if binary {
            random.next() as u8
        } else {
            random.pick(LETTERS)
        });
    }
}

/// In one of two names, letters at random become capitals.
fn respell(random: &mut Random, name: &mut [u8]) {
    if random.once_in(2) {
        let mut bits = random.next();
        for byte in name.iter_mut() {
            if byte.is_ascii_alphabetic() && bits & 1 != 0 {
                *byte ^= 0x20;
            }
            bits = bits.rotate_right(1);
        }
    }
}

/// What a message asks, and how.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The ID.
    pub(crate) id: u16,
    /// The flags word.
    pub(crate) flags: u16,
    /// The name in wire form.
    pub(crate) name: Vec<u8>,
    /// The QTYPE.
    pub(crate) qtype: u16,
    /// The QCLASS.
    pub(crate) qclass: u16,
    /// Whether it has an OPT record, and whether DO is set in it.
    pub(crate) edns: Option<bool>,
}

impl Asked {
    /// A query as a stub resolver sends it.
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            id: random.next() as u16,
            flags: random.pick(&[0x0100, 0x0100, 0x0100, 0, 0x0110, 0x0120]),
            name: name(random),
            qtype: random.pick(&TYPES),
            qclass: random.pick(&[1, 1, 1, 1, 3, 255, 0x8001]),
            edns: random.pick(&[None, Some(false), Some(true)]),
        }
    }
}

/// The message of a query, or of a response without records.
pub(crate) fn message_of(asked: &Asked) -> Vec<u8> {
    let mut message = Vec::with_capacity(asked.name.len() + 27);
    let additional = u16::from(asked.edns.is_some());
    for word in [asked.id, asked.flags, 1, 0, 0, additional] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(&asked.name);
    message.extend_from_slice(&asked.qtype.to_be_bytes());
    message.extend_from_slice(&asked.qclass.to_be_bytes());
    if let Some(dnssec_ok) = asked.edns {
        message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    message
}

/// The response to a message, with this RCODE and, for NOERROR, one compressed record.
pub(crate) fn response_to(asked: &Asked, rcode: u8) -> Vec<u8> {
    let mut response = asked.clone();
    response.flags = 0x8080 | asked.flags & 0x0110 | u16::from(rcode & 0x0f);
    let mut message = message_of(&response);
    if rcode == 0 && message.len() >= 12 {
        message[7] = 1;
        let question_end = 12 + asked.name.len() + 4;
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99];
        message.splice(question_end..question_end, record);
    }
    message
}

/// A message of any kind; every other one is spoiled on purpose in one of the ways that the guard tells apart.
pub(crate) fn message(random: &mut Random) -> Vec<u8> {
    let mut asked = Asked::draw(random);
    let mut message = match random.below(6) {
        0 => {
            let rcode = random.below(16) as u8;
            response_to(&asked, rcode)
        }
        1 => {
            asked.flags = random.next() as u16;
            message_of(&asked)
        }
        _ => message_of(&asked),
    };
    match random.below(16) {
        0 => message[random.pick(&[5, 7, 9, 11])] = random.pick(&[0, 1, 2, 255]),
        1 => message[12..].fill(random.pick(&[0, 0x3f, 0x40, 0x80, 0xc0])),
        2 => {
            // A pointer in place of a label, somewhere before its own place.
            let at = 12 + random.below(asked.name.len() as u64) as usize;
            let to = random.below(at as u64 + 2) as u8;
            message.splice(at..at + 1, [0xc0, to]);
        }
        3 => {
            // A name that is too long, by a little or by far.
            let count = random.between(1, 4);
            let more: Vec<u8> = [&[63][..], &[b'x'; 63]].concat().repeat(count);
            message.splice(12..12, more);
        }
        4 => {
            // An OPT with options, one that is cut, or a second one.
            let count = random.between(0, 24);
            let more = random.bytes(count);
            message.extend(more);
            message[11] = message[11].wrapping_add(random.pick(&[0, 1, 2]));
        }
        5 => {
            let at = random.below(message.len() as u64) as usize;
            message.truncate(at);
        }
        6 | 7 => super::spoil(random, &mut message),
        _ => {}
    }
    message
}
