//! A packet between two pointers that the verifier watches.

use core::arch::asm;

use guard_common::bytes::{Bytes, BytesMut};

/// No header or question that is read lies further into a packet. The verifier wants a bound for every offset.
pub(crate) const MAX_OFFSET: usize = 0x3ff;

/// The readable part of a packet. Any call that may move the packet makes it stale: take another one.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The bytes between the two pointers of a context.
    #[inline(always)]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Bytes that can be read.
    #[inline(always)]
    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn at<T>(&self, at: usize) -> Option<*mut T> {
        if at > MAX_OFFSET {
            return None;
        }
        // The verifier follows one pointer from the comparison to the access. An addition that the optimiser cannot see
        // through keeps it from making two pointers of it.
        let mut pointer = self.start;
        // The optimiser compares one copy of the offset, and adds another one. Verifiers before Linux 6.18 do not see that
        // they are equal, so what is added is bounded once more.
        // SAFETY: an addition.
        unsafe {
            asm!(
                "{1} &= {2}",
                "{0} += {1}",
                inout(reg) pointer,
                inout(reg) at => _,
                const MAX_OFFSET,
                options(pure, nomem, nostack, preserves_flags)
            );
        };
        if pointer + size_of::<T>() > self.end {
            return None;
        }
        Some(pointer as *mut T)
    }

    #[inline(always)]
    fn get<T: Copy>(&self, at: usize) -> Option<T> {
        // SAFETY: the bytes lie between the pointers. They need not be aligned: BPF loads are not on any machine that
        // the verifier lets them be unaligned on, and on others it refuses the program.
        self.at(at).map(|pointer| unsafe { *pointer })
    }

    #[inline(always)]
    fn put<T>(&mut self, at: usize, value: T) -> Option<()> {
        // SAFETY: as for `get`; the hook's context allows writing.
        self.at(at).map(|pointer| unsafe { *pointer = value })
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at)
    }

    #[inline(always)]
    fn be16(&self, at: usize) -> Option<u16> {
        self.get(at).map(u16::from_be)
    }

    #[inline(always)]
    fn ne32(&self, at: usize) -> Option<u32> {
        self.get(at)
    }

    #[inline(always)]
    fn le64(&self, at: usize) -> Option<u64> {
        self.get(at).map(u64::from_le)
    }

    #[inline(always)]
    fn le64s<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        self.get(at).map(|words: [u64; N]| words.map(u64::from_le))
    }
}

impl BytesMut for Frame {
    #[inline(always)]
    fn put_u8(&mut self, at: usize, value: u8) -> Option<()> {
        self.put(at, value)
    }

    #[inline(always)]
    fn put_be16(&mut self, at: usize, value: u16) -> Option<()> {
        self.put(at, value.to_be())
    }

    #[inline(always)]
    fn put_ne32(&mut self, at: usize, value: u32) -> Option<()> {
        self.put(at, value)
    }

    #[inline(always)]
    fn put_le64(&mut self, at: usize, value: u64) -> Option<()> {
        self.put(at, value.to_le())
    }
}
