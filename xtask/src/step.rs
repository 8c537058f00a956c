//! One step of work: a child process, and what the person at the terminal sees of it.
//!
//! A captured step says nothing but its name and its seconds until it fails; then the tail of its output is part of
//! the error. A streamed step passes its output through as it comes. Progress goes to stderr, so that stdout stays
//! for results.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How much of a failed child's output an error repeats.
const TAIL_LINES: usize = 60;
/// How much of a command a progress line shows.
const SHOWN_CHARS: usize = 72;

/// Both output streams of a child that succeeded.
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `cargo install`, of a program for this machine, which is no part of this workspace: what is set for that is left out.
pub(crate) fn cargo_install() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("install");
    for key in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        command.env_remove(key);
    }
    command
}

/// Runs a long child with one progress line; its output is shown only if it fails.
pub(crate) fn capture(what: &str, command: &mut Command) -> Result<Output> {
    eprint!("{} {what} ({}) ... ", mark(), shortened(&line(command)));
    // A lost progress line is no reason to stop.
    let _ = io::stderr().flush();
    let start = Instant::now();
    let output = quiet(command);
    let verdict = if output.is_ok() { "" } else { "failed after " };
    eprintln!("{verdict}{}", seconds(start.elapsed()));
    output.with_context(|| format!("{what} failed"))
}

/// Runs a short child, a probe, without a progress line.
pub(crate) fn quiet(command: &mut Command) -> Result<Output> {
    let shown = line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let said = format!("{stdout}{stderr}");
        bail!("`{shown}` ended with {}\n{}", output.status, tail(&said));
    }
    Ok(Output { stdout, stderr })
}

/// Runs a child whose output the person sees as it comes.
pub(crate) fn stream(what: &str, command: &mut Command) -> Result<()> {
    let shown = line(command);
    eprintln!("{} {what} ({})", mark(), shortened(&shown));
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{what}: cannot start `{shown}`"))?;
    eprintln!("{} {what}: {}", mark(), seconds(start.elapsed()));
    if !status.success() {
        bail!("{what} failed: `{shown}` ended with {status}; its output is above");
    }
    Ok(())
}

/// What a child says on its stdout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A line, whole.
    Line(&'a str),
    /// What is there of one whose end has not come yet: a test that hangs has its name in it.
    Begun(&'a str),
}

/// Runs a child and hands on what it says on its stdout, as it comes.
pub(crate) fn lines(command: &mut Command, mut each: impl FnMut(Said<'_>)) -> Result<ExitStatus> {
    let shown = line(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut pipe = child.stdout.take().context("the child's stdout was not piped")?;
    let mut chunk = [0; 8192];
    let mut lines = Lines::default();
    loop {
        let len = pipe
            .read(&mut chunk)
            .with_context(|| format!("cannot read the output of `{shown}`"))?;
        if len == 0 {
            break;
        }
        lines.feed(&chunk[..len], &mut each);
    }
    lines.end(each);
    child.wait().with_context(|| format!("cannot wait for `{shown}`"))
}

/// Bytes as they come, made into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Said<'_>)) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            each(Said::Line(&String::from_utf8_lossy(&self.pending[..end])));
            self.pending.drain(..=end);
        }
        if !self.pending.is_empty() {
            each(Said::Begun(&String::from_utf8_lossy(&self.pending)));
        }
    }

    /// The last line may have no end.
    fn end(self, mut each: impl FnMut(Said<'_>)) {
        if !self.pending.is_empty() {
            each(Said::Line(&String::from_utf8_lossy(&self.pending)));
        }
    }
}

/// A remark between steps.
pub(crate) fn note(text: &str) {
    eprintln!("{} {text}", mark());
}

/// The file a shell would run for this name.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub(crate) fn red(text: &str) -> String {
    coloured("31;1", text)
}

fn mark() -> String {
    coloured("36;1", "==")
}

fn coloured(code: &str, text: &str) -> String {
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stderr().is_terminal() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The command as a person would type it: `/long/path/bin/cargo build` is `cargo build`.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> = std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{} s", elapsed.as_secs_f32().round())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_the_end_of_what_the_child_said() {
        let error = quiet(Command::new("sh").args(["-c", "seq 100; echo broken >&2; exit 3"]))
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("99\n100\nbroken"), "{text}");
        assert!(!text.contains("\n20\n"), "{text}");
    }

    #[test]
    fn every_line_is_seen_whole_also_one_without_an_end() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        let mut note = |said: Said<'_>| seen.push(format!("{said:?}"));
        for piece in ["on", "e\n\ntw", "o"] {
            lines.feed(piece.as_bytes(), &mut note);
        }
        lines.end(note);
        assert_eq!(
            seen,
            [
                r#"Begun("on")"#,
                r#"Line("one")"#,
                r#"Line("")"#,
                r#"Begun("tw")"#,
                r#"Begun("two")"#,
                r#"Line("two")"#
            ]
        );
    }

    #[test]
    fn a_long_command_is_shortened_at_a_character() {
        let long = "é".repeat(SHOWN_CHARS + 1);
        assert_eq!(shortened(&long), format!("{}...", "é".repeat(SHOWN_CHARS)));
        assert_eq!(shortened("cargo build"), "cargo build");
    }
}
