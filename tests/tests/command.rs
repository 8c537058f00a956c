//! The command line: what a person types, what comes back, and the exit code.
//!
//! Needs the agent's binary, like every test here; only the last one needs root.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use guard_tests::{Namespace, guard};

/// Bad usage, bad configuration: nothing was touched.
const BAD_CONFIGURATION: i32 = 2;

/// The commented template that ships with the agent.
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-user/dnsguard.example.toml");

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn dnsguard(arguments: &[&str]) -> Result<Said> {
    let Output { status, stdout, stderr } = Command::new(guard::binary()?)
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()?;
    Ok(Said {
        code: status.code(),
        out: String::from_utf8(stdout)?,
        err: String::from_utf8(stderr)?,
    })
}

/// Checks a configuration that comes through a pipe: nothing is written anywhere.
fn check(text: &str) -> Result<Said> {
    let (reader, mut writer) = std::io::pipe()?;
    std::io::Write::write_all(&mut writer, text.as_bytes())?;
    drop(writer);
    let Output { status, stdout, stderr } = Command::new(guard::binary()?)
        .args(["check-config", "/dev/stdin"])
        .stdin(reader)
        .output()?;
    Ok(Said {
        code: status.code(),
        out: String::from_utf8(stdout)?,
        err: String::from_utf8(stderr)?,
    })
}

#[test]
fn the_template_is_a_right_configuration() -> Result<()> {
    let said = dnsguard(&["check-config", TEMPLATE])?;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    ensure!(said.out.starts_with(&format!("{TEMPLATE}: ok: ")), "{}", said.out);
    ensure!(said.out.contains("observe") && said.out.contains("lo"), "{}", said.out);
    assert_eq!(said.out.lines().count(), 1, "{}", said.out);
    Ok(())
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place_and_what_is_allowed() -> Result<()> {
    let said = check("mode = \"enforced\"\nports = [53, 0]\n[breaker]\nhold_seconds = 1\n[lease]\nseconds = 4\n")?;
    assert_eq!((said.code, said.out.as_str()), (Some(BAD_CONFIGURATION), ""));
    let lines: Vec<_> = said.err.lines().collect();
    assert_eq!(
        lines,
        [
            "/dev/stdin:1:8: mode is 'enforced'; allowed: observe, enforce",
            "/dev/stdin:2:14: ports is 0; allowed: an integer, 1 to 65535",
            "/dev/stdin:4:1: unknown key 'hold_seconds' in [breaker]; allowed: hold_ms, hold_max_ms, test_ms",
            "/dev/stdin:6:11: [lease] seconds is 4; allowed: an integer, 5 to 300",
        ]
    );
    Ok(())
}

#[test]
fn what_is_no_toml_is_told_with_its_place() -> Result<()> {
    let said = check("mode = \"observe\"\nports = [53\n[lease]\n")?;
    assert_eq!((said.code, said.out.as_str()), (Some(BAD_CONFIGURATION), ""));
    ensure!(said.err.starts_with("/dev/stdin:"), "{}", said.err);
    ensure!(said.err.contains("this is not TOML"), "{}", said.err);
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_is_named() -> Result<()> {
    let path = "/nonexistent/dnsguard.toml";
    for arguments in [&["check-config", path][..], &["run", "--config", path]] {
        let said = dnsguard(arguments)?;
        assert_eq!((said.code, said.out.as_str()), (Some(BAD_CONFIGURATION), ""));
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        ensure!(
            said.err.contains(path) && said.err.contains("No such file"),
            "{}",
            said.err
        );
    }
    Ok(())
}

#[test]
fn every_help_has_an_example_and_the_exit_codes() -> Result<()> {
    for command in [
        &[][..],
        &["run"],
        &["check-config"],
        &["probe"],
        &["doctor"],
        &["replay"],
        &["detach"],
    ] {
        for flag in ["--help", "-h"] {
            let arguments = [command, &[flag]].concat();
            let said = dnsguard(&arguments)?;
            assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{arguments:?}");
            for part in ["Example", "Exit codes:", "dnsguard "] {
                ensure!(said.out.contains(part), "{arguments:?} has no {part}:\n{}", said.out);
            }
        }
    }
    Ok(())
}

#[test]
fn a_capture_that_is_not_there_is_named() -> Result<()> {
    let said = dnsguard(&["replay", "/nonexistent/night.pcap"])?;
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert_eq!(
        said.err,
        "dnsguard: /nonexistent/night.pcap: No such file or directory (os error 2)\n"
    );
    Ok(())
}

#[test]
fn a_capture_comes_through_a_pipe_as_well() -> Result<()> {
    // An empty one, of Ethernet, with nanoseconds; and the first half of its header.
    let mut header = 0xa1b2_3c4d_u32.to_le_bytes().to_vec();
    header.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for (bytes, code, told) in [
        (&header[..], 0, "no loop, no storm"),
        (&header[..12], 1, "ends within the record that begins at byte 0"),
    ] {
        let (reader, mut writer) = std::io::pipe()?;
        std::io::Write::write_all(&mut writer, bytes)?;
        drop(writer);
        let Output { status, stdout, stderr } = Command::new(guard::binary()?)
            .args(["replay", "-"])
            .stdin(reader)
            .output()?;
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(status.code() == Some(code) && said.contains(told), "{status}: {said}");
    }
    Ok(())
}

#[test]
fn it_says_its_version() -> Result<()> {
    for flag in ["--version", "-V"] {
        let said = dnsguard(&[flag])?;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        let version = said.out.trim_end().strip_prefix("dnsguard ").context("no name")?;
        ensure!(version.split('.').count() == 3, "{version}");
    }
    Ok(())
}

#[test]
fn bad_usage_touches_nothing() -> Result<()> {
    for (arguments, told) in [
        (&[][..], "Usage: dnsguard"),
        (&["start"], "start"),
        (&["run", "--colour"], "--colour"),
        (&["run", "--mode", "kill"], "observe, enforce"),
        (&["run", "--interface", "sixteen-letters-"], "--interface"),
        (&["run", "--events", "xml"], "text, jsonl, off"),
        (&["run", "--pin-dir", "here"], "--pin-dir"),
        (&["check-config"], "<FILE>"),
        (&["detach"], "--all"),
        (&["replay"], "<FILE>"),
        (
            &["replay", "--local", "10.0.0.1/8", "x"],
            "no bits behind the prefix length",
        ),
        (&["replay", "--config", "/nonexistent/x.toml", "-"], "No such file"),
    ] {
        let said = dnsguard(arguments)?;
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(BAD_CONFIGURATION), ""),
            "{arguments:?}"
        );
        ensure!(said.err.contains(told), "{arguments:?}: no {told} in\n{}", said.err);
    }
    Ok(())
}

#[test]
#[ignore = "needs root and real resolvers: cargo xtask test"]
fn who_may_not_is_told_what_it_takes() -> Result<()> {
    let namespace = Namespace::new()?;
    // Where nobody else can reach the build directory, this copy can be run all the same.
    let copy = Path::new("/run/dnsguard");
    let binary = guard::binary()?;
    namespace.run(|| fs::copy(binary, copy))?;
    let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let powerless = ["--bounding-set", "-all", "--inh-caps", "-all"];
    for flags in [[&user[..], &powerless].concat(), powerless.to_vec()] {
        let mut command = Command::new("setpriv");
        command.args(&flags).arg(copy).args(["run", "--interface", "lo"]);
        let process = namespace.spawn(command)?;
        let status = process.wait(Duration::from_secs(20))?;
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with("dnsguard: ")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        ensure!(
            lines[0].contains("CAP_BPF") && lines[0].contains("root"),
            "{}",
            lines[0]
        );
        let left = namespace.run(|| Path::new("/sys/fs/bpf/dnsguard").exists());
        ensure!(!left, "{flags:?}: the pin directory is left");
    }
    Ok(())
}
