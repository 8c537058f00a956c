//! As much of ELF as is asked for: the names in an object's symbol table, among which `lint` looks for a panic, and
//! whether a program needs a dynamic linker.
//!
//! A program that reaches a panic does not load (its last instruction is neither an exit nor a jump), and what the
//! verifier says then does not name the line. The symbol is there to see before any kernel is asked.

use anyhow::{Context as _, Result, bail};

// gABI, figures 4-8 and 4-16: sizes and offsets of the 64-bit structures.
const PROGRAM_TABLE: usize = 0x20;
const PROGRAM_ENTRY_SIZE: usize = 0x36;
const PROGRAM_COUNT: usize = 0x38;
const INTERPRETER: u32 = 3;
const SECTION_TABLE: usize = 0x28;
const SECTION_ENTRY_SIZE: usize = 0x3a;
const SECTION_COUNT: usize = 0x3c;
const SYMBOL_SIZE: usize = 24;
const SYMBOL_TABLE: u32 = 2;
/// `SHF_EXECINSTR`, a flag of a section.
const EXECUTABLE: usize = 4;

/// Whether a program is loaded by the kernel alone: it names no interpreter, such as `/lib64/ld-linux-x86-64.so.2`.
pub(crate) fn is_static(elf: &[u8]) -> Result<bool> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("this is no little-endian ELF64 program");
    }
    let table = double(elf, PROGRAM_TABLE)?;
    let size = usize::from(half(elf, PROGRAM_ENTRY_SIZE)?);
    for entry in 0..usize::from(half(elf, PROGRAM_COUNT)?) {
        let header = elf
            .get(table.saturating_add(entry * size)..)
            .context("the program table lies outside the file")?;
        if word(header, 0)? == INTERPRETER {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every name in the symbol table, in its order.
pub(crate) fn symbols(elf: &[u8]) -> Result<Vec<String>> {
    // 64-bit, little-endian: what the bpfel target writes.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("this is no little-endian ELF64 object");
    }
    let mut names = Vec::new();
    for section in 0..half(elf, SECTION_COUNT)? {
        let header = section_header(elf, section.into())?;
        if word(header, 0x04)? != SYMBOL_TABLE {
            continue;
        }
        let strings = contents(elf, section_header(elf, word(header, 0x28)? as usize)?)?;
        for symbol in contents(elf, header)?.chunks_exact(SYMBOL_SIZE) {
            let name = strings
                .get(word(symbol, 0)? as usize..)
                .context("a symbol's name lies outside its table")?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            if !name.is_empty() {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(names)
}

/// The contents of every section that holds instructions, in their order.
pub(crate) fn code(elf: &[u8]) -> Result<Vec<&[u8]>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("this is no little-endian ELF64 object");
    }
    let mut sections = Vec::new();
    for section in 0..half(elf, SECTION_COUNT)? {
        let header = section_header(elf, section.into())?;
        if double(header, 0x08)? & EXECUTABLE != 0 {
            sections.push(contents(elf, header)?);
        }
    }
    Ok(sections)
}

fn section_header(elf: &[u8], index: usize) -> Result<&[u8]> {
    let size = usize::from(half(elf, SECTION_ENTRY_SIZE)?);
    let at = double(elf, SECTION_TABLE)?.saturating_add(index.saturating_mul(size));
    elf.get(at..at.saturating_add(size))
        .with_context(|| format!("section {index} has no header"))
}

fn contents<'a>(elf: &'a [u8], header: &[u8]) -> Result<&'a [u8]> {
    let (at, size) = (double(header, 0x18)?, double(header, 0x20)?);
    elf.get(at..at.saturating_add(size))
        .context("a section ends behind the end of the file")
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn double(bytes: &[u8], at: usize) -> Result<usize> {
    usize::try_from(field(bytes, at).map(u64::from_le_bytes)?).context("an offset that no file has")
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .context("the file ends in mid-structure")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, symbols, strings, section headers (null, symbols, strings), one after another.
    fn object(names: &[&str]) -> Vec<u8> {
        let mut strings = vec![0];
        let mut symbols = vec![0; SYMBOL_SIZE];
        for name in names {
            symbols.extend((strings.len() as u32).to_le_bytes());
            symbols.extend([0; SYMBOL_SIZE - 4]);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let header = |kind: u32, at: usize, size: usize, link: u32| {
            let mut header = vec![0; 64];
            header[0x04..0x08].copy_from_slice(&kind.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            header[0x28..0x2c].copy_from_slice(&link.to_le_bytes());
            header
        };
        let mut elf = vec![0; 64];
        let table = 64 + symbols.len() + strings.len();
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[SECTION_TABLE..SECTION_TABLE + 8].copy_from_slice(&(table as u64).to_le_bytes());
        elf[SECTION_ENTRY_SIZE] = 64;
        elf[SECTION_COUNT] = 3;
        let headers = [
            header(0, 0, 0, 0),
            header(SYMBOL_TABLE, 64, symbols.len(), 2),
            header(3, 64 + symbols.len(), strings.len(), 0),
        ];
        elf.into_iter()
            .chain(symbols)
            .chain(strings)
            .chain(headers.concat())
            .collect()
    }

    #[test]
    fn the_names_come_in_the_table_s_order() {
        assert_eq!(
            symbols(&object(&["guard", "core::panicking::panic"])).unwrap(),
            ["guard", "core::panicking::panic"]
        );
        assert!(symbols(&object(&[])).unwrap().is_empty());
    }

    #[test]
    fn a_program_that_names_an_interpreter_is_not_static() {
        let program = |kinds: &[u32]| {
            let mut elf = object(&[]);
            let table = elf.len() as u64;
            elf[PROGRAM_TABLE..PROGRAM_TABLE + 8].copy_from_slice(&table.to_le_bytes());
            elf[PROGRAM_ENTRY_SIZE] = 56;
            elf[PROGRAM_COUNT] = kinds.len() as u8;
            for kind in kinds {
                elf.extend(kind.to_le_bytes());
                elf.extend([0; 52]);
            }
            elf
        };
        assert!(is_static(&program(&[1, 1, 2])).unwrap());
        assert!(!is_static(&program(&[1, INTERPRETER, 2])).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
    }

    #[test]
    fn a_cut_object_is_an_error_and_never_a_panic() {
        let whole = object(&["guard"]);
        for len in 0..whole.len() {
            assert!(symbols(&whole[..len]).is_err(), "cut to {len} bytes");
        }
    }
}
