//! MANIFEST.json: what the committed kernel object was built from and with.
//!
//! The object's bytes depend on its sources and on the versions of the compiler and the linker; on nothing else,
//! because paths are mapped away.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{advice::Advice as _, toolchain::Toolchain};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) object_sha256: String,
    pub(crate) sources_sha256: String,
    /// `1.96.0 (ac68faa20 2026-05-25)`, and who built it if it says so.
    pub(crate) rustc: String,
    /// The compiler's LLVM: for the reader, the compiler's version implies it.
    pub(crate) llvm: String,
    pub(crate) bpf_linker: String,
}

impl Manifest {
    pub(crate) fn new(object_sha256: String, sources_sha256: String, toolchain: &Toolchain) -> Self {
        Self {
            object_sha256,
            sources_sha256,
            rustc: toolchain.compiler.version.full.clone(),
            llvm: toolchain.compiler.version.llvm.clone(),
            bpf_linker: toolchain.linker.version.clone(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let manifest =
            text.and_then(|text| Self::parse(&text).with_context(|| format!("{} is not a manifest", path.display())));
        manifest.or_next("cargo xtask ebpf --save")
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.to_json()?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Why an object of this toolchain cannot be compared byte by byte with the recorded one.
    pub(crate) fn other_tools(&self, toolchain: &Toolchain) -> Option<String> {
        let (rustc, linker) = (&toolchain.compiler.version.full, &toolchain.linker.version);
        if *rustc != self.rustc {
            return Some(format!(
                "it was built with rustc {}, and this is rustc {rustc}",
                self.rustc
            ));
        }
        if *linker != self.bpf_linker {
            return Some(format!(
                "it was linked with bpf-linker {}, and this is {linker}",
                self.bpf_linker
            ));
        }
        None
    }

    fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)?;
        let field = |name: &str| {
            json[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("it has no text `{name}`"))
        };
        Ok(Self {
            object_sha256: field("object_sha256")?,
            sources_sha256: field("sources_sha256")?,
            rustc: field("rustc")?,
            llvm: field("llvm")?,
            bpf_linker: field("bpf_linker")?,
        })
    }

    fn to_json(&self) -> Result<String> {
        let Self {
            object_sha256,
            sources_sha256,
            rustc,
            llvm,
            bpf_linker,
        } = self;
        let json = json!({
            "object_sha256": object_sha256,
            "sources_sha256": sources_sha256,
            "rustc": rustc,
            "llvm": llvm,
            "bpf_linker": bpf_linker,
        });
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = Manifest {
            object_sha256: "0b".into(),
            sources_sha256: "50".into(),
            rustc: "1.96.0 (ac68faa20 2026-05-25)".into(),
            llvm: "22.1.8".into(),
            bpf_linker: "0.13.0".into(),
        };
        assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Manifest::parse(r#"{"object_sha256": "0b"}"#).unwrap_err();
        assert!(error.to_string().contains("sources_sha256"), "{error}");
    }
}
