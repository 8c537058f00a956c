//! A change of a key by hand, laid over the configuration.

use guard_sim::random::Random;

use super::{Target, config::each_is_a_line};
use crate::{
    draw,
    driver::{Verdict, wrong},
};

/// The target. A case is a key and a value, each behind its length, and the bytes of a file.
pub(super) struct Edit;

impl Target for Edit {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        draw::edit(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Some(((key, value), file)) = parts(case) else {
            return Ok("no key and value");
        };
        let [Ok(key), Ok(value), Ok(file)] = [key, value, file].map(str::from_utf8) else {
            return Ok("no text");
        };
        match guard_user::fuzz::edit(file, key, value) {
            Ok(text) => {
                // The file was TOML, and still is; laying the same over it again changes nothing.
                if guard_user::fuzz::edit(&text, key, value).as_ref() != Ok(&text) {
                    return wrong(format!("{key} = {value} twice is something else than once"));
                }
                match guard_user::fuzz::config(&text) {
                    Ok(lines) => each_is_a_line(&lines).and(Ok("a change that is right")),
                    Err(messages) => each_is_a_line(&messages).and(Ok("a change that is refused")),
                }
            }
            Err(message) => Ok(if message == "no TOML" {
                "no file to change"
            } else {
                "no such key"
            }),
        }
    }
}

/// Key, value and file.
type Parts<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn parts(case: &[u8]) -> Option<Parts<'_>> {
    let (length, rest) = case.split_first()?;
    let (key, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first()?;
    let (value, file) = rest.split_at_checked(usize::from(*length))?;
    Some(((key, value), file))
}
