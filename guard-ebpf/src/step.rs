//! The steps that loop over a packet, in the form of functions which the verifier checks once.
//!
//! Such a function takes and returns numbers. Each hook has its own set, because a function knows its context by type.

use core::arch::asm;

use guard_common::{
    bytes::{Bytes as _, Cursor as _},
    case::Case,
    key::Hashed,
    marks::Found,
    question::{Name, Question, Unreadable, is_unsigned, name_len},
    recent::Recent,
    spelling::{Pattern, Respelling, Spelling, WORDS},
};

use crate::{
    bench::Desk,
    frame::{Frame, MAX_OFFSET},
    maps::control,
};

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

/// Reads the question whose name begins at `name_at` in a message that goes up to `end`, and puts it into the case; what
/// [`Unreadable`] says of it, or [`READABLE`].
#[inline(always)]
pub(crate) fn question(frame: &Frame, name_at: u32, end: u32, case: *mut Case, device: u32) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(case) = (unsafe { case.as_mut() }) else {
        return Unreadable::Short as u32;
    };
    let name_at = name_at as usize & MAX_OFFSET;
    let name_len = match name_len(frame, name_at) {
        Ok(length) => length,
        Err(unreadable) => return unreadable as u32,
    };
    // The verifier does not follow what goes through the desk: it would check what comes after for each length.
    case.name_len = name_len as u16;
    let name_len = core::hint::black_box(&*case).name_len as usize & 0xff;
    let question = match Question::read(frame, name_at, name_len, end as usize) {
        Ok(question) => question,
        Err(unreadable) => return unreadable as u32,
    };
    match Hashed::read(frame, &question, &control().secret) {
        Some(hashed) => case.fill_question(&question, hashed, device),
        None => return Unreadable::Short as u32,
    }
    READABLE
}

/// What [`question`] returns of a question that it has read.
pub(crate) const READABLE: u32 = u32::MAX;

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
    let question = Question {
        name_at: (packed >> 48) as usize,
        name_len: (packed >> 32 & 0xff) as usize,
        qtype: (packed >> 16) as u16,
        qclass: packed as u16,
    };
    match Hashed::read(frame, &question, &control().secret) {
        Some(hashed) => hashed.number(),
        None => 0,
    }
}

/// Reads the name that begins at `name_at`, which is the recent one then: the type and class that follow it, or 0 if there
/// is none.
#[inline(always)]
pub(crate) fn learn(frame: &Frame, name_at: u32, recent: *mut Recent) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(recent) = (unsafe { recent.as_mut() }) else {
        return 0;
    };
    // Of a short name, so many bytes in front of it are read as well.
    const BEFORE: usize = 16;
    let name = frame.cursor(name_at as usize - BEFORE).forward(BEFORE);
    recent.learn(name, &control().secret).unwrap_or(0)
}

/// What it says. A question of type and class 0 is left to others.
#[inline(always)]
pub(crate) const fn unpack_type(type_and_class: u32) -> Option<u32> {
    if type_and_class == 0 {
        None
    } else {
        Some(type_and_class)
    }
}

/// Begins to read how the name on the desk is spelled, and how it would be with the mark of `nonce`; 0 if that fails.
#[inline(always)]
pub(crate) fn begin_spelling(frame: &Frame, desk: *mut Desk, nonce: u32) -> u32 {
    // SAFETY: the callers pass references; the verifier wants the check for null.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let name = desk.case.name();
    let Some(unsigned) = is_unsigned(frame, name.at, name.length) else {
        return 0;
    };
    desk.nonce = nonce;
    desk.spelled.unsigned = unsigned;
    desk.spelled.spelling = Spelling::begin(desk.case.subject.key, &control().secret);
    1
}

/// Reads eight bytes of the name on the desk; [`MORE`] if there may be more of it, 0 if the packet is too short.
#[inline(always)]
pub(crate) fn spell(frame: &Frame, desk: *mut Desk, word: u32) -> u32 {
    // SAFETY: as above.
    let Some(desk) = (unsafe { desk.as_mut() }) else {
        return 0;
    };
    let secret = &control().secret;
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
    let Some(found) = Found::from_number(found) else {
        return 0;
    };
    let secret = &control().secret;
    let how = if found.own {
        Respelling::Flip(Pattern::new(found.nonce, desk.case.subject.key, secret))
    } else {
        Respelling::Lower
    };
    let name = desk.case.name();
    said(desk.change.add(frame, name, word as usize & (WORDS - 1), how, secret))
}

/// A number that a function returns where it gives up. The optimiser would put a constant into a register ahead of each
/// way that leads there.
#[inline(always)]
pub(crate) fn late<const NUMBER: u32>() -> u32 {
    let number: u64;
    // SAFETY: a constant.
    unsafe { asm!("{0} = {1} ll", out(reg) number, const NUMBER, options(nomem, nostack)) };
    number as u32
}

/// 1 of what was done, 0 of what was not.
#[inline(always)]
pub(crate) fn done(done: Option<()>) -> u32 {
    match done {
        Some(()) => 1,
        None => late::<0>(),
    }
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
