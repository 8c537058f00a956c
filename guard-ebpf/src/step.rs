//! The steps that loop over a packet, in the form of functions which the verifier checks once.
//!
//! Such a function takes and returns numbers. Each hook has its own set, because a function knows its context by type.

use guard_common::{
    key::Key,
    question::{self, Question, Unreadable},
};

use crate::{frame::Frame, maps::CONTROL};

/// What `name_len` returns for a name it does not accept.
const BAD_NAME: u32 = 0x100;
/// What `name_len` returns for a name that ends before it is over.
const SHORT: u32 = 0x200;

#[inline(always)]
pub(crate) fn name_len(frame: &Frame, name_at: u32) -> u32 {
    match question::name_len(frame, name_at as usize) {
        Ok(len) => len as u32,
        Err(Unreadable::Short) => SHORT,
        Err(_) => BAD_NAME,
    }
}

#[inline(always)]
pub(crate) const fn unpack_name_len(returned: u32) -> Result<usize, Unreadable> {
    match returned {
        1..BAD_NAME => Ok(returned as usize),
        SHORT => Err(Unreadable::Short),
        _ => Err(Unreadable::Name),
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

#[inline(always)]
pub(crate) const fn unpack_key(returned: u64) -> Option<Key> {
    if returned == 0 { None } else { Some(Key(returned)) }
}
