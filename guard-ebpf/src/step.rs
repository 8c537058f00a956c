//! The steps that loop over a packet, in the form of functions which the verifier checks once.
//!
//! Such a function takes and returns numbers. Each hook has its own set, because a function knows its context by type.

use guard_common::{
    key::Hashed,
    marks::Found,
    question::{Name, Question, Unreadable, is_unsigned},
    spelling::{Pattern, Respelling, Spelling, WORDS},
};

use crate::{bench::Desk, frame::Frame, maps::CONTROL};

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
    match Hashed::read(frame, &question, &control.secret) {
        Some(hashed) => hashed.number(),
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
    match key(frame, pack_question(&zone)) {
        0 => 0,
        // How it is spelled does not count.
        number => number | 1,
    }
}

/// Begins to read how the name on the desk is spelled, and how it would be with the mark of `nonce`; 0 if that fails.
#[inline(always)]
pub(crate) fn begin_spelling(frame: &Frame, desk: *mut Desk, nonce: u32) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let Some(control) = CONTROL.get(0) else { return 0 };
    let name = desk.case.name();
    let Some(unsigned) = is_unsigned(frame, name.at, name.length) else {
        return 0;
    };
    desk.nonce = nonce;
    desk.spelled.unsigned = unsigned;
    desk.spelled.spelling = Spelling::begin(desk.case.subject.key, &control.secret);
    1
}

/// Reads eight bytes of the name on the desk; [`MORE`] if there may be more of it, 0 if the packet is too short.
#[inline(always)]
pub(crate) fn spell(frame: &Frame, desk: *mut Desk, word: u32) -> u32 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let Some(control) = CONTROL.get(0) else { return 0 };
    let secret = &control.secret;
    let name = desk.case.name();
    let pattern = Pattern::new(desk.nonce, desk.case.subject.key, secret);
    said(
        desk.spelled
            .spelling
            .add(frame, name, word as usize & (WORDS - 1), pattern, secret),
    )
}

/// Respells eight bytes of the name on the desk, as [`spell`] reads them: flips a mark of its own, or makes all letters
/// small where the mark is somebody else's.
#[inline(always)]
pub(crate) fn respell(frame: &mut Frame, desk: *mut Desk, found: u64, word: u32) -> u32 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let (Some(control), Some(found)) = (CONTROL.get(0), Found::from_number(found)) else {
        return 0;
    };
    let secret = &control.secret;
    let how = if found.own {
        Respelling::Flip(Pattern::new(found.nonce, desk.case.subject.key, secret))
    } else {
        Respelling::Lower
    };
    let name = desk.case.name();
    said(desk.change.add(frame, name, word as usize & (WORDS - 1), how, secret))
}

/// Takes the steps over the words of a name, one after the other. False if one fails.
#[inline(always)]
pub(crate) fn for_words(step: impl Fn(u32) -> u32) -> bool {
    for word in 0..WORDS as u32 {
        match step(word) {
            MORE => {}
            returned => return returned == OVER,
        }
    }
    true
}

/// What a step over the words of a name returns: it goes on, or it is over. 0 is that the packet was too short.
const MORE: u32 = 1;
const OVER: u32 = 2;

#[inline(always)]
const fn said(added: Option<bool>) -> u32 {
    match added {
        Some(true) => MORE,
        Some(false) => OVER,
        None => 0,
    }
}
