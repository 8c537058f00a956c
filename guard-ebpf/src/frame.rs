//! A packet between two pointers that the verifier watches.

use core::arch::asm;

use guard_common::bytes::{Bytes, BytesMut, Cursor};

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

    /// The pointer to an offset that is at most [`MAX_OFFSET`].
    #[inline(always)]
    fn pointer(&self, at: usize) -> usize {
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
        pointer
    }

    #[inline(always)]
    fn at<T>(&self, at: usize) -> Option<*mut T> {
        if at > MAX_OFFSET {
            return None;
        }
        let pointer = self.pointer(at);
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

    /// What lies at an offset that the compiler knows, and adds where it reads or writes.
    #[inline(always)]
    fn near<T>(&self, at: usize) -> Option<*mut T> {
        let pointer = self.start + at;
        if pointer + size_of::<T>() > self.end {
            return None;
        }
        Some(pointer as *mut T)
    }

    #[inline(always)]
    fn get_near<T: Copy>(&self, at: usize) -> Option<T> {
        // SAFETY: as for `get`.
        self.near(at).map(|pointer| unsafe { *pointer })
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

    #[inline(always)]
    fn le64s_from<const AT: usize, const N: usize>(&self) -> Option<[u64; N]> {
        self.get_near(AT).map(|words: [u64; N]| words.map(u64::from_le))
    }

    #[inline(always)]
    fn le32s_at<const N: usize>(&self, places: [usize; N]) -> Option<[u32; N]> {
        if self.start + places[N - 1] + 4 > self.end {
            return None;
        }
        // SAFETY: as for `get`.
        Some(places.map(|at| u32::from_le(unsafe { *((self.start + at) as *const u32) })))
    }

    #[inline(always)]
    fn cursor(&self, at: usize) -> impl Cursor {
        let start = self.pointer(at);
        Self { start, ..*self }
    }
}

impl Cursor for Frame {
    #[inline(always)]
    fn u8(self) -> Option<u8> {
        self.get_near(0)
    }

    #[inline(always)]
    fn le64s<const N: usize>(self) -> Option<[u64; N]> {
        self.le64s_from::<0, N>()
    }

    #[inline(always)]
    fn le64s_and_ne32(self) -> Option<([u64; 2], u32)> {
        if self.start + 20 > self.end {
            return None;
        }
        let words = self.start as *const u64;
        // SAFETY: as for `get`. A type of twenty bytes would be aligned to four, and read so.
        let (low, high, rest) = unsafe { (*words, *words.add(1), *words.add(2).cast()) };
        Some(([low, high].map(u64::from_le), rest))
    }

    #[inline(always)]
    fn forward(self, bytes: usize) -> Self {
        let start = self.start + bytes;
        Self { start, ..self }
    }

    #[inline(always)]
    fn back(self, bytes: usize) -> Self {
        let start = self.start - bytes;
        Self { start, ..self }
    }

    #[inline(always)]
    fn since(self, other: Self) -> usize {
        let mut bytes = self.start - other.start;
        // The place that lies so many bytes behind the other one is to be a pointer of its own: the optimiser would take
        // this one for it, of which the verifier knows how it came about.
        // SAFETY: a mask.
        unsafe { asm!("{0} &= {1}", inout(reg) bytes, const 0xffff, options(pure, nomem, nostack)) };
        bytes
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

    #[inline(always)]
    fn put_le64s<const N: usize>(&mut self, at: usize, values: [u64; N]) -> Option<()> {
        self.put(at, values.map(u64::to_le))
    }

    #[inline(always)]
    fn put_le64s_from<const AT: usize, const N: usize>(&mut self, values: [u64; N]) -> Option<()> {
        // SAFETY: as for `put`.
        self.near(AT)
            .map(|pointer| unsafe { *pointer = values.map(u64::to_le) })
    }
}
