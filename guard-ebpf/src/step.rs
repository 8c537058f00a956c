//! The steps that loop over a packet, in the form of functions which the verifier checks once.
//!
//! Such a function takes and returns numbers. Each hook has its own set, because a function knows its context by type.

use guard_common::{
    key::Key,
    question::{Name, Question, Unreadable},
};

use crate::{frame::Frame, maps::CONTROL};

/// What `name` returns for a name it does not accept. No name is 0 bytes long.
const BAD_NAME: u64 = 0x100;
/// What `name` returns for a name that ends before it is over.
const SHORT: u64 = 0x200;

#[inline(always)]
pub(crate) fn name(frame: &Frame, name_at: u32) -> u64 {
    match Name::walk(frame, name_at as usize) {
        Ok(name) => name.number(),
        Err(Unreadable::Short) => SHORT,
        Err(_) => BAD_NAME,
    }
}

#[inline(always)]
pub(crate) const fn unpack_name(returned: u64) -> Result<Name, Unreadable> {
    match returned {
        SHORT => Err(Unreadable::Short),
        BAD_NAME => Err(Unreadable::Name),
        number => Ok(Name::from_number(number)),
    }
}

#[inline(always)]
pub(crate) const fn pack_question(question: &Question) -> u64 {
    let Question {
        name_at,
        name_len,
        qtype,
        qclass,
    } = *question;
    (name_at as u64) << 48 | (name_len as u64) << 32 | (qtype as u64) << 16 | qclass as u64
}

#[inline(always)]
pub(crate) fn key(frame: &Frame, packed: u64) -> u64 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let question = Question {
        name_at: (packed >> 48) as usize,
        name_len: (packed >> 32 & 0xff) as usize,
        qtype: (packed >> 16) as u16,
        qclass: packed as u16,
    };
    match Key::of(frame, &question, &control.secret) {
        Some(key) => key.0,
        None => 0,
    }
}

/// The digest of a zone: the key of a name without a type.
#[inline(always)]
pub(crate) fn zone(frame: &Frame, name: u64, name_at: u32, labels: u32) -> u64 {
    let name = Name::from_number(name);
    let Some(at) = name.zone_at(labels as u8) else { return 0 };
    let zone = Question {
        name_at: name_at as usize + at,
        name_len: name.len() - at,
        qtype: 0,
        qclass: 0,
    };
    key(frame, pack_question(&zone))
}

#[inline(always)]
pub(crate) const fn unpack_key(returned: u64) -> Option<Key> {
    if returned == 0 { None } else { Some(Key(returned)) }
}
