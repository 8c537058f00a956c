//! Why the kernel's verifier does not take a program, in one line.
//!
//! Its log is for whoever writes programs: thousands of lines, of which the one that says what is wrong comes last.

use std::{fs, io};

use tracing::debug;

use crate::linux::{OLDEST, RELEASE, Version};

/// How the lines begin that come after the complaint.
const AFTERWARDS: [&str; 3] = ["verification time", "stack depth", "processed "];

/// What an operator is told. All of the log is there for those who ask for it (`RUST_LOG=debug`).
pub(super) fn explain(error: &io::Error, log: &str) -> String {
    if !log.is_empty() {
        debug!("the verifier says:\n{log}");
    }
    let release = fs::read_to_string(RELEASE).unwrap_or_default();
    told(release.trim(), error, log)
}

fn told(release: &str, error: &io::Error, log: &str) -> String {
    let why = match complaint(log) {
        Some(complaint) => format!("its verifier says: {complaint}"),
        None if error.raw_os_error() == Some(nix::libc::EPERM) => {
            return format!("{error} (it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)");
        }
        None => error.to_string(),
    };
    match Version::read(release) {
        Some(version) if version < OLDEST => {
            format!("Linux {release} is too old, {OLDEST} or newer is needed ({why})")
        }
        _ => format!("Linux {release} ought to take it ({why}); please report this, with what RUST_LOG=debug shows"),
    }
}

/// The last line of a log that is neither an instruction that was checked nor a count.
fn complaint(log: &str) -> Option<&str> {
    let mut lines = log.lines().map(str::trim).rev();
    lines.find(|line| {
        let is_instruction = line.starts_with(|letter: char| letter.is_ascii_digit()) && line.contains(": (");
        let is_after = AFTERWARDS.iter().any(|words| line.starts_with(words));
        !line.is_empty() && !line.starts_with(';') && !is_instruction && !is_after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Linux 5.10 and 6.12.
    const LOGS: [(&str, &str); 2] = [
        (
            "Validating tc_read() func#1...\nArg#3 type PTR in tc_read() is not supported yet.\nverification time 386 \
             usec\nstack depth 0+0+0\nprocessed 0 insns (limit 1000000) max_states_per_insn 0\n",
            "Arg#3 type PTR in tc_read() is not supported yet.",
        ),
        (
            "4556: (2d) if r4 > r7 goto pc+38      ; R4=pkt(id=1725,off=2)\n;  @ frame.rs:50\n4557: (69) r3 = *(u16 \
             *)(r3 +0)\nR3 min value is negative, either use unsigned index or do a if (index >=0) check.\n\
             verification time 2905590 usec\nstack depth 64+248\nprocessed 24454 insns (limit 1000000)\n\n",
            "R3 min value is negative, either use unsigned index or do a if (index >=0) check.",
        ),
    ];

    #[test]
    fn of_a_verifiers_log_one_line_is_left() {
        for (log, complaint) in LOGS {
            assert_eq!(super::complaint(log), Some(complaint));
        }
        assert_eq!(complaint("processed 0 insns\n"), None);
        assert_eq!(complaint(""), None);
    }

    #[test]
    fn an_old_kernel_is_told_by_its_name_and_by_the_one_it_takes() {
        let error = io::Error::from_raw_os_error(nix::libc::EINVAL);
        let old = told("5.10.0-32-cloud-amd64", &error, LOGS[0].0);
        assert_eq!(
            old,
            "Linux 5.10.0-32-cloud-amd64 is too old, 5.15 or newer is needed (its verifier says: Arg#3 type PTR in \
             tc_read() is not supported yet.)"
        );
        let new = told("6.12.117", &error, LOGS[1].0);
        assert!(new.starts_with("Linux 6.12.117 ought to take it"), "{new}");
        assert!(!new.contains('\n') && new.contains("RUST_LOG=debug"), "{new}");
    }

    #[test]
    fn who_may_not_load_is_told_what_it_takes() {
        let error = io::Error::from_raw_os_error(nix::libc::EPERM);
        for release in ["5.10.0", "6.12.117"] {
            let text = told(release, &error, "");
            assert!(text.contains("CAP_BPF") && !text.contains("too old"), "{text}");
        }
    }
}
