//! The packages that Debian and Ubuntu have for the kernel object's toolchain.
//!
//! A package is asked for only after its candidate version is known to do: lists that are empty or old are refreshed once,
//! and what they still do not have is an error with the package's name, not one from the middle of apt's output.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    root::Root,
    step,
    toolchain::{LLVM_MAJOR, OLDEST_RUSTC, numbers},
};

/// Debian's compiler for browsers is the newest it has, and comes with the sources of the standard library.
pub(crate) const COMPILER: [&str; 2] = ["rustc-web", "rust-web-src"];

/// What bpf-linker is built from; llvm-strip comes along with it.
pub(crate) fn llvm() -> Vec<String> {
    let versioned = [format!("llvm-{LLVM_MAJOR}-dev"), format!("libpolly-{LLVM_MAJOR}-dev")];
    let plain = ["zlib1g-dev", "libzstd-dev"].map(str::to_owned);
    versioned.into_iter().chain(plain).collect()
}

/// The command as a person types it.
pub(crate) fn install_line<S: AsRef<str>>(packages: &[S]) -> String {
    let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    format!("apt-get install -y --no-install-recommends {}", names.join(" "))
}

/// Installs the packages; looks for newer lists only if the present ones do not know them, or know an old one.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    if step::find_program("apt-get").is_none() {
        bail!("this machine has no apt-get");
    }
    let line = install_line(packages);
    let root = Root::find().with_context(|| format!("installing packages needs root; next: sudo {line}"))?;
    if unavailable(packages)?.is_some() {
        step::capture("refreshing the package lists", apt_get(root).arg("update"))?;
        if let Some(why) = unavailable(packages)? {
            bail!("{why}");
        }
    }
    let mut command = apt_get(root);
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    step::capture("installing packages", &mut command)?;
    Ok(())
}

/// Why one of the packages cannot be installed as the lists stand.
fn unavailable(packages: &[String]) -> Result<Option<String>> {
    for package in packages {
        let mut command = Command::new("apt-cache");
        command.env("LC_ALL", "C").args(["policy", package]);
        let known = step::quiet(&mut command)?.stdout;
        match candidate(&known) {
            None => return Ok(Some(format!("the package lists do not know {package}"))),
            Some(version) if package == COMPILER[0] && numbers(version) < numbers(OLDEST_RUSTC) => {
                return Ok(Some(format!(
                    "{package} is {version} here, and rustc {OLDEST_RUSTC} is needed"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The version that `apt-cache policy` would install.
fn candidate(policy: &str) -> Option<&str> {
    let line = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    Some(line.trim()).filter(|version| *version != "(none)")
}

fn apt_get(root: Root) -> Command {
    // Through `env`, because sudo does not pass the variable on.
    let mut command = root.command("env");
    let patience = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=2"];
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(patience);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_what_apt_would_install() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate(known), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(
            candidate("rustc-web:\n  Installed: 1.63.0\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(candidate(""), None);
    }
}
