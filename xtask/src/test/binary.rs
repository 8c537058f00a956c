//! The test binaries: cargo builds them all in one go, and says where they lie.
//!
//! One build for all is one set of features for all: what two packages share is compiled once.

use std::{ffi::OsStr, path::PathBuf, process::Command, time::Instant};

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::{
    agent::Build,
    root::Root,
    step::{self, Said},
};

/// The kind of target that has a file in the `tests` folder of its package.
const OF_ITS_OWN: &str = "test";

/// The folders of packages of which some tests need root. Those run one after the other.
const ROOTED: [&str; 2] = ["guard-fuzz/", "tests/"];

/// What a binary leaves to those that run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// It waits most of the time.
    Usual,
    /// It takes what the others leave.
    Lowest,
}

/// One test binary.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// `tests/loops`, or `guard-user/lib` for the unit tests in a package's own sources.
    pub(super) name: String,
    path: PathBuf,
    /// Its package's, in which it runs.
    folder: PathBuf,
}

impl Binary {
    /// The command that runs it, with what needs root if there is root.
    pub(super) fn command(&self, build: &Build<'_>, root: Option<Root>, priority: Priority) -> Command {
        let root = root.filter(|_| ROOTED.iter().any(|folder| self.name.starts_with(folder)));
        let mut words: Vec<&OsStr> = Vec::new();
        if root == Some(Root::BySudo) {
            words.extend(["sudo", "-E"].map(OsStr::new));
        }
        if priority == Priority::Lowest {
            words.extend(["nice", "-n", "19"].map(OsStr::new));
        }
        words.push(self.path.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        if root.is_some() {
            command.args(["--include-ignored", "--test-threads=1"]);
        }
        build.show(&mut command);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    /// One that is nowhere.
    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
        }
    }

    /// What cargo says in a line of its messages, if that is that a test binary is built.
    fn parse(line: &str) -> Option<Self> {
        let artifact: Artifact = serde_json::from_str(line).ok()?;
        let path = artifact.executable.filter(|_| artifact.profile.test)?;
        let folder = artifact.manifest_path.parent()?.to_owned();
        let package = folder.file_name().and_then(OsStr::to_str)?;
        let kind = artifact.target.kind.first()?;
        let target = if kind == OF_ITS_OWN {
            &artifact.target.name
        } else {
            kind
        };
        Some(Self {
            name: format!("{package}/{target}"),
            path,
            folder,
        })
    }
}

/// Builds the test binaries of packages.
pub(super) fn build(build: &Build<'_>, packages: &[&str]) -> Result<Vec<Binary>> {
    let mut command = build.cargo(&[
        "test",
        "--no-run",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]);
    command.args(packages.iter().flat_map(|package| ["-p", package]));
    step::note("building the tests");
    let start = Instant::now();
    let mut binaries = Vec::new();
    let status = step::lines(&mut command, |said| {
        if let Said::Line(line) = said {
            binaries.extend(Binary::parse(line));
        }
    })?;
    ensure!(status.success(), "cargo test --no-run ended with {status}; see above");
    step::note(&format!("building the tests: {}", step::seconds(start.elapsed())));
    Ok(binaries)
}

/// A line of cargo's messages (The Cargo Book, External tools, JSON messages).
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_told_from_all_else_that_cargo_says() {
        let message = |kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/sim/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":{executable},"fresh":true}}"#
            )
        };
        let parse = |line: &str| Binary::parse(line).map(|binary| binary.name);
        let found = Binary::parse(&message("test", "loops", true, r#""/t/loops-1""#));
        let expected = Binary {
            name: "sim/loops".into(),
            path: "/t/loops-1".into(),
            folder: "/w/sim".into(),
        };
        assert_eq!(found, Some(expected));
        let unit = message("lib", "guard_sim", true, r#""/t/guard_sim-1""#);
        assert_eq!(parse(&unit).as_deref(), Some("sim/lib"));
        assert_eq!(parse(&message("lib", "guard_sim", false, "null")), None);
        assert_eq!(parse(&message("bin", "sim", false, r#""/t/sim""#)), None);
        assert_eq!(parse(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(parse("Compiling sim"), None);
    }
}
