//! What each CPU keeps for itself from one packet to the next.

use crate::{
    recent::Recent,
    sample::{Kind, Sampler},
};

/// The value of [`crate::abi::LOCALS`]. All zero is a CPU that has seen nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Of each kind.
    samplers: [Sampler; 2],
    /// The name that the short way read last.
    pub recent: Recent,
}

impl Local {
    /// Decides which of a kind are shown.
    #[inline(always)]
    pub const fn sampler(&mut self, kind: Kind) -> &mut Sampler {
        &mut self.samplers[kind as usize & 1]
    }
}
