//! Any record may go, each with the same chance. O(1): the handles lie in an array, and a record's first link holds its
//! place there.

use super::{MAX_CANDIDATES, Policy};
use crate::arena::Handle;
use crate::links::Links;

/// Handles in a piece of the array: grown piece by piece, as doubling one large array would copy megabytes at once.
const PIECE: usize = 1024;

pub(crate) struct Random {
    pieces: Vec<Box<[Handle; PIECE]>>,
    len: usize,
    /// Xorshift64* (Marsaglia; Vigna 2016). Not secret: who can choose what is evicted gains nothing by it.
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            pieces: Vec::new(),
            len: 0,
            state: seed | 1,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(number) * bound as u128) >> 64) as usize
    }

    fn at(&self, place: usize) -> Handle {
        self.pieces[place / PIECE][place % PIECE]
    }

    fn set(&mut self, place: usize, handle: Handle) {
        self.pieces[place / PIECE][place % PIECE] = handle;
    }

    fn place(links: &impl Links, handle: Handle) -> usize {
        links.previous(handle).0 as usize
    }
}

impl Policy for Random {
    fn insert(
        &mut self,
        links: &mut impl Links,
        handle: Handle,
        _hash: u64,
        _deadline: Option<u64>,
    ) {
        if self.len == self.pieces.len() * PIECE {
            self.pieces.push(Box::new([Handle::NONE; PIECE]));
        }
        self.set(self.len, handle);
        links.set_previous(handle, Handle(self.len as u32));
        self.len += 1;
    }

    fn touch(&mut self, _links: &mut impl Links, _handle: Handle, _deadline: Option<u64>) {}

    fn remove(&mut self, links: &mut impl Links, handle: Handle, _deadline: Option<u64>) {
        let place = Self::place(links, handle);
        debug_assert_eq!(self.at(place), handle);
        self.len -= 1;
        let last = self.at(self.len);
        self.set(place, last);
        links.set_previous(last, Handle(place as u32));
        // One spare piece, so that a removal and an insertion at the border do not free and allocate in turn.
        if self.pieces.len() * PIECE >= self.len + 2 * PIECE {
            self.pieces.pop();
        }
    }

    fn moved(&mut self, links: &mut impl Links, old: Handle, new: Handle, _deadline: Option<u64>) {
        let place = Self::place(links, new);
        debug_assert_eq!(self.at(place), old);
        self.set(place, new);
    }

    fn victim<L: Links>(
        &mut self,
        links: &mut L,
        mut may_drop: impl FnMut(&L, Handle) -> bool,
    ) -> Option<Handle> {
        if self.len == 0 {
            return None;
        }
        let start = self.below(self.len);
        (start..self.len)
            .chain(0..start)
            .take(MAX_CANDIDATES)
            .map(|place| self.at(place))
            .find(|&handle| may_drop(links, handle))
    }

    fn charged_bytes(&self) -> usize {
        self.pieces.len() * size_of::<[Handle; PIECE]>()
            + self.pieces.capacity() * size_of::<usize>()
    }
}
