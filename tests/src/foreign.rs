//! BPF programs of somebody else's, on hooks that a guard wants too.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::FdLink,
        loaded_programs,
        tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};

use crate::{Namespace, sys};

/// A program that lets everything pass. Dropping it takes it away, unless it is pinned.
#[derive(Debug)]
pub struct Foreign {
    ebpf: Ebpf,
    link: Option<SchedClassifierLinkId>,
    id: u32,
}

impl Foreign {
    /// One in the chain of tcx.
    pub fn tcx(namespace: &Namespace, device: &str, direction: TcAttachType, name: &str) -> Result<Self> {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        Self::classifier(namespace, device, direction, name, options)
    }

    /// One in a filter at the clsact qdisc, of the first priority.
    pub fn clsact(namespace: &Namespace, device: &str, direction: TcAttachType, name: &str) -> Result<Self> {
        namespace.run(|| qdisc_add_clsact(device))?;
        Self::filter(namespace, device, direction, name, (1, 0))
    }

    /// One in a filter at a clsact qdisc that is there, of this priority and handle; the kernel chooses what is 0.
    pub fn filter(
        namespace: &Namespace,
        device: &str,
        direction: TcAttachType,
        name: &str,
        (priority, handle): (u16, u32),
    ) -> Result<Self> {
        let options = NlOptions {
            priority,
            handle: TcHandle::from(handle),
            ..NlOptions::default()
        };
        Self::classifier(namespace, device, direction, name, TcAttachOptions::Netlink(options))
    }

    /// One at the XDP hook, in the driver.
    pub fn xdp(namespace: &Namespace, device: &str, name: &str) -> Result<Self> {
        // XDP_PASS
        let mut ebpf = Ebpf::load(&object(name, "xdp", 2))?;
        let program: &mut Xdp = ebpf.program_mut(name).context("no program")?.try_into()?;
        program.load()?;
        namespace.run(|| program.attach(device, XdpMode::Driver))?;
        let id = program.info()?.id();
        Ok(Self { ebpf, link: None, id })
    }

    /// One in the chain of tcx, whose link is pinned: it outlives this, until the pin is gone.
    pub fn pinned(
        namespace: &Namespace,
        device: &str,
        direction: TcAttachType,
        name: &str,
        pin: &Path,
    ) -> Result<Self> {
        let mut foreign = Self::tcx(namespace, device, direction, name)?;
        let program: &mut SchedClassifier = foreign.ebpf.program_mut(name).context("no program")?.try_into()?;
        let link = program.take_link(foreign.link.take().context("no link")?)?;
        namespace.run(|| -> Result<()> {
            FdLink::try_from(link)?.pin(pin)?;
            Ok(())
        })?;
        Ok(foreign)
    }

    /// A map that is pinned: a hash map with keys of four bytes. Nobody uses it, and it goes with its pin.
    pub fn map(namespace: &Namespace, name: &str, value_size: usize, entries: usize, pin: &Path) -> Result<()> {
        Ok(namespace.run(|| sys::pin_hash_map(name, value_size, entries, pin))?)
    }

    /// Pins the program itself, of this name.
    pub fn pin(&mut self, namespace: &Namespace, name: &str, pin: &Path) -> Result<()> {
        let program = self.ebpf.program_mut(name).context("no program")?;
        Ok(namespace.run(|| program.pin(pin))?)
    }

    /// The number of the program.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How often it has run, while the kernel counts that.
    pub fn runs(&self) -> Result<u64> {
        let mut loaded = loaded_programs().flatten();
        let info = loaded.find(|program| program.id() == self.id);
        Ok(info.context("the program is gone")?.run_count())
    }

    fn classifier(
        namespace: &Namespace,
        device: &str,
        direction: TcAttachType,
        name: &str,
        options: TcAttachOptions,
    ) -> Result<Self> {
        // TCX_NEXT
        let mut ebpf = Ebpf::load(&object(name, "classifier", -1))?;
        let program: &mut SchedClassifier = ebpf.program_mut(name).context("no program")?.try_into()?;
        program.load()?;
        let link = namespace.run(|| program.attach_with_options(device, direction, options))?;
        let id = program.info()?.id();
        Ok(Self {
            ebpf,
            link: Some(link),
            id,
        })
    }
}

/// An ELF object with one program of this name, of two instructions: r0 = `result`, exit.
///
/// ```text
/// ELF header | names | instructions | symbols | section headers
/// ```
fn object(name: &str, section: &str, result: i32) -> Vec<u8> {
    const HEADER: usize = 64;
    let names = format!("\0{name}\0{section}\0.symtab\0.strtab\0");
    let at = |wanted: &str| names.find(&format!("\0{wanted}\0")).map_or(0, |found| found as u32 + 1);
    let names_len = names.len().next_multiple_of(8);
    let (code, symbols) = (HEADER + names_len, HEADER + names_len + 16);
    let headers = symbols + 2 * 24;

    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(16, 0);
    // ET_REL, EM_BPF, version 1.
    elf.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend((headers as u64).to_le_bytes());
    elf.extend([0; 4]);
    for half in [HEADER as u16, 0, 0, 64, 4, 3] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(names.as_bytes());
    elf.resize(code, 0);
    // BPF_ALU64 | BPF_MOV | BPF_K, then BPF_JMP | BPF_EXIT.
    elf.extend([0xb7, 0, 0, 0]);
    elf.extend(result.to_le_bytes());
    elf.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    // The null symbol, and a global function at the start of section 1.
    elf.extend([0; 24]);
    elf.extend(at(name).to_le_bytes());
    elf.extend([0x12, 0, 1, 0]);
    elf.extend([0; 8]);
    elf.extend(16_u64.to_le_bytes());
    // Name, type, flags, address, offset, size, link, info, alignment, entry size.
    for (name, kind, flags, offset, size, link, info, entry) in [
        (0, 0_u32, 0_u64, 0, 0, 0_u32, 0_u32, 0_u64),
        (at(section), 1, 6, code, 16, 0, 0, 0),
        (at(".symtab"), 2, 0, symbols, 48, 3, 1, 24),
        (at(".strtab"), 3, 0, HEADER, names.len(), 0, 0, 0),
    ] {
        elf.extend(name.to_le_bytes());
        elf.extend(kind.to_le_bytes());
        for word in [flags, 0, offset as u64, size as u64] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(link.to_le_bytes());
        elf.extend(info.to_le_bytes());
        elf.extend(8_u64.to_le_bytes());
        elf.extend(entry.to_le_bytes());
    }
    elf
}
