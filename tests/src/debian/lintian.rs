//! Debian's own check of packages, run in a Debian of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Debian, bootstrap};
use crate::{Namespace, guard::Said, programs};

/// Runs lintian on a package, and returns what it says, what is overridden included.
pub fn lintian(package: &Path) -> Result<Said> {
    let (base, program) = (bootstrap::tree()?, tree()?);
    let namespace = Namespace::new()?;
    let debian = Debian::over(&namespace, &format!("{}:{}", program.display(), base.display()))?;
    let name = package
        .file_name()
        .and_then(|name| name.to_str())
        .context("a package has a name")?;
    debian.put(package, &format!("/tmp/{name}"))?;
    debian.say(&format!(
        "lintian --allow-root --fail-on none --show-overrides /tmp/{name}"
    ))
}

/// lintian and what it needs, as files that lie over the tree of debootstrap.
fn tree() -> Result<PathBuf> {
    let base = bootstrap::tree()?;
    programs::cached(&format!("lintian-{}", programs::suite()), |tree| {
        programs::unpack_over(&base, "lintian", tree)
    })
}
