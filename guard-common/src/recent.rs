//! The name that was read last.
//!
//! Loops and storms ask for the same name again and again, spelled alike. Who has just read it, and sees by its bytes that
//! it is the same, knows where it ends and what it hashes to.

use crate::{
    bytes::Cursor,
    key::{BLOCK_LEN, Hashed, MAX_BLOCKS, NameHash, Secret},
    question::name_len_at,
};

/// Above the length of a name: it is spelled without a capital.
const PLAIN_SHIFT: u32 = 8;

/// A name in wire form, as a packet had it, and what is known of it. All zero is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// `[0 55 | plain 1 | length 8]`, from the highest bit down. A length of 0 is no name.
    shape: u64,
    hash: u64,
    /// The sixteen bytes that end where it ends: of a short name, they begin in front of it.
    last: [u64; 2],
    /// Its sixteen bytes at a time, as often as it has them.
    blocks: [[u64; 2]; MAX_BLOCKS],
}

impl Recent {
    /// The type and class that follow the name at a place, as they lie in memory, if it is this one, spelled like this. The
    /// place is sixteen bytes or more behind the first byte that can be read.
    #[inline(always)]
    pub fn recall<C: Cursor>(&self, name: C) -> Option<u32> {
        let length = self.name_len();
        // The blocks are compared and not the length, as where they are hashed. The first one is where names mostly
        // differ; by itself, it has the optimiser take the others one after the other, without a loop.
        let blocks = length & 0xf0;
        if blocks != 0 {
            if name.le64s()? != self.blocks[0] {
                return None;
            }
            for number in 1..MAX_BLOCKS {
                if number * BLOCK_LEN == blocks {
                    break;
                }
                if name.forward(number * BLOCK_LEN).le64s()? != self.blocks[number] {
                    return None;
                }
            }
        }
        let (last, type_and_class) = name.back(BLOCK_LEN).forward(length).le64s_and_ne32()?;
        if last != self.last || length == 0 {
            return None;
        }
        Some(type_and_class)
    }

    /// Reads the name at a place, as for [`Recent::recall`], which is this one then: the type and class that follow it.
    /// `None`, and no name, if there is none.
    #[inline(always)]
    pub fn learn<C: Cursor>(&mut self, name: C, secret: &Secret) -> Option<u32> {
        self.shape = 0;
        let length = name_len_at(name)?;
        let (last, type_and_class) = name.back(BLOCK_LEN).forward(length).le64s_and_ne32()?;
        let block = |at| {
            let block = name.forward(at).le64s()?;
            self.blocks[at / BLOCK_LEN] = block;
            Some(block)
        };
        let NameHash { hash, plain } = NameHash::of(length, block, last, secret)?;
        (self.hash, self.last) = (hash, last);
        self.shape = length as u64 | (plain as u64) << PLAIN_SHIFT;
        Some(type_and_class)
    }

    /// Bytes of the name, its root label included; 0 if there is none.
    #[inline(always)]
    pub const fn name_len(&self) -> usize {
        (self.shape & 0xff) as usize
    }

    /// Hashes the question that has this name, and this type and class as they lie in memory.
    #[inline(always)]
    pub const fn asked(&self, type_and_class: u32, secret: &Secret) -> Hashed {
        let name = NameHash {
            hash: self.hash,
            plain: self.shape >> PLAIN_SHIFT & 1 != 0,
        };
        name.asked(self.name_len(), u32::from_be(type_and_class), secret)
    }
}

#[cfg(test)]
mod tests;
