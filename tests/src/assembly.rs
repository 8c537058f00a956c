//! Instructions for the kernel, by name (Documentation/bpf/standardization/instruction-set.rst).

use crate::sys::Instruction;

/// `BPF_FUNC_ktime_get_ns`
pub(crate) const NOW: i32 = 5;
/// `BPF_FUNC_tail_call`
const TAIL_CALL: i32 = 12;

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    }
}

/// `register = value`
pub(crate) const fn set(register: u8, value: i32) -> Instruction {
    op(0xb7, register, 0, 0, value)
}

/// `register = from`
pub(crate) const fn copy(register: u8, from: u8) -> Instruction {
    op(0xbf, register, from, 0, 0)
}

/// `register += value`
pub(crate) const fn add(register: u8, value: i32) -> Instruction {
    op(0x07, register, 0, 0, value)
}

/// `register -= from`
pub(crate) const fn subtract(register: u8, from: u8) -> Instruction {
    op(0x1f, register, from, 0, 0)
}

/// `register *= by`
pub(crate) const fn multiply(register: u8, by: u8) -> Instruction {
    op(0x2f, register, by, 0, 0)
}

/// `register %= by`
pub(crate) const fn modulo(register: u8, by: i32) -> Instruction {
    op(0x97, register, 0, 0, by)
}

/// `register ^= by`
pub(crate) const fn exclusive_or(register: u8, by: u8) -> Instruction {
    op(0xaf, register, by, 0, 0)
}

/// `register &= mask`
pub(crate) const fn mask(register: u8, mask: i32) -> Instruction {
    op(0x57, register, 0, 0, mask)
}

/// `register >>= bits`
pub(crate) const fn shift_right(register: u8, bits: i32) -> Instruction {
    op(0x77, register, 0, 0, bits)
}

/// `register = *(u64 *)(from + offset)`
pub(crate) const fn load(register: u8, from: u8, offset: i16) -> Instruction {
    op(0x79, register, from, offset, 0)
}

/// `register = *(u32 *)(from + offset)`
pub(crate) const fn load_32(register: u8, from: u8, offset: i16) -> Instruction {
    op(0x61, register, from, offset, 0)
}

/// `*(u64 *)(to + offset) = register`
pub(crate) const fn store(to: u8, offset: i16, register: u8) -> Instruction {
    op(0x7b, to, register, offset, 0)
}

/// `*(u16 *)(to + offset) = register`
pub(crate) const fn store_16(to: u8, offset: i16, register: u8) -> Instruction {
    op(0x6b, to, register, offset, 0)
}

/// `*(u8 *)(to + offset) = register`
pub(crate) const fn store_8(to: u8, offset: i16, register: u8) -> Instruction {
    op(0x73, to, register, offset, 0)
}

/// Leaves out the next so many instructions if `register > than`.
pub(crate) const fn skip_if_greater(register: u8, than: u8, count: i16) -> Instruction {
    op(0x2d, register, than, count, 0)
}

/// The same if `register <= value`.
pub(crate) const fn skip_if_at_most(register: u8, value: i32, count: i16) -> Instruction {
    op(0xb5, register, 0, count, value)
}

/// The same if `register == value`.
pub(crate) const fn skip_if_equal(register: u8, value: i32, count: i16) -> Instruction {
    op(0x15, register, 0, count, value)
}

/// Calls a helper of the kernel.
pub(crate) const fn call(function: i32) -> Instruction {
    op(0x85, 0, 0, 0, function)
}

/// Ends the program with what is in r0.
pub(crate) const fn exit() -> Instruction {
    op(0x95, 0, 0, 0, 0)
}

/// `register = value`, in two instructions.
pub(crate) const fn set_64(register: u8, value: u64) -> [Instruction; 2] {
    [
        op(0x18, register, 0, 0, value as u32 as i32),
        op(0, 0, 0, 0, (value >> 32) as i32),
    ]
}

/// `register = the first value of an array map`, in two instructions.
pub(crate) const fn first_of(register: u8, map: i32) -> [Instruction; 2] {
    const PSEUDO_MAP_VALUE: u8 = 2;
    [op(0x18, register, PSEUDO_MAP_VALUE, 0, map), op(0, 0, 0, 0, 0)]
}

/// Goes on to the first program of a map, with the context that is in `context`; what comes after runs if there is
/// none.
pub(crate) const fn go_on(context: u8, programs: i32) -> [Instruction; 5] {
    const PSEUDO_MAP_FD: u8 = 1;
    [
        copy(1, context),
        op(0x18, 2, PSEUDO_MAP_FD, 0, programs),
        op(0, 0, 0, 0, 0),
        set(3, 0),
        call(TAIL_CALL),
    ]
}
