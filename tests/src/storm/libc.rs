//! Clients that are programs: they ask their C library, and what that sends is its own affair.

use std::{env, ffi::OsString, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{network::Network, tally::Lookup};
use crate::{Namespace, Process, programs::locate};

/// The program, in C: linked with one library or the other.
const SOURCE: &str = include_str!("lookup.c");

/// glibc asks again after 5 s, musl after 2.5 s: whatever came sooner came for the first packet.
const RETRY: Duration = Duration::from_millis(2_400);

/// glibc gives up after two tries of 5 s, musl after 5 s in all; then the program ends, if nothing keeps it.
const GIVES_UP: Duration = Duration::from_secs(15);

/// Which C library asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Libc {
    /// The system's.
    Glibc,
    /// musl, as in Alpine.
    Musl,
}

impl Libc {
    /// What the compiler needs to know beside the source.
    fn flags(self) -> Result<Vec<OsString>> {
        match self {
            Self::Glibc => Ok(vec!["-pthread".into()]),
            Self::Musl => {
                let (include, library) = musl()?;
                let object = |name: &str| library.join(name).into_os_string();
                // The wrapper `musl-gcc` only knows the system's own directories.
                Ok(vec![
                    "-static".into(),
                    "-no-pie".into(),
                    "-nostdinc".into(),
                    "-isystem".into(),
                    include.into(),
                    "-nostdlib".into(),
                    object("crt1.o"),
                    object("crti.o"),
                    object("libc.a"),
                    "-lgcc".into(),
                    object("crtn.o"),
                ])
            }
        }
    }
}

/// musl's headers and static libraries, which lie beside its compiler.
fn musl() -> Result<(PathBuf, PathBuf)> {
    let (root, target) = musl_root()?;
    Ok((root.join("include").join(&target), root.join("lib").join(target)))
}

/// Usually `/usr`; and musl's name for this machine.
fn musl_root() -> Result<(PathBuf, String)> {
    let wrapper = locate("musl-gcc")?;
    let directory = wrapper.path().parent().context("a program has a directory")?;
    let directory = fs::canonicalize(directory)?;
    let root = directory.parent().context("programs have a root")?;
    Ok((root.to_owned(), format!("{}-linux-musl", env::consts::ARCH)))
}

/// The version of musl that programs are linked with.
pub(super) fn musl_version() -> Result<String> {
    let (root, target) = musl_root()?;
    // Where `/lib` is no part of `/usr`, the shared library lies there.
    let library = [root.join("lib"), root.join("../lib")]
        .map(|directory| directory.join(&target).join("libc.so"))
        .into_iter()
        .find(|library| library.is_file())
        .with_context(|| format!("no shared musl in {}", root.display()))?;
    // It is its own loader, and says who it is when there is nothing to load.
    let said = Command::new(&library)
        .output()
        .with_context(|| format!("run {}", library.display()))?;
    String::from_utf8_lossy(&said.stderr)
        .lines()
        .find_map(|line| line.strip_prefix("Version ").map(str::to_owned))
        .context("musl names no version")
}

/// The program in a pod of its own.
#[derive(Debug)]
pub(super) struct Program {
    pod: Namespace,
    path: PathBuf,
}

impl Program {
    pub(super) fn build(network: &mut Network, libc: Libc) -> Result<Self> {
        let pod = network.pod()?;
        let source = pod.file("lookup.c", SOURCE)?;
        let path = source.with_extension("");
        let mut compiler = locate("cc")?.command();
        compiler.args(["-O1", "-o"]).arg(&path).arg(&source).args(libc.flags()?);
        let compiled = pod.run(|| compiler.output())?;
        ensure!(
            compiled.status.success(),
            "cannot build a client with {libc:?}: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Ok(Self { pod, path })
    }

    /// Runs `clients` of it for `length`, and 10 s more if some were not answered.
    pub(super) fn ask(&self, clients: u8, word: &str, zone: &str, length: Duration) -> Result<Vec<Lookup>> {
        let start = |number| {
            let mut command = Command::new(&self.path);
            command.arg(format!("{word}{number}.{zone}"));
            command.arg(length.as_millis().to_string());
            self.pod.spawn(command)
        };
        let running: Vec<Process> = (0..clients).map(start).collect::<Result<_>>()?;
        let mut lookups = Vec::new();
        for process in &running {
            let status = process.wait(length + GIVES_UP)?;
            ensure!(status.success(), "a client ended with {status}");
            lookups.extend(read(&process.output())?);
        }
        Ok(lookups)
    }
}

/// A line for every answer, in microseconds, and one with the number of questions.
fn read(output: &str) -> Result<Vec<Lookup>> {
    let (sent, times): (Vec<&str>, Vec<&str>) = output.lines().partition(|line| line.starts_with("sent "));
    let sent: usize = sent
        .first()
        .and_then(|line| line[5..].parse().ok())
        .context("a client without an end")?;
    let mut lookups = times
        .iter()
        .map(|time| {
            let waited = Duration::from_micros(time.parse()?);
            Ok(Lookup {
                waited: Some(waited),
                first_try: waited < RETRY,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(lookups.len() <= sent, "more answers than questions: {output}");
    lookups.resize(sent, Lookup::single(None));
    Ok(lookups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_a_line_was_not_answered() {
        let lookups = read("900\n5000900\nsent 4\n").unwrap();
        let answered = lookups.iter().filter(|lookup| lookup.waited.is_some()).count();
        let first = lookups.iter().filter(|lookup| lookup.first_try).count();
        assert_eq!((lookups.len(), answered, first), (4, 2, 1));
        assert!(read("900\n").is_err(), "it was killed");
    }
}
