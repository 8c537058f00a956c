//! What marks do to the spelling of a name, and to the checksum over it.

use guard_common::{
    key::{Hashed, Secret},
    spelling::{Change, NamePlace, Pattern, Respelling, Spelling as Spelled},
};
use guard_sim::random::Random;

use super::{Target, question_in};
use crate::{
    draw,
    driver::{Verdict, wrong},
};

const SECRET: Secret = Secret([
    0xfeed_f00d_dead_beef,
    0x0123_4567_89ab_cdef,
    0x0f1e_2d3c_4b5a_6978,
    0x1357,
]);
/// The bit in which a capital differs from its small letter.
const CASE: u8 = 0x20;

/// The target. A case is the four bytes of a nonce and a frame.
pub(super) struct Spelling;

impl Target for Spelling {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        let mut case = (random.next() as u32).to_be_bytes().to_vec();
        case.extend(draw::query_frame(random));
        case
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Some((nonce, frame)) = case.split_first_chunk() else {
            return Ok("nothing at all");
        };
        let (_, message) = match question_in(frame) {
            Ok(found) => found,
            Err(class) => return Ok(class),
        };
        let place = NamePlace {
            at: message.question.name_at,
            length: message.question.name_len,
        };
        let Some(Hashed { key, plain }) = Hashed::read(frame, &message.question, &SECRET) else {
            return wrong("no key for a question that is there");
        };
        let name = &frame[place.at..place.at + place.length];
        if plain == name.iter().any(u8::is_ascii_uppercase) {
            return wrong(format!("plain is {plain}"));
        }
        let pattern = Pattern::new(u32::from_be_bytes(*nonce), key, &SECRET);
        let read = |frame: &[u8]| Spelled::read(frame, place, key, pattern, &SECRET);
        let Some(before) = read(frame) else {
            return wrong("the spelling of a name that is there cannot be read");
        };
        let flipped = respelled(frame, place, message.at, Respelling::Flip(pattern))?;
        let Some(after) = read(&flipped) else {
            return wrong("the spelling of a marked name cannot be read");
        };
        let marked = &flipped[place.at..place.at + place.length];
        let count = |name: &[u8], is: fn(&u8) -> bool| name.iter().filter(|byte| is(byte)).count() as u32;
        let is_as_told = after.digest == before.flipped
            && after.flipped == before.digest
            && before.letters == count(name, u8::is_ascii_alphabetic)
            && before.capitals == count(marked, u8::is_ascii_uppercase);
        if !is_as_told {
            return wrong(format!("{before:?} became {after:?}"));
        }
        if (before.digest == before.flipped) != (marked == name) {
            return wrong("two spellings with one digest, or one with two");
        }
        if respelled(&flipped, place, message.at, Respelling::Flip(pattern))? != frame {
            return wrong("a mark taken off twice leaves something");
        }
        let lowered = respelled(frame, place, message.at, Respelling::Lower)?;
        if lowered[place.at..place.at + place.length] != name.to_ascii_lowercase() {
            return wrong("not all letters became small");
        }
        Ok(match (before.is_a_mark(), before.letters) {
            (true, _) => "marked, and unmarked",
            (false, 0) => "a name without letters",
            (false, _) => "a pattern that is no mark",
        })
    }
}

/// The frame with its name respelled, after a look at all else: letters alone change, and the checksum says so.
fn respelled(frame: &[u8], place: NamePlace, start: usize, how: Respelling) -> Result<Vec<u8>, String> {
    let mut changed = frame.to_vec();
    let (name_end, checksum_at) = (place.at + place.length, start - 2);
    let Some(change) = Change::make(changed.as_mut_slice(), place, how, &SECRET) else {
        return Err("a name that is there cannot be respelled".to_owned());
    };
    for (at, (old, new)) in frame.iter().zip(&changed).enumerate() {
        let is_letter = (place.at..name_end).contains(&at) && old.is_ascii_alphabetic() && old ^ CASE == *new;
        if old != new && !is_letter {
            return Err(format!("byte {at} became {new:02x}, from {old:02x}"));
        }
    }
    // The difference that the kernel's helpers are told: they add it to a sum of words as they lie in memory.
    let sums = [frame, &changed].map(|frame| folded(words_of(&frame[start..name_end], u16::from_le_bytes)));
    if folded(u64::from(sums[0]) + u64::from(change.difference())) != sums[1] {
        return Err("the difference of the sums is another".to_owned());
    }
    change
        .apply(changed.as_mut_slice(), checksum_at)
        .ok_or("no place for a checksum")?;
    let checksums = [frame, &changed].map(|frame| u16::from_be_bytes([frame[checksum_at], frame[checksum_at + 1]]));
    if checksums[0] == 0 {
        return if checksums[1] == 0 {
            Ok(changed)
        } else {
            Err("a checksum where there was none".to_owned())
        };
    }
    let sums = [frame, &changed].map(|frame| folded(words_of(&frame[start..name_end], u16::from_be_bytes)));
    let grown = u64::from(sums[1]) + u64::from(!sums[0]);
    let expected = !folded(u64::from(!checksums[0]) + grown);
    let zero_is_zero = |sum: u16| if sum == 0xffff { 0 } else { sum };
    if checksums[1] == 0 || zero_is_zero(checksums[1]) != zero_is_zero(expected) {
        return Err(format!(
            "checksum {:04x} became {:04x}, not {expected:04x}",
            checksums[0], checksums[1]
        ));
    }
    Ok(changed)
}

/// The sum of the 16-bit words of bytes, which begin at an even place of their packet.
fn words_of(bytes: &[u8], word: fn([u8; 2]) -> u16) -> u64 {
    let words = bytes
        .chunks(2)
        .map(|pair| word([pair[0], pair.get(1).copied().unwrap_or(0)]));
    words.map(u64::from).sum()
}

fn folded(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
