//! The control socket: bytes over a connection, and what comes back.

use anyhow::Result;
use guard_sim::random::Random;
use serde_json::Value;

use super::Target;
use crate::{
    draw,
    driver::{Verdict, wrong},
};

/// The target. A case is what is sent over one connection.
pub(super) struct Control(guard_user::fuzz::Control);

impl Control {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(guard_user::fuzz::Control::new()?))
    }
}

impl Target for Control {
    fn draw(&self, random: &mut Random) -> Vec<u8> {
        draw::request(random)
    }

    fn check(&mut self, case: &[u8]) -> Verdict {
        let response = match self.0.respond(case) {
            Ok(response) => response,
            Err(error) => return wrong(format!("no connection: {error}")),
        };
        if response.is_empty() {
            return Ok("no answer to half a request");
        }
        let Some((head, body)) = parts(&response) else {
            return wrong(format!(
                "no HTTP: {}",
                String::from_utf8_lossy(&response).escape_debug()
            ));
        };
        let Some(status) = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()) else {
            return wrong(format!("no status: {head}"));
        };
        if head
            .chars()
            .any(|letter| letter.is_control() && letter != '\r' && letter != '\n')
        {
            return wrong(format!("a head that steers a terminal: {head:?}"));
        }
        match status {
            200 => Ok("answered"),
            // The HTTP library's own, for what is no request to it.
            400 | 414 | 431 | 501 | 505 if body.is_empty() => Ok("no HTTP"),
            400 | 403 | 404 | 405 | 409 => {
                let failure: Option<Value> = serde_json::from_slice(body).ok();
                let error = failure.as_ref().and_then(|failure| failure["error"].as_str());
                match error {
                    Some(error) if !error.is_empty() => Ok("refused, with a reason"),
                    _ => wrong(format!("status {status} without a reason")),
                }
            }
            _ => wrong(format!("status {status}: {}", String::from_utf8_lossy(body))),
        }
    }
}

fn parts(response: &[u8]) -> Option<(&str, &[u8])> {
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = str::from_utf8(&response[..end]).ok()?;
    head.starts_with("HTTP/1.").then_some((head, &response[end + 4..]))
}
