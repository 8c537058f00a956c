//! The instructions of the kernel object, among which `lint` looks for those that the oldest kernel it is for does not
//! know, and for atomics.
//!
//! LLVM 22 drops the fetch from some atomics, and no verifier sees that the value which is used then is a wrong one: so
//! there is none at all. Formats and names are those of RFC 9669.

/// Bytes of an instruction.
const LEN: usize = 8;

// Classes, in the lowest three bits of the opcode.
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
// Operations, in the highest four bits of one of ALU or JMP.
const DIV: u8 = 0x30;
const MOD: u8 = 0x90;
const MOV: u8 = 0xb0;
const END: u8 = 0xd0;
const JA: u8 = 0x00;
// Modes, in the highest three bits of one of LDX or STX.
const ATOMIC: u8 = 0xc0;
const MEMSX: u8 = 0x80;
/// Loads 64 bits, which come in an instruction of their own.
const LD_IMM64: u8 = 0x18;

/// Why an instruction does not belong there, with its number within `code`; each of them.
pub(crate) fn unwanted(code: &[u8]) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut instructions = code.chunks_exact(LEN).enumerate();
    while let Some((number, instruction)) = instructions.next() {
        let opcode = instruction[0];
        if opcode == LD_IMM64 {
            instructions.next();
        } else if let Some(why) = why(opcode, i16::from_le_bytes([instruction[2], instruction[3]])) {
            found.push((number, why));
        }
    }
    found
}

fn why(opcode: u8, offset: i16) -> Option<&'static str> {
    let (class, operation, mode) = (opcode & 0x07, opcode & 0xf0, opcode & 0xe0);
    match class {
        STX if mode == ATOMIC => Some("an atomic"),
        LDX if mode == MEMSX => Some("a load that extends the sign, of Linux 6.6"),
        JMP32 if operation == JA => Some("a long jump, of Linux 6.6"),
        ALU64 if operation == END => Some("a byte swap without a condition, of Linux 6.6"),
        ALU | ALU64 if operation == MOV && offset != 0 => Some("a move that extends the sign, of Linux 6.6"),
        ALU | ALU64 if matches!(operation, DIV | MOD) && offset != 0 => Some("a signed division, of Linux 6.6"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(opcode: u8, offset: i16) -> [u8; LEN] {
        let [low, high] = offset.to_le_bytes();
        [opcode, 0, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn what_is_new_or_atomic_is_found() {
        for (opcode, offset) in [
            (0xdb, 0),
            (0xc3, 8),
            (0x81, 0),
            (0x06, 0),
            (0xd7, 0),
            (0xbf, 8),
            (0x3f, 1),
            (0x97, 1),
        ] {
            let found = unwanted(&[instruction(0xb7, 0), instruction(opcode, offset)].concat());
            assert_eq!(found.len(), 1, "{opcode:02x}");
            assert_eq!(found[0].0, 1, "{opcode:02x}");
        }
    }

    #[test]
    fn what_every_kernel_knows_is_not() {
        for (opcode, offset) in [
            (0xbf, 0),
            (0x7b, -8),
            (0x61, 4),
            (0x3f, 0),
            (0xdc, 0),
            (0x05, 3),
            (0x16, 2),
            (0x95, 0),
        ] {
            assert_eq!(unwanted(&instruction(opcode, offset)), [], "{opcode:02x}");
        }
    }

    #[test]
    fn the_second_half_of_a_long_load_is_a_number() {
        let load = [instruction(LD_IMM64, 0), instruction(0xdb, 0)].concat();
        assert_eq!(unwanted(&load), []);
    }
}
