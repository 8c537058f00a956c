//! The agent, built with a kernel object in it: what the tests and the demo run.
//!
//! The object comes from source where that can be had, so that people see today's programs; the committed one serves
//! where no toolchain is. Which of the two it is decides the environment of every cargo that builds or runs the agent.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    advice::Advice as _,
    elf, object, setup, step,
    toolchain::{Survey, Toolchain},
    workspace::Workspace,
};

/// The kernel object that is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelObject {
    /// `target/ebpf/dnsguard.bpf.o`, just built.
    FromSource,
    /// `guard-ebpf/prebuilt/dnsguard.bpf.o`.
    Committed,
}

impl KernelObject {
    /// From source, after installing what that lacks; else the committed one.
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        match setup::provide() {
            Ok(toolchain) => Self::build(workspace, &toolchain),
            Err(why) => {
                step::note(&format!("no kernel object from source ({why:#})"));
                Self::committed(workspace)
            }
        }
    }

    /// From source if the toolchain is there already; else the committed one. Installs nothing.
    pub(crate) fn at_hand(workspace: &Workspace) -> Result<Self> {
        match Survey::take()?.complete() {
            Ok(toolchain) => Self::build(workspace, &toolchain),
            Err(_) => Self::committed(workspace),
        }
    }

    fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<Self> {
        let built = object::build(workspace, toolchain)?;
        eprint!("{}", built.warnings);
        Ok(Self::FromSource)
    }

    fn committed(workspace: &Workspace) -> Result<Self> {
        let committed = workspace.prebuilt();
        step::note(&format!(
            "taking the committed kernel object, {}",
            workspace.shown(&committed)
        ));
        object::read(committed).or_next("cargo xtask setup")?;
        Ok(Self::Committed)
    }

    /// Where it lies.
    pub(crate) fn path(self, workspace: &Workspace) -> PathBuf {
        match self {
            Self::FromSource => workspace.object(),
            Self::Committed => workspace.prebuilt(),
        }
    }
}

/// A cargo whose builds embed the object, and whose tests find it and the agent.
pub(crate) struct Build<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) object: KernelObject,
}

impl Build<'_> {
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.workspace.cargo();
        // guard-user's build script embeds the file this names, or the committed object without it.
        match self.object {
            KernelObject::FromSource => command.env("GUARD_EBPF_OBJECT", self.object.path(self.workspace)),
            KernelObject::Committed => command.env_remove("GUARD_EBPF_OBJECT"),
        };
        self.show(&mut command);
        command.args(args);
        command
    }

    /// Has the tests of a command find the object and the agent.
    pub(crate) fn show(&self, command: &mut Command) {
        command
            .env("DNSGUARD_OBJECT", self.object.path(self.workspace))
            .env("DNSGUARD_BIN", self.workspace.agent())
            .env("DNSGUARD_STATIC", self.workspace.target.join("image/debug/dnsguard"));
    }

    /// Builds the agent into [`Workspace::agent`].
    pub(crate) fn agent(&self) -> Result<()> {
        step::stream("building the agent", &mut self.cargo(&["build", "-p", "guard-user"]))
    }

    /// Builds the agent with optimisations, as people run it, and returns where it lies.
    pub(crate) fn release_agent(&self) -> Result<PathBuf> {
        let mut command = self.cargo(&["build", "--release", "--locked", "-p", "guard-user"]);
        step::stream("building the agent", &mut command)?;
        Ok(self.workspace.target.join("release/dnsguard"))
    }

    /// Builds an agent that needs no other file, for an image that has none, and returns where it lies.
    ///
    /// Only its own crate is built for that: the choice is made when the C library is linked in.
    pub(crate) fn static_agent(&self, profile: Profile) -> Result<PathBuf> {
        let (name, folder) = match profile {
            Profile::Dev => ("dev", "debug"),
            Profile::Release => ("release", "release"),
        };
        let mut command = self.cargo(&[
            "rustc",
            "-p",
            "guard-user",
            "--bin",
            "dnsguard",
            "--profile",
            name,
            "--",
        ]);
        command.args(["-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
        step::stream("building the static agent", &mut command)?;
        let built = self.workspace.target.join(folder).join("dnsguard");
        let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        ensure!(
            elf::is_static(&bytes)?,
            "{} asks for a dynamic linker; next: apt-get install libc6-dev",
            built.display()
        );
        // Cargo has one place for both kinds, and the next build puts the other one there.
        let kept = self.workspace.target.join("image").join(folder).join("dnsguard");
        fs::create_dir_all(kept.parent().context("a file has a folder")?)?;
        fs::copy(&built, &kept).with_context(|| format!("write {}", kept.display()))?;
        Ok(kept)
    }
}

/// How well the compiler is to work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// For the tests: soon there.
    Dev,
    Release,
}
