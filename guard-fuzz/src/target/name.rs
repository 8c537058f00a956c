//! The text of a name, as logs, the terminal, the page and the metrics show it.

use guard_sim::random::Random;

use super::Target;
use crate::{
    draw,
    driver::{Verdict, wrong},
};

/// The target. A case is the wire form of a name, or what is no name.
pub(super) struct Name;

impl Target for Name {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        let mut name = draw::name(random);
        if random.below(4) == 0 {
            draw::spoil(random, &mut name);
        }
        name
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let text = guard_user::fuzz::text_of_name(case);
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('"') != text.contains("\\\"") {
            return wrong(format!("not printable ASCII alone: {text:?}"));
        }
        if !text.ends_with('.') {
            return wrong(format!("no dot at the end: {text}"));
        }
        let back = guard_user::fuzz::wire_of_name(&text);
        if is_a_name(case) {
            if back.as_deref() != Some(&case.to_ascii_lowercase()) {
                return wrong(format!("{text} is {back:02x?} again"));
            }
            return Ok("a name, and back");
        }
        // Whatever else it is, what an operator types is read or refused, and never more than it can be.
        if back.is_some_and(|wire| !is_a_name(&wire)) {
            return wrong(format!("{text} is read as what is no name"));
        }
        Ok("no name")
    }
}

/// Whether these are whole labels and a root, 255 bytes at most.
fn is_a_name(wire: &[u8]) -> bool {
    let mut at = 0;
    while let Some(length @ 1..=63) = wire.get(at) {
        at += 1 + usize::from(*length);
    }
    wire.get(at) == Some(&0) && wire.len() == at + 1 && wire.len() <= 255
}
