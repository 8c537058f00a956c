//! The kernel that this runs on, by its version: what it can be expected to have.

use std::{fmt, fs};

/// Where the kernel says what it is called.
pub(crate) const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// The oldest kernel whose verifier takes the programs.
pub(crate) const OLDEST: Version = Version(5, 15);
/// The first one with tcx.
pub(crate) const TCX: Version = Version(6, 6);
/// The first one that charges BPF to a cgroup, and not to RLIMIT_MEMLOCK.
pub(crate) const NO_MEMLOCK: Version = Version(5, 11);

/// A kernel's version, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl Version {
    /// That of the kernel that this runs on.
    pub(crate) fn running() -> Option<Self> {
        Self::read(&fs::read_to_string(RELEASE).ok()?)
    }

    /// That of a release such as `6.1.0-50-cloud-amd64`.
    pub(crate) fn read(release: &str) -> Option<Self> {
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_any_distributions_release() {
        assert_eq!(Version::read("6.18.44-fc-v657"), Some(Version(6, 18)));
        assert_eq!(Version::read("5.15.0-1051-aws"), Some(Version(5, 15)));
        assert_eq!(Version::read("linux"), None);
        assert!(Version(5, 10) < OLDEST && OLDEST < TCX);
        assert_eq!(OLDEST.to_string(), "5.15");
        assert!(Version::running().is_some());
    }
}
