//! The walk over a DNS header and a name, against hickory-proto and domain.

use guard_common::{
    bytes::{Bytes as _, Cursor as _},
    key::{Hashed, Key},
    question::{FLAG_RD, HEADER_LEN, MAX_NAME_LEN, MAX_ZONE_LABELS, Message, Name, Unreadable},
    recent::Recent,
};
use guard_sim::random::Random;
use guard_tests::bench::SECRET;

use super::Target;
use crate::{
    draw,
    driver::{Verdict, wrong},
    independent::{self, Asked, Reading},
};

const MAX_LABEL_LEN: u8 = 63;

/// The target. A case is a message.
#[derive(Default)]
pub(super) struct Question {
    recent: Recent,
}

impl Target for Question {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        draw::message(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let ours = Message::read(case, 0, case.len());
        let theirs = [
            ("hickory-proto", independent::hickory(case)),
            ("domain", independent::domain(case)),
        ];
        let mut class = "";
        for (who, theirs) in theirs {
            class = match &ours {
                Ok(message) => agrees(case, message, who, theirs)?,
                Err(why) => refused(case, *why, who, theirs)?,
            };
        }
        if let Ok(message) = &ours {
            is_read_alike(case, message, &mut self.recent)?;
        }
        Ok(class)
    }
}

/// What the guard reads, both read, and the same.
fn agrees(case: &[u8], ours: &Message, who: &str, theirs: Option<Reading>) -> Verdict {
    let question = &ours.question;
    let name = &case[question.name_at..question.name_at + question.name_len];
    let expected = Reading {
        id: ours.header.id,
        responds: ours.header.is_response(),
        opcode: 0,
        recursion_desired: ours.header.flags & FLAG_RD != 0,
        rcode: ours.header.rcode(),
        questions: 1,
        question: Some(Asked {
            name: name.to_ascii_lowercase(),
            qtype: question.qtype,
            qclass: question.qclass,
        }),
    };
    if theirs.as_ref() != Some(&expected) {
        return wrong(format!("the guard reads {expected:?}, {who} {theirs:?}"));
    }
    if ours.question_end() != HEADER_LEN + name.len() + 4 {
        return wrong("the question ends elsewhere");
    }
    zones_lie_where_labels_begin(name)?;
    key_is_that_of_small_letters(case, ours)?;
    Ok(if ours.header.is_response() {
        "a response, read by all"
    } else {
        "a query, read by all"
    })
}

fn zones_lie_where_labels_begin(name: &[u8]) -> Verdict {
    let walked = Name::walk(name, 0);
    if walked.map(Name::len) != Ok(name.len()) {
        return wrong(format!("a walk over {} bytes finds {walked:?}", name.len()));
    }
    let mut starts = Vec::new();
    let mut at = 0;
    while name[at] != 0 {
        starts.push(at);
        at += 1 + usize::from(name[at]);
    }
    for labels in 0..=MAX_ZONE_LABELS + 1 {
        let is_told = labels != 0 && labels <= MAX_ZONE_LABELS && labels <= starts.len();
        let expected = is_told.then(|| starts[starts.len() - labels]);
        let found = walked.ok().and_then(|walked| walked.zone_at(labels as u8));
        if found != expected {
            return wrong(format!("the last {labels} labels begin at {found:?}, not {expected:?}"));
        }
    }
    Ok("")
}

/// Who remembers the name before it reads the same, and reads it the same once more.
fn is_read_alike(case: &[u8], ours: &Message, recent: &mut Recent) -> Verdict {
    const BEFORE: usize = 8;
    let padded = [&[0x11; BEFORE][..], case].concat();
    let packet = padded.as_slice();
    let mut question = ours.question;
    question.name_at += BEFORE;
    let expected = Hashed::read(packet, &question, &SECRET).map(|hashed| (question.name_len, hashed));
    for recalled in [false, true] {
        let name = packet.cursor(0).forward(question.name_at);
        let type_and_class = recent.recall(name);
        if recalled && type_and_class.is_none() {
            return wrong("a name that was just read is not recalled");
        }
        let read = type_and_class
            .or_else(|| recent.learn(name, &SECRET))
            .map(|type_and_class| (recent.name_len(), recent.asked(type_and_class, &SECRET)));
        if read != expected {
            return wrong(format!(
                "{read:?} is read of the name behind another one, not {expected:?}"
            ));
        }
    }
    Ok("")
}

/// Two spellings of a name have one key, wherever it lies; another type has another.
fn key_is_that_of_small_letters(case: &[u8], ours: &Message) -> Verdict {
    let key = |packet: &[u8], question: &guard_common::question::Question| Key::of(packet, question, &SECRET);
    let mut lowered = vec![0xee; 9];
    lowered.extend_from_slice(&case[..ours.question_end()]);
    let mut question = ours.question;
    question.name_at += 9;
    lowered[question.name_at..question.name_at + question.name_len].make_ascii_lowercase();
    // The hash reaches back into what lies in front of a short name: a message alone has twelve bytes there.
    let padded = [&[0x11; 8][..], case].concat();
    let mut own = ours.question;
    own.name_at += 8;
    let (own_key, other) = (key(&padded, &own), key(&lowered, &question));
    if own_key.is_none() || own_key != other {
        return wrong(format!("{own_key:?} and {other:?} are the keys of two spellings"));
    }
    question.qtype ^= 1;
    if key(&lowered, &question) == other {
        return wrong("two types have one key");
    }
    Ok("")
}

/// What the guard refuses, the others refuse too, but for what stands here.
fn refused(case: &[u8], why: Unreadable, who: &str, theirs: Option<Reading>) -> Verdict {
    let Some(theirs) = theirs else {
        return if case.len() < HEADER_LEN && why == Unreadable::Short {
            Ok("refused by all: no whole header")
        } else {
            wrong(format!("the guard says {why:?}, {who} that there is no header"))
        };
    };
    let reads = theirs.question.is_some();
    let class = match why {
        // Others read on: it is no query, or not one.
        Unreadable::Opcode if theirs.opcode != 0 => "refused by the guard: an opcode other than QUERY",
        Unreadable::QuestionCount if theirs.opcode == 0 && theirs.questions != 1 => {
            "refused by the guard: not one question"
        }
        Unreadable::Short if theirs.opcode == 0 && theirs.questions == 1 && !reads => {
            "refused by all: a question that is cut"
        }
        Unreadable::Name if theirs.opcode == 0 && theirs.questions == 1 => match fault_of_name(case) {
            // Queries are never compressed, and a pointer leads anywhere.
            Some(Fault::Compressed) => "refused by the guard: a name that is compressed",
            Some(Fault::LabelType) if !reads => "refused by all: a type of label that nobody knows",
            Some(Fault::TooLong) if !reads => "refused by all: a name above 255 bytes",
            fault => {
                return wrong(format!(
                    "the guard refuses the name ({fault:?}), {who} reads {theirs:?}"
                ));
            }
        },
        _ => return wrong(format!("the guard says {why:?}, {who} reads {theirs:?}")),
    };
    Ok(class)
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Compressed,
    LabelType,
    TooLong,
}

fn fault_of_name(case: &[u8]) -> Option<Fault> {
    let mut at = HEADER_LEN;
    loop {
        let label = case.u8(at)?;
        if label >= 0xc0 {
            return Some(Fault::Compressed);
        }
        if label > MAX_LABEL_LEN {
            return Some(Fault::LabelType);
        }
        at += 1 + usize::from(label);
        if at - HEADER_LEN > MAX_NAME_LEN {
            return Some(Fault::TooLong);
        }
        if label == 0 {
            return None;
        }
    }
}
