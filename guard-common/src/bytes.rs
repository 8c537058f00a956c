//! Reading and writing a packet, whatever holds it.
//!
//! Natively a packet is a slice; in the kernel it is a pair of pointers that the verifier watches. Everything that
//! parses or builds packets is written once against these traits. No access reaches past the end: it is `None`.

/// A packet that can be read at byte offsets counted from its first byte.
pub trait Bytes {
    /// The byte at `at`.
    fn u8(&self, at: usize) -> Option<u8>;
    /// The two bytes at `at`, in network order.
    fn be16(&self, at: usize) -> Option<u16>;
    /// The four bytes at `at`, as they lie in memory: the first byte is the lowest address.
    fn ne32(&self, at: usize) -> Option<u32>;
    /// The eight bytes at `at`, the first one least significant.
    fn le64(&self, at: usize) -> Option<u64>;
    /// So many times eight bytes from `at` on, by one look at where the packet ends.
    fn le64s<const N: usize>(&self, at: usize) -> Option<[u64; N]>;

    /// The same from a constant offset, which takes fewer instructions in the kernel.
    #[inline(always)]
    fn le64s_from<const AT: usize, const N: usize>(&self) -> Option<[u64; N]> {
        self.le64s(AT)
    }

    /// The four bytes at each of these constant offsets, the first one least significant, by one look at where the packet
    /// ends: the last of them is the highest.
    #[inline(always)]
    fn le32s_at<const N: usize>(&self, places: [usize; N]) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip(places) {
            *word = u32::from_le(self.ne32(at)?);
        }
        Some(words)
    }

    /// The place `at`, which is within reach of headers and question.
    fn cursor(&self, at: usize) -> impl Cursor;
}

/// A place in a packet, from which somebody reads on. In the kernel it is a pointer: reading from it takes fewer
/// instructions than reading at an offset, which is added to where the packet begins each time, and bounded.
pub trait Cursor: Copy {
    /// The byte here.
    fn u8(self) -> Option<u8>;
    /// So many times eight bytes from here on, the first one of each least significant.
    fn le64s<const N: usize>(self) -> Option<[u64; N]>;
    /// Sixteen bytes like that, and the four bytes behind them as they lie in memory.
    fn le64s_and_ne32(self) -> Option<([u64; 2], u32)>;
    /// The place so many bytes on.
    fn forward(self, bytes: usize) -> Self;
    /// The place so many bytes back, which does not lie in front of where the cursor began.
    fn back(self, bytes: usize) -> Self;
    /// Bytes from another place in the same packet to this one, which does not lie in front of it.
    fn since(self, other: Self) -> usize;
}

/// A packet that can be written in place. Nothing is written when the offset reaches past the end.
pub trait BytesMut: Bytes {
    /// Writes one byte.
    fn put_u8(&mut self, at: usize, value: u8) -> Option<()>;
    /// Writes two bytes in network order.
    fn put_be16(&mut self, at: usize, value: u16) -> Option<()>;
    /// Writes four bytes as they lie in memory.
    fn put_ne32(&mut self, at: usize, value: u32) -> Option<()>;
    /// Writes eight bytes, the least significant one first.
    fn put_le64(&mut self, at: usize, value: u64) -> Option<()>;
    /// Writes so many times eight bytes, by one look at where the packet ends.
    fn put_le64s<const N: usize>(&mut self, at: usize, values: [u64; N]) -> Option<()>;

    /// The same from a constant offset on, as in [`Bytes::le64s_from`].
    #[inline(always)]
    fn put_le64s_from<const AT: usize, const N: usize>(&mut self, values: [u64; N]) -> Option<()> {
        self.put_le64s(AT, values)
    }
}

fn window<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl Bytes for [u8] {
    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    fn be16(&self, at: usize) -> Option<u16> {
        window(self, at).map(u16::from_be_bytes)
    }

    fn ne32(&self, at: usize) -> Option<u32> {
        window(self, at).map(u32::from_ne_bytes)
    }

    fn le64(&self, at: usize) -> Option<u64> {
        window(self, at).map(u64::from_le_bytes)
    }

    fn le64s<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let (words, _) = self.get(at..at + 8 * N)?.as_chunks();
        Some(core::array::from_fn(|word| u64::from_le_bytes(words[word])))
    }

    fn cursor(&self, at: usize) -> impl Cursor {
        SliceCursor { bytes: self, at }
    }
}

/// A place in a slice.
#[derive(Clone, Copy)]
struct SliceCursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor for SliceCursor<'_> {
    fn u8(self) -> Option<u8> {
        self.bytes.u8(self.at)
    }

    fn le64s<const N: usize>(self) -> Option<[u64; N]> {
        self.bytes.le64s(self.at)
    }

    fn le64s_and_ne32(self) -> Option<([u64; 2], u32)> {
        Some((self.le64s()?, self.bytes.ne32(self.at + 16)?))
    }

    fn forward(self, bytes: usize) -> Self {
        let at = self.at + bytes;
        Self { at, ..self }
    }

    fn back(self, bytes: usize) -> Self {
        let at = self.at - bytes;
        Self { at, ..self }
    }

    fn since(self, other: Self) -> usize {
        self.at - other.at
    }
}

impl BytesMut for [u8] {
    fn put_u8(&mut self, at: usize, value: u8) -> Option<()> {
        *self.get_mut(at)? = value;
        Some(())
    }

    fn put_be16(&mut self, at: usize, value: u16) -> Option<()> {
        *self.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
        Some(())
    }

    fn put_ne32(&mut self, at: usize, value: u32) -> Option<()> {
        *self.get_mut(at..)?.first_chunk_mut()? = value.to_ne_bytes();
        Some(())
    }

    fn put_le64(&mut self, at: usize, value: u64) -> Option<()> {
        *self.get_mut(at..)?.first_chunk_mut()? = value.to_le_bytes();
        Some(())
    }

    fn put_le64s<const N: usize>(&mut self, at: usize, values: [u64; N]) -> Option<()> {
        let (words, _) = self.get_mut(at..at + 8 * N)?.as_chunks_mut();
        for (word, value) in words.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_past_the_end() {
        let mut packet = [1u8, 2, 3, 4];
        let packet = packet.as_mut_slice();
        assert_eq!(packet.be16(2), Some(0x0304));
        assert_eq!(packet.be16(3), None);
        assert_eq!(packet.le64(0), None);
        assert_eq!(packet.u8(usize::MAX), None);
        assert_eq!(packet.put_be16(3, 0xffff), None);
        assert_eq!(packet, [1, 2, 3, 4]);
    }
}
