//! Commands that ask the running agent, and what they print.

pub(crate) mod bugtool;
pub(crate) mod explain;
pub(crate) mod loops;
pub(crate) mod observe;
pub(crate) mod policy;
pub(crate) mod reload;
pub(crate) mod status;

use std::path::PathBuf;

use crate::{
    config::DEFAULT_SOCKET,
    control::{
        api::Done,
        client::{Client, ClientError},
    },
    exit,
    print::{self, Format, harmless},
};

/// What a command prints, and its exit code.
pub(crate) type Outcome = Result<(String, u8), ClientError>;

/// How the agent is reached, and what is printed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Remote {
    /// Unix socket of the agent: that of `socket` in its configuration.
    #[arg(long, value_name = "PATH", env = "DNSGUARD_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// A table for people, one JSON document, or JSON an object a line.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl Remote {
    /// The way to the agent.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// Has the agent do something, and says what it did.
fn have_done(remote: &Remote, path: &str, body: &impl serde::Serialize) -> Outcome {
    let done: Done = remote.client().post(path, body)?;
    let text = match remote.output {
        Format::Table => done
            .done
            .iter()
            .map(|sentence| harmless(sentence).into_owned() + "\n")
            .collect(),
        format => print::json(&done, format),
    };
    Ok((text, exit::DONE))
}

/// A part of a path behind `?`, escaped.
fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    query.finish()
}

/// Seconds as people say them: `3 d 4 h`, `5 min 3 s`, `0.4 s`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_parts_at_most() {
        let shown = [400, 59_900, 60_000, 3_599_000, 3_600_000, 90_000_000].map(duration);
        assert_eq!(
            shown,
            ["0.4 s", "59.9 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 d 1 h"]
        );
    }

    #[test]
    fn what_is_typed_is_escaped_on_its_way() {
        assert_eq!(query(&[("name", "a&b=c.*"), ("type", "A")]), "name=a%26b%3Dc.*&type=A");
    }
}
