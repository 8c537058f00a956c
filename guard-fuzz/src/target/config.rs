//! The configuration file.

use guard_sim::random::Random;

use super::Target;
use crate::{
    draw,
    driver::{Verdict, wrong},
};

/// The target. A case is the bytes of a file.
pub(super) struct Config;

impl Target for Config {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        draw::configuration(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let Ok(text) = str::from_utf8(case) else {
            return Ok("no text");
        };
        match guard_user::fuzz::config(text) {
            Ok(lines) => {
                each_is_a_line(&lines)?;
                Ok("a configuration")
            }
            Err(messages) => {
                each_is_a_line(&messages)?;
                if messages.is_empty() {
                    return wrong("refused without a reason");
                }
                for message in &messages {
                    lies_in(text, message)?;
                }
                Ok(if messages.len() > 1 {
                    "several things are wrong"
                } else {
                    "one thing is wrong"
                })
            }
        }
    }
}

/// What is said goes to a terminal and into a log: nothing in it steers either.
pub(super) fn each_is_a_line(lines: &[String]) -> Verdict {
    match lines.iter().find(|line| line.chars().any(steers)) {
        Some(line) => wrong(format!("a line that steers the terminal: {line:?}")),
        None => Ok(""),
    }
}

/// Control characters, and those that turn the direction of writing.
fn steers(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message is `FILE:LINE:COLUMN: what`, and there is such a place.
fn lies_in(text: &str, message: &str) -> Verdict {
    let mut parts = message.splitn(4, ':');
    let _file = parts.next();
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(line), Some(column)) = (number(), number()) else {
        return wrong(format!("no place: {message}"));
    };
    let lines = text.split('\n').count();
    let longest = text.split('\n').map(|line| line.chars().count()).max().unwrap_or(0);
    if line == 0 || line > lines || column == 0 || column > longest + 1 {
        return wrong(format!("not a place in the file: {message}"));
    }
    Ok("")
}
