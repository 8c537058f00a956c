//! Bringing a missing program without installing it.
//!
//! apt resolves and downloads with lists, cache and state of its own under the cache directory; only the list of
//! installed packages is the system's, so that just what is missing comes. Every package is then unpacked side by
//! side into one private tree. Nothing runs as a maintainer script.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{DNSMASQ_0X20, PACKAGES, PODMAN, cache, locate, sources, tree};

/// The Debian release that was the last to ship consul (1.8.7).
const CONSUL_RELEASE: &str = "bullseye";

/// The first Debian release with a dnsmasq that knows `--do-0x20-encode` (2.91).
const DNSMASQ_RELEASE: &str = "trixie";

/// The first Debian release with a Podman that runs a DaemonSet (5.4).
const PODMAN_RELEASE: &str = "trixie";

/// What lies in its tree; apt adds all that these need.
const PODMAN_PACKAGES: [&str; 4] = ["podman", "crun", "catatonit", "kustomize"];

/// The keys that sign them; part of every Debian.
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Makes every program in `names` one that [`locate`] finds, saying on stderr what takes time.
///
/// Asks the network only when something is missing. Processes that do this at the same time wait for each other.
pub fn provide(names: &[&str]) -> Result<()> {
    if missing(names).is_empty() {
        return Ok(());
    }
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("wait for another fetch to end")?;

    let wanted = missing(names);
    let mut packages: Vec<&str> = Vec::new();
    for &name in &wanted {
        match name {
            DNSMASQ_0X20 => dnsmasq_0x20(&cache)?,
            PODMAN => podman(&cache)?,
            _ => {
                let known = PACKAGES.iter().find(|(program, _)| *program == name);
                let (_, package) =
                    known.with_context(|| format!("{name} is not a program the lab knows how to fetch"))?;
                if !packages.contains(package) {
                    packages.push(package);
                }
            }
        }
    }
    if !packages.is_empty() {
        let apt = Apt::of_the_system(&cache)?;
        let absent = packages.extract_if(.., |package| !apt.has(package)).collect::<Vec<_>>();
        apt.download(&packages)?;
        for package in absent {
            ensure!(
                package == "consul",
                "this system's package index has no {package}: put its programs on PATH"
            );
            consul(&cache)?;
        }
    }
    for name in &wanted {
        let program = locate(name).with_context(|| format!("what was downloaded has no {name}"))?;
        eprintln!("programs: {name} is {}", program.path().display());
    }
    Ok(())
}

/// Those that are not here, each once.
fn missing<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut missing = Vec::new();
    for &name in names {
        if !missing.contains(&name) && locate(name).is_err() {
            missing.push(name);
        }
    }
    missing
}

/// Fetches consul from the Debian release that had it.
fn consul(cache: &Path) -> Result<()> {
    let from = |line: &str| {
        // That release's index cannot resolve dependencies for this system: the one package comes alone.
        let apt = Apt::of_list(cache, "apt-consul", line)?;
        apt.download_alone("consul")?;
        apt.unpack(&tree())
    };
    of_release("deb", CONSUL_RELEASE, from)
        .context("needs consul: this system's package index has none; put a consul 1.8.7 on PATH")
}

/// Builds a dnsmasq from the source of the Debian release that first had one with 0x20, into the private tree. It needs
/// no library but the C library, and a compiler.
fn dnsmasq_0x20(cache: &Path) -> Result<()> {
    let build = |line: &str| {
        let apt = Apt::of_list(cache, "apt-dnsmasq", line)?;
        let source = apt.download_source("dnsmasq")?;
        eprintln!("programs: building dnsmasq, some 15 s ...");
        finish(Command::new("make").current_dir(&source), "make")?;
        let programs = tree().join("usr/sbin");
        fs::create_dir_all(&programs)?;
        fs::copy(source.join("src/dnsmasq"), programs.join(DNSMASQ_0X20))?;
        Ok(())
    };
    of_release("deb-src", DNSMASQ_RELEASE, build).with_context(|| {
        format!("needs {DNSMASQ_0X20}: put a dnsmasq 2.91 or newer, built with any options, on PATH under that name")
    })
}

/// A directory of the cache that is made once: in a place of its own first, so that it is whole when it is there.
///
/// Processes that do this at the same time wait for each other.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache();
    let done = cache.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock().context("wait for another fetch to end")?;
    if !done.is_dir() {
        let begun = cache.join(format!("{name}.begun"));
        if begun.exists() {
            fs::remove_dir_all(&begun).with_context(|| format!("remove {}", begun.display()))?;
        }
        fs::create_dir(&begun)?;
        make(&begun)?;
        fs::rename(&begun, &done)?;
    }
    Ok(done)
}

/// The release of this Debian, such as `bookworm`; on another system that of the oldest that will do.
pub(crate) fn suite() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    let own = field("VERSION_CODENAME").filter(|_| field("ID").as_deref() == Some("debian"));
    own.unwrap_or_else(|| "bookworm".to_owned())
}

/// The proxy that apt uses, if it uses one.
pub(crate) fn proxy() -> Option<String> {
    let mut command = Command::new("apt-config");
    let said = command.args(["shell", "PROXY", "Acquire::http::Proxy"]).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let proxy = said.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    (!proxy.is_empty() && proxy != "DIRECT").then(|| proxy.to_owned())
}

/// Hands the address of one mirror after the other that this system already uses to `fetch`, until one has it.
pub(crate) fn of_mirrors(fetch: impl Fn(&str) -> Result<()>) -> Result<()> {
    ensure!(Path::new(DEBIAN_KEYS).is_file(), "{DEBIAN_KEYS} is missing");
    let mut failed = None;
    for mirror in sources::debian_mirrors()? {
        // A list of mirrors, one a line: any will do.
        let listed = mirror.strip_prefix("mirror+file:").map(fs::read_to_string);
        let mirror = match &listed {
            Some(list) => {
                let list = list.as_deref().unwrap_or_default().lines();
                list.map(str::trim)
                    .find(|line| line.starts_with("http"))
                    .unwrap_or_default()
            }
            None => mirror.as_str(),
        };
        match fetch(mirror) {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => bail!("this system uses no Debian mirror"),
    }
}

/// Unpacks a package with what it needs and `base`, the root of a Debian, lacks, into a tree to be laid over that one.
pub(crate) fn unpack_over(base: &Path, package: &str, tree: &Path) -> Result<()> {
    let home = cache().join(format!("apt-{package}"));
    let mut apt = Apt::new(home, None)?;
    apt.status = base.join("var/lib/dpkg/status");
    eprintln!("programs: downloading {package} ...");
    apt.fetch(&[package])?;
    // Where `/bin` is a link to `usr/bin`, what is packed for `/bin` goes there as well.
    for name in ["bin", "sbin", "lib", "lib64"] {
        if let Ok(link) = fs::read_link(base.join(name)) {
            fs::create_dir_all(tree.join(&link))?;
            symlink(&link, tree.join(name))?;
        }
    }
    for archive in apt.packages()? {
        let mut unpacked = Command::new("dpkg-deb");
        let mut unpacked = unpacked
            .arg("--fsys-tarfile")
            .arg(&archive)
            .stdout(Stdio::piped())
            .spawn()
            .context("start dpkg-deb")?;
        let mut command = Command::new("tar");
        command.args(["-x", "--keep-directory-symlink", "-C"]).arg(tree);
        let done = unpacked.stdout.take().context("a pipe")?;
        finish(command.stdin(done), "tar -x")?;
        ensure!(unpacked.wait()?.success(), "{} cannot be read", archive.display());
        fs::remove_file(archive)?;
    }
    Ok(())
}

/// Unpacks a package of a Debian release into a tree, with those of its needs that are parts of it: nothing else comes.
pub(crate) fn unpack_parts(release: &str, package: &str, is_part: fn(&str) -> bool, tree: &Path) -> Result<()> {
    let home = tree.join("apt");
    let unpack = |line: &str| {
        let apt = Apt::of_list(tree, "apt", line)?;
        let mut parts = vec![package.to_owned()];
        let mut seen = 0;
        while let Some(part) = parts.get(seen) {
            let mut needs = apt.needs(part)?;
            needs.retain(|need| is_part(need) && !parts.contains(need));
            parts.extend(needs);
            seen += 1;
        }
        for part in &parts {
            apt.download_alone(part)?;
        }
        apt.unpack(tree)
    };
    of_release("deb", release, unpack)?;
    fs::remove_dir_all(&home).with_context(|| format!("remove {}", home.display()))
}

/// Unpacks Podman into a tree with everything it needs, down to the C library.
fn podman(cache: &Path) -> Result<()> {
    let root = cache.join("podman/root");
    let unpack = |line: &str| {
        let apt = Apt::of_list(cache, "podman/apt", line)?;
        apt.download_whole(&PODMAN_PACKAGES)?;
        apt.unpack(&root)?;
        for directory in ["bin", "sbin", "lib", "lib64"] {
            let link = root.join(directory);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("usr").join(directory), link)?;
            }
        }
        for directory in ["proc", "sys", "dev", "run", "tmp", "var/tmp", "work"] {
            fs::create_dir_all(root.join(directory))?;
        }
        Ok(())
    };
    of_release("deb", PODMAN_RELEASE, unpack).with_context(|| format!("needs {PODMAN}"))
}

/// Hands the line of apt's sources for a Debian release to `fetch`, for one mirror after the other that this system
/// already uses, until one has it.
fn of_release(kind: &str, release: &str, fetch: impl Fn(&str) -> Result<()>) -> Result<()> {
    ensure!(Path::new(DEBIAN_KEYS).is_file(), "{DEBIAN_KEYS} is missing");
    let mut failed = None;
    for mirror in sources::debian_mirrors()? {
        let line = format!("{kind} [signed-by={DEBIAN_KEYS}] {mirror} {release} main\n");
        match fetch(&line) {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => bail!("this system uses no Debian mirror"),
    }
}

/// An apt that keeps everything it writes in one directory.
struct Apt {
    home: PathBuf,
    list: Option<PathBuf>,
    /// What is installed.
    status: PathBuf,
}

impl Apt {
    /// Reads the system's own sources.
    fn of_the_system(cache: &Path) -> Result<Self> {
        Self::new(cache.join("apt"), None)
    }

    /// Reads one private list of sources instead.
    fn of_list(cache: &Path, home: &str, list: &str) -> Result<Self> {
        Self::new(cache.join(home), Some(list))
    }

    fn new(home: PathBuf, list: Option<&str>) -> Result<Self> {
        for directory in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(home.join(directory)).with_context(|| format!("make {}", home.display()))?;
        }
        // Hooks of the system's configuration would run on the system's caches.
        let quiet = ["APT::Update", "DPkg"]
            .map(|when| format!("#clear {when}::Pre-Invoke;\n#clear {when}::Post-Invoke;\n"))
            .concat();
        let hooks = "#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Pre-Install-Pkgs;\n";
        fs::write(home.join("apt.conf"), quiet + hooks)?;
        let list = list
            .map(|list| {
                let path = home.join("sources.list");
                fs::write(&path, list).map(|()| path)
            })
            .transpose()?;
        let apt = Self {
            home,
            list,
            status: "/var/lib/dpkg/status".into(),
        };
        eprintln!("programs: reading the package index ...");
        apt.run("apt-get", &["update"])?;
        Ok(apt)
    }

    /// Whether the index has a package of this name with a version to install.
    fn has(&self, package: &str) -> bool {
        let shown = self
            .command("apt-cache", &["show", "--no-all-versions", package])
            .output();
        shown.is_ok_and(|shown| shown.status.success() && !shown.stdout.is_empty())
    }

    /// Downloads packages with what they need and the system lacks, and unpacks all of it into the private tree.
    fn download(&self, packages: &[&str]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        eprintln!("programs: downloading {} ...", packages.join(", "));
        if self.fetch(packages).is_err() {
            // Those that cannot be installed side by side still lie side by side.
            for package in packages {
                self.fetch(&[package])?;
            }
        }
        eprintln!("programs: unpacking them ...");
        self.unpack(&tree())
    }

    /// Downloads one package, and nothing that it needs.
    fn download_alone(&self, package: &str) -> Result<()> {
        eprintln!("programs: downloading {package} ...");
        let mut command = self.command("apt-get", &["download", package]);
        finish(command.current_dir(self.archives()), "apt-get download")
    }

    /// What a package depends on, of alternatives each.
    fn needs(&self, package: &str) -> Result<Vec<String>> {
        let said = self.output("apt-cache", &["depends", "--important", package])?;
        ensure!(said.status.success(), "the package index has no {package}");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let needs = said.lines().filter_map(|line| line.split_once("Depends: "));
        Ok(needs.map(|(_, name)| name.trim().to_owned()).collect())
    }

    /// Downloads packages with all that they need, whatever the system has.
    fn download_whole(&self, packages: &[&str]) -> Result<()> {
        eprintln!(
            "programs: downloading {} and all they need, some 70 MB ...",
            packages.join(", ")
        );
        let nothing = self.home.join("status");
        fs::write(&nothing, "")?;
        let mut command = self.command(
            "apt-get",
            &["install", "--download-only", "--no-install-recommends", "--yes"],
        );
        command
            .arg("-o")
            .arg(format!("Dir::State::status={}", nothing.display()));
        finish(command.args(packages), "apt-get install")
    }

    /// Downloads packages with what they need and is not installed.
    fn fetch(&self, packages: &[&str]) -> Result<()> {
        let options = ["install", "--download-only", "--no-install-recommends", "--yes"];
        self.run("apt-get", &[&options, packages].concat())
    }

    /// Downloads the source of a package, unpacks it as its authors released it, and returns where it lies.
    fn download_source(&self, package: &str) -> Result<PathBuf> {
        eprintln!("programs: downloading the source of {package} ...");
        let archives = self.archives();
        let mut command = self.command("apt-get", &["source", "--download-only", package]);
        finish(command.current_dir(&archives), "apt-get source")?;
        let original = fs::read_dir(&archives)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(".orig.tar."))
            .with_context(|| format!("the source of {package} has no archive"))?;
        let source = self.home.join("source");
        fs::create_dir_all(&source)?;
        let mut command = Command::new("tar");
        command.arg("-x").arg("--strip-components=1").arg("-C").arg(&source);
        finish(command.arg("-f").arg(original), "tar -x")?;
        Ok(source)
    }

    fn unpack(&self, tree: &Path) -> Result<()> {
        fs::create_dir_all(tree)?;
        for path in self.packages()? {
            let mut command = Command::new("dpkg-deb");
            finish(command.arg("-x").arg(&path).arg(tree), "dpkg-deb -x")?;
            // Who comes later has its own to unpack.
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// What was downloaded.
    fn packages(&self) -> Result<Vec<PathBuf>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(self.archives())? {
            packages.push(entry?.path());
        }
        packages.retain(|path| path.extension().is_some_and(|kind| kind == "deb"));
        Ok(packages)
    }

    fn archives(&self) -> PathBuf {
        self.home.join("cache/archives")
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Result<()> {
        let what = format!("{tool} {}", arguments.join(" "));
        finish(&mut self.command(tool, arguments), &what)
    }

    fn output(&self, tool: &str, arguments: &[&str]) -> Result<Output> {
        self.command(tool, arguments)
            .output()
            .with_context(|| format!("needs {tool}: this works on Debian and Ubuntu only"))
    }

    fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        let at = |name: &str, directory: &str| format!("{name}={}", self.home.join(directory).display());
        let mut options = vec![
            at("Dir::State", "state"),
            at("Dir::State::Lists", "lists"),
            at("Dir::Cache", "cache"),
            format!("Dir::State::status={}", self.status.display()),
            // The unprivileged download user cannot write here, and nobody else does.
            "APT::Sandbox::User=root".to_owned(),
            "Debug::NoLocking=1".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=2".to_owned(),
        ];
        if let Some(list) = &self.list {
            options.push(format!("Dir::Etc::SourceList={}", list.display()));
            options.push("Dir::Etc::SourceParts=/dev/null".to_owned());
            // A release that is no longer updated stays signed, but its date of expiry may pass.
            options.push("Acquire::Check-Valid-Until=false".to_owned());
        }
        let mut command = Command::new(tool);
        command.arg("-qq").arg("-c").arg(self.home.join("apt.conf"));
        for option in options {
            command.arg("-o").arg(option);
        }
        command.args(arguments).stdin(Stdio::null());
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Runs a command to its end; what it said becomes the error.
pub(crate) fn finish(command: &mut Command, what: &str) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("{what} (this works on Debian and Ubuntu only)"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stdout, done.stderr].concat();
    bail!("{what}: {}", String::from_utf8_lossy(&said).trim())
}
