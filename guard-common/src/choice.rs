//! Choices without a comparison.
//!
//! The kernel's verifier follows both ways out of every comparison, and a loop with a few of them has more ways than it
//! has patience for. A bit to multiply with has one way. (All ones and all zeros to mask with have two again: from Linux
//! 6.18 on the verifier takes them apart.)

/// The top bit of a word.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
const fn top(word: u64) -> u64 {
    word >> 63
}

/// The top bit of a word. The optimiser, who would make a comparison of it, does not see what it is. Nor may it move it:
/// it would make all choices of a loop side by side, for which the stack has no room.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn top(mut word: u64) -> u64 {
    // SAFETY: a shift.
    unsafe { core::arch::asm!("{0} >>= 63", inout(reg) word, options(nostack)) };
    word
}

/// 1 if 32 bits are all zero, else 0.
#[inline(always)]
pub(crate) fn is_zero(bits: u32) -> u64 {
    top((bits as u64).wrapping_sub(1))
}

/// 1 if one number is below another, else 0; both are below 2^63.
#[inline(always)]
pub(crate) fn is_below(one: u64, other: u64) -> u64 {
    top(one.wrapping_sub(other))
}

/// The first number for 0, the second one for 1.
#[inline(always)]
pub(crate) const fn choose(bit: u64, no: u64, yes: u64) -> u64 {
    no ^ (no ^ yes).wrapping_mul(bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_says_what_a_comparison_says() {
        for bits in [0, 1, 2, 0x8000_0000, u32::MAX] {
            assert_eq!(is_zero(bits), u64::from(bits == 0));
        }
        for one in [0, 1, 77, u64::MAX >> 1] {
            for other in [0, 1, 77, u64::MAX >> 1] {
                let below = is_below(one, other);
                assert_eq!(below, u64::from(one < other));
                assert_eq!(choose(below, 3, u64::MAX), if one < other { u64::MAX } else { 3 });
            }
        }
    }
}
