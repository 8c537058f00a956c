//! The Debian package, made by cargo-deb of an agent that has been built.
//!
//! What goes into it and is no file of the repository (manual pages, completions, the configuration, Debian's changelog)
//! is made by the agent itself and from what lies in the repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The cargo-deb that is used.
pub const CARGO_DEB_VERSION: &str = "3.8.0";

/// Whom the package names unless somebody else publishes it.
pub const MAINTAINER: &str = "The dnsguard authors <dnsguard@localhost>";

/// A package to be made.
#[derive(Clone, Debug)]
pub struct Package<'a> {
    /// The agent that it brings.
    pub agent: &'a Path,
    /// Debian's revision, from 1.
    pub revision: u32,
    /// Name and address.
    pub maintainer: &'a str,
    /// Compress it well, which takes some seconds.
    pub is_small: bool,
    /// The directory that it goes to.
    pub output: &'a Path,
}

impl Package<'_> {
    /// Makes it; returns where it is.
    pub fn build(&self) -> Result<PathBuf> {
        // cargo-deb takes what is in a target directory, and removes packages that lie in one: it gets one of its own.
        let target = self.output.join("work");
        let stage = target.join("release");
        self.stage(&stage)
            .with_context(|| format!("make what goes into the package, in {}", stage.display()))?;
        let mut command = Command::new(cargo_deb()?);
        command.current_dir(workspace()).env("CARGO_TARGET_DIR", &target);
        command.args([
            "--package",
            "guard-user",
            "--no-build",
            "--strip",
            "--locked",
            "--quiet",
        ]);
        command.args(["--maintainer", self.maintainer]);
        command.args(["--deb-revision", &self.revision.to_string()]);
        if !self.is_small {
            command.arg("--fast");
        }
        let said = run(&mut command)?;
        let path = said.lines().rev().find(|line| line.ends_with(".deb"));
        let path = PathBuf::from(path.with_context(|| format!("cargo-deb names no package: {said}"))?);
        let to = self.output.join(path.file_name().context("a package has a name")?);
        fs::rename(&path, &to)?;
        fs::remove_dir_all(target)?;
        Ok(to)
    }

    /// Lays out a target directory as cargo would, with what else goes into the package beside the agent.
    fn stage(&self, release: &Path) -> Result<()> {
        let stage = release.join("package");
        if release.exists() {
            fs::remove_dir_all(release)?;
        }
        let pages = stage.join("man");
        fs::create_dir_all(&pages)?;
        let agent = release.join("dnsguard");
        // On another file system there are no second names.
        fs::hard_link(self.agent, &agent).or_else(|_| fs::copy(self.agent, &agent).map(drop))?;
        run(Command::new(&agent).args(["man", "--dir"]).arg(&pages))?;
        let mut files = vec![stage.join("changelog.Debian")];
        for page in fs::read_dir(&pages)? {
            files.push(page?.path());
        }
        for (shell, file) in [
            ("bash", "dnsguard.bash"),
            ("zsh", "_dnsguard"),
            ("fish", "dnsguard.fish"),
        ] {
            let script = run(Command::new(&agent).args(["completion", shell]))?;
            fs::write(stage.join(file), script)?;
        }
        fs::write(stage.join("dnsguard.toml"), configuration()?)?;
        let changelog = format!(
            "dnsguard ({}-{}) unstable; urgency=medium\n\n  * What is new is in CHANGELOG.md.\n\n -- {}  {}\n",
            env!("CARGO_PKG_VERSION"),
            self.revision,
            self.maintainer,
            date()?,
        );
        fs::write(&files[0], changelog)?;
        // Without name and time, so that the same text gives the same bytes.
        run(Command::new("gzip").args(["-9", "-n"]).args(&files)).map(drop)
    }
}

/// The configuration as it is installed: every key with its default, and a group that may give commands.
fn configuration() -> Result<String> {
    let template = fs::read_to_string(workspace().join("guard-user/dnsguard.example.toml"))?;
    let group = "\ngroup = \"\"\n";
    ensure!(
        template.matches(group).count() == 1,
        "the template has no key for the group any more"
    );
    let body = template.replace(group, "\ngroup = \"dnsguard\"\n");
    let head = "# The configuration of dnsguard.service. After a change: dnsguard check-config /etc/dnsguard/dnsguard.toml, then\n\
        # systemctl reload dnsguard, or restart for [attach], metrics.listen, [page] and [control].\n#\n";
    Ok(format!("{head}{body}"))
}

/// When the last change was made, as Debian writes it: what is built of the same sources is the same.
fn date() -> Result<String> {
    let log = Command::new("git")
        .current_dir(workspace())
        .args(["log", "-1", "--format=%ct"])
        .output();
    let seconds = log.ok().filter(|log| log.status.success());
    let seconds = seconds.map_or_else(String::new, |log| {
        String::from_utf8_lossy(&log.stdout).trim().to_owned()
    });
    let when = if seconds.is_empty() {
        "now".to_owned()
    } else {
        format!("@{seconds}")
    };
    let date = run(Command::new("date").env("LC_ALL", "C").args(["-u", "-R", "-d", &when]))?;
    Ok(date.trim().to_owned())
}

/// Where cargo-deb is, on `PATH` or where cargo installs programs.
pub fn cargo_deb() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let found = env::split_paths(&path)
        .chain(home.map(|home| home.join("bin")))
        .map(|folder| folder.join("cargo-deb"))
        .find(|file| file.is_file());
    found.context("needs cargo-deb: run cargo xtask package, or cargo xtask test")
}

/// Runs it, and returns what it prints.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        bail!("{name} ended with {}: {said}{}", done.status, why.trim());
    }
    Ok(said)
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
