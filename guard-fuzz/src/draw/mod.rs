//! What cases are made of: valid, nearly valid, and spoiled in the ways in which bytes are spoiled.

mod frame;
mod message;
mod seeds;
mod spoil;
mod text;

pub(crate) use self::{
    frame::{Ends, frame, frame_between},
    message::{Asked, message, message_of, name, response_to},
    seeds::seed,
    spoil::spoil,
    text::{configuration, edit, request},
};

use guard_sim::random::Random;

/// A frame of any kind around a message of any kind; one in eight is made by others.
pub(crate) fn any_frame(random: &mut Random) -> Vec<u8> {
    if random.once_in(8) {
        return seed(random);
    }
    let message = message(random);
    frame(random, &message)
}

/// A frame around a query that is whole, mostly.
pub(crate) fn query_frame(random: &mut Random) -> Vec<u8> {
    if random.once_in(4) {
        return any_frame(random);
    }
    let message = message_of(&Asked::draw(random));
    frame(random, &message)
}

/// Chance as the drawing asks for it.
pub(crate) trait Chance {
    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool;

    /// A number from `low` up to `high`, both of them drawn too.
    fn between(&mut self, low: usize, high: usize) -> usize;

    /// One of these.
    fn of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T;

    /// So many bytes.
    fn bytes(&mut self, count: usize) -> Vec<u8>;
}

impl Chance for Random {
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below((high - low + 1) as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
