//! The kernels that Debian ships, and what of them a guest needs.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::programs::{self, cached, locate, unpack_parts};

/// What is always there, or is asked for by a test: wires, VLANs, the clsact qdisc, and filters at it.
const MODULES: [&str; 4] = ["veth", "8021q", "sch_ingress", "cls_bpf"];

/// The package that depends on the newest kernel of a release. The ones for clouds lack drivers, and nothing else.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel by its place in Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// That of Debian 11.
    V5_10,
    /// That of Debian 12.
    V6_1,
    /// That of Debian 13.
    V6_12,
    /// The newest that Debian has.
    Newest,
}

/// A module as it lies in its package.
struct Module {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Kernel {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// What it is called here.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    const fn release(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => "sid",
        }
    }

    /// Its unpacked packages; they are downloaded the first time (some 30 MB).
    fn tree(self) -> Result<PathBuf> {
        // The newest one comes in parts.
        let is_part = |name: &str| name.starts_with("linux-") && name.ends_with("-cloud-amd64");
        cached(&self.folder(), |begun| {
            unpack_parts(self.release(), PACKAGE, is_part, begun)
        })
        .with_context(|| format!("needs the kernel {self}"))
    }

    /// Forgets the packages: the next time they are downloaded anew.
    pub fn forget(self) -> Result<()> {
        let folder = programs::cache().join(self.folder());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        Ok(())
    }

    fn folder(self) -> String {
        format!("kernel-{self}")
    }

    /// The compressed kernel itself.
    pub(super) fn image(self) -> Result<PathBuf> {
        let tree = self.tree()?;
        let modules = modules_folder(&tree)?;
        // It moved there from `/boot` with Debian 14.
        let beside = modules.join("vmlinuz");
        if beside.is_file() {
            return Ok(beside);
        }
        let name = modules.file_name().context("a folder of modules has a name")?;
        let mut file = OsStr::new("vmlinuz-").to_owned();
        file.push(name);
        let image = tree.join("boot").join(file);
        ensure!(image.is_file(), "there is no {}", image.display());
        Ok(image)
    }

    /// Its release, as in `uname -r`.
    pub fn version(self) -> Result<String> {
        let folder = modules_folder(&self.tree()?)?;
        let name = folder.file_name().context("a folder of modules has a name")?;
        Ok(name.to_string_lossy().into_owned())
    }

    /// The modules that the tests need, uncompressed, each behind those that it needs itself.
    pub(super) fn modules(self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        collect(&modules_folder(&self.tree()?)?.join("kernel"), &mut files)?;
        let mut found = Vec::new();
        for name in MODULES {
            add(name, &files, &mut found)?;
        }
        Ok(found)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

fn modules_folder(tree: &Path) -> Result<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| tree.join(place));
    let folder = places.iter().find_map(|place| fs::read_dir(place).ok()?.next()?.ok());
    Ok(folder.context("the kernel's packages have no modules")?.path())
}

/// All files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Adds a module, after those that it needs. One that has no file is built in.
fn add(name: &str, files: &[PathBuf], found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if found.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let Some(path) = files.iter().find(|path| module_name(path).as_deref() == Some(name)) else {
        return Ok(());
    };
    let module = Module::read(path)?;
    for need in module.needs() {
        add(&need, files, found)?;
    }
    found.push((name.to_owned(), module.bytes));
    Ok(())
}

/// The name of the module in a file such as `cls_bpf.ko.xz`. A dash in a file's name is as good as an underscore.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

impl Module {
    fn read(path: &Path) -> Result<Self> {
        let tool = match path.extension().and_then(OsStr::to_str) {
            Some("xz") => Some("xz"),
            Some("zst") => Some("zstd"),
            _ => None,
        };
        let bytes = match tool {
            Some(tool) => {
                let mut command: Command = locate(tool)?.command();
                let done = command.args(["-d", "-c"]).arg(path).output();
                let done = done.with_context(|| format!("start {tool}"))?;
                ensure!(done.status.success(), "{tool} cannot unpack {}", path.display());
                done.stdout
            }
            None => fs::read(path).with_context(|| format!("read {}", path.display()))?,
        };
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }

    /// The modules that it needs: `depends=llc,stp` in its `.modinfo`, whose strings end with a zero
    /// (scripts/mod/modpost.c).
    fn needs(&self) -> Vec<String> {
        let mut strings = self.bytes.split(|&byte| byte == 0);
        let needs = strings.find_map(|string| string.strip_prefix(b"depends="));
        let needs = String::from_utf8_lossy(needs.unwrap_or_default()).replace('-', "_");
        let own = module_name(&self.path);
        needs
            .split(',')
            .filter(|need| !need.is_empty() && Some(*need) != own.as_deref())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = |bytes: &[u8]| Module {
            path: "net/8021q/8021q.ko.xz".into(),
            bytes: bytes.to_vec(),
        };
        let needs = module(b"\x7fELF\0license=GPL\0depends=garp,mrp-2\0retpoline=Y\0").needs();
        assert_eq!(needs, ["garp", "mrp_2"]);
        assert!(module(b"\x7fELF\0depends=\0").needs().is_empty());
        assert!(module(b"\x7fELF").needs().is_empty());
    }

    #[test]
    fn a_module_is_known_by_its_file() {
        for (file, name) in [
            ("a/veth.ko", Some("veth")),
            ("a/cls_bpf.ko.xz", Some("cls_bpf")),
            ("a/sch-ingress.ko.zst", Some("sch_ingress")),
            ("a/modules.dep", None),
        ] {
            assert_eq!(module_name(Path::new(file)).as_deref(), name);
        }
    }
}
