//! The files of a guest: an archive that the kernel unpacks at its start (`newc`, see
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::BufWriter,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use cpio::newc;

use super::{guest, kernel::Kernel};
use crate::programs::{Program, locate};

/// Where the kernel mounts its file systems, and programs expect to write.
const FOLDERS: [&str; 8] = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];

/// `S_IFDIR` and `S_IFREG`, with who may do what.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// What a guest will find.
#[derive(Debug, Default)]
pub struct Image {
    /// By their paths in the guest.
    files: BTreeMap<PathBuf, Content>,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Of(PathBuf),
}

impl Image {
    /// One that has `init` as its first process, and the users and groups that programs look for.
    pub fn new(init: &Path) -> Result<Self> {
        let mut image = Self::default();
        image.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        image.text("/etc/group", "root:x:0:\n");
        image.text("/etc/hosts", "127.0.0.1 localhost\n");
        image.program(init, "/init")?;
        Ok(image)
    }

    /// A file of the host.
    pub fn file(&mut self, host: &Path, guest: &str) {
        self.files.insert(guest.into(), Content::Of(host.to_owned()));
    }

    /// A file with this text.
    pub fn text(&mut self, guest: &str, text: &str) {
        self.files.insert(guest.into(), Content::Bytes(text.into()));
    }

    /// A program of the host, with the libraries that it is linked to, where they lie on the host.
    pub fn program(&mut self, host: &Path, guest: &str) -> Result<()> {
        self.libraries(host, Command::new("ldd"))?;
        self.file(host, guest);
        Ok(())
    }

    /// A program of the lab, at the place where the lab finds it in the guest as well.
    pub fn located(&mut self, name: &str) -> Result<()> {
        let program: Program = locate(name)?;
        let path = program.path().canonicalize()?;
        self.libraries(&path, program.with_libraries(Command::new("ldd")))?;
        // The private tree is looked for where it is on the host; what the system has is looked for on PATH.
        let place = match program.root() {
            Some(_) => path.clone(),
            None => Path::new("/usr/sbin").join(name),
        };
        self.files.insert(place, Content::Of(path));
        Ok(())
    }

    fn libraries(&mut self, program: &Path, mut ldd: Command) -> Result<()> {
        let said = ldd.arg(program).output().context("start ldd")?;
        // A static program has none, and ldd fails.
        for path in libraries(&String::from_utf8_lossy(&said.stdout))? {
            self.files.insert(place(&path)?, Content::Of(path));
        }
        Ok(())
    }

    /// Writes it, for a kernel, with its modules, and with what the guest is to do.
    pub(super) fn write(&self, kernel: Kernel, commands: &[String], variables: &[String], to: &Path) -> Result<()> {
        let mut files = self.files.clone();
        let lines = |lines: &[String]| {
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>()
                .into_bytes()
        };
        let mut modules = Vec::new();
        for (name, bytes) in kernel.modules()? {
            let path = format!("/guest/{name}.ko");
            modules.push(path.clone());
            files.insert(path.into(), Content::Bytes(bytes));
        }
        for (path, text) in [
            (guest::MODULES, lines(&modules)),
            (guest::COMMANDS, lines(commands)),
            (guest::ENVIRONMENT, lines(variables)),
        ] {
            files.insert(path.into(), Content::Bytes(text));
        }
        write(&files, to).with_context(|| format!("write {}", to.display()))
    }
}

/// The files in what `ldd` says: `libc.so.6 => /lib/libc.so.6 (0x0000)`, `/lib64/ld-linux.so.2 (0x0000)`.
fn libraries(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.ends_with("=> not found") {
            bail!("a library is missing: {line}");
        }
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        if let Some((path, _)) = path.split_once(" (").filter(|(path, _)| path.starts_with('/')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// Where a library lies in the guest: where it is on the host, said without a way up.
fn place(path: &Path) -> Result<PathBuf> {
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path.to_owned());
    }
    let (folder, name) = path.parent().zip(path.file_name()).context("a library has a folder")?;
    Ok(folder.canonicalize()?.join(name))
}

fn write(files: &BTreeMap<PathBuf, Content>, to: &Path) -> Result<()> {
    let mut folders: BTreeSet<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    let mut named = Vec::new();
    for (path, content) in files {
        let name = plain(path)?;
        folders.extend(name.ancestors().skip(1).map(Path::to_owned));
        named.push((name, content));
    }
    folders.remove(Path::new(""));
    let mut out = BufWriter::new(File::create(to)?);
    for folder in &folders {
        let name = folder.to_str().context("an odd name")?;
        newc::Builder::new(name)
            .mode(FOLDER)
            .nlink(2)
            .write(&mut out, 0)
            .finish()?;
    }
    for (name, content) in named {
        let bytes = match content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Of(path) => fs::read(path).with_context(|| format!("read {}", path.display()))?,
        };
        let size = u32::try_from(bytes.len()).with_context(|| format!("{} is too large", name.display()))?;
        let name = name.to_str().context("an odd name")?;
        let mut writer = newc::Builder::new(name).mode(FILE).nlink(1).write(&mut out, size);
        std::io::Write::write_all(&mut writer, &bytes)?;
        writer.finish()?;
    }
    newc::trailer(out)?;
    Ok(())
}

/// A path as an archive has it: from the root, without a slash before it.
fn plain(path: &Path) -> Result<PathBuf> {
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    ensure!(
        path.is_absolute() && is_plain,
        "{} is no place in a guest",
        path.display()
    );
    Ok(path.components().skip(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(said).unwrap(), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").unwrap().is_empty());
        let missing = libraries("\tlibnone.so.1 => not found\n").unwrap_err();
        assert!(missing.to_string().contains("libnone.so.1"), "{missing}");
    }

    #[test]
    fn an_archive_has_every_file_and_the_folders_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let mut image = Image::default();
        image.text("/etc/passwd", "root\n");
        image.text("/a/deep/file", "x");
        write(&image.files, &path).unwrap();
        let mut archive = File::open(&path).unwrap();
        let mut names = Vec::new();
        loop {
            let reader = newc::Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            names.push((entry.name().to_owned(), entry.mode(), entry.file_size()));
            archive = reader.finish().unwrap();
        }
        for expected in [
            ("a", FOLDER, 0),
            ("a/deep", FOLDER, 0),
            ("proc", FOLDER, 0),
            ("a/deep/file", FILE, 1),
            ("etc/passwd", FILE, 5),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            assert!(names.contains(&expected), "{names:?}");
        }
        assert!(plain(Path::new("/a/../b")).is_err());
        assert!(plain(Path::new("a")).is_err());
    }
}
