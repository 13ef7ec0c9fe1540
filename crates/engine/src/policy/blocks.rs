//! Blocks of a cache line each, found by a hash: what the ghosts of S3-FIFO and the sketch of W-TinyLFU lie in. They are
//! addressed by linear hashing, as the table's buckets are, so that their number follows the items' by one block at a time
//! and nothing ever stops to rehash. What lies in a block is its user's; this only finds, adds and takes away.

/// Sixteen words of the user's.
pub(super) type Block = [u32; 16];

/// Blocks in a piece: 2 KiB, so that what an insertion may add stays small beside the room kept for it.
const PIECE: usize = 32;
/// Pieces that the directory grows by: doubling it would be a leap.
const PIECES: usize = 32;

pub(super) struct Blocks {
    /// Items for each block. In the middle of a round some blocks serve twice as many as others.
    items: usize,
    pieces: Vec<Box<[Block]>>,
    len: usize,
}

impl Blocks {
    /// No blocks yet, and one for so many items later.
    pub(super) fn new(items: usize) -> Self {
        Self {
            items,
            pieces: Vec::new(),
            len: 0,
        }
    }

    /// One step towards the number of blocks for so many items, and at least one block. A new block is a copy of the one
    /// that it shares hashes with; `fold` puts what is worth keeping of a block that goes into the one that stays.
    pub(super) fn fit(&mut self, items: usize, fold: impl FnOnce(&mut Block, &Block)) {
        let wanted = items.div_ceil(self.items).max(1);
        if self.len < wanted {
            self.grow();
        } else if self.len > 2 * wanted {
            self.len -= 1;
            let last = *self.at(self.len);
            fold(self.at_mut(Self::partner(self.len)), &last);
            // One spare piece, so that a removal and an insertion at the border do not free and allocate in turn.
            if self.pieces.len() * PIECE >= self.len + 2 * PIECE {
                self.pieces.pop();
                self.pieces
                    .shrink_to(self.pieces.len().next_multiple_of(PIECES));
            }
        }
    }

    fn grow(&mut self) {
        if self.len == self.pieces.len() * PIECE {
            if self.pieces.len() == self.pieces.capacity() {
                self.pieces.reserve_exact(PIECES);
            }
            self.pieces.push(Box::new([Block::default(); PIECE]));
        }
        let block = if self.len == 0 {
            Block::default()
        } else {
            *self.at(Self::partner(self.len))
        };
        self.len += 1;
        *self.at_mut(self.len - 1) = block;
    }

    /// The block of a hash. There is one after the first `fit`.
    #[inline]
    pub(super) fn of(&self, hash: u32) -> &Block {
        self.at(self.place(hash))
    }

    /// As `of`, to write.
    #[inline]
    pub(super) fn of_mut(&mut self, hash: u32) -> &mut Block {
        self.at_mut(self.place(hash))
    }

    pub(super) fn charged_bytes(&self) -> usize {
        self.pieces.len() * size_of::<[Block; PIECE]>()
            + self.pieces.capacity() * size_of::<Box<[Block]>>()
    }

    /// The block that a block was split from.
    fn partner(place: usize) -> usize {
        place - (1 << place.ilog2())
    }

    #[inline]
    fn place(&self, hash: u32) -> usize {
        let base = 1 << self.len.ilog2();
        let wide = hash as usize & (2 * base - 1);
        if wide < self.len { wide } else { wide - base }
    }

    #[inline]
    fn at(&self, place: usize) -> &Block {
        &self.pieces[place / PIECE][place % PIECE]
    }

    #[inline]
    fn at_mut(&mut self, place: usize) -> &mut Block {
        &mut self.pieces[place / PIECE][place % PIECE]
    }
}

/// Scatters a hash's bits anew (the finaliser of `MurmurHash3`), so that what is kept of a hash in a block says nothing
/// about which block it is.
#[inline]
pub(super) fn scatter(hash: u32) -> u32 {
    let mut bits = hash;
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ (bits >> 13)).wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_keeps_its_words_while_blocks_come_and_go() {
        let mut blocks = Blocks::new(8);
        let keep = |stays: &mut Block, goes: &Block| {
            for (stay, go) in stays.iter_mut().zip(goes) {
                *stay = (*stay).max(*go);
            }
        };
        let sizes = (1..3000).chain((1..3000).rev()).chain(1..500);
        let mut most = 0;
        for items in sizes {
            blocks.fit(items, keep);
            assert!(blocks.len >= items.div_ceil(8) && blocks.len <= 2 * items.div_ceil(8) + 1);
            most = most.max(blocks.len);
            let bytes = blocks.charged_bytes();
            let lines = blocks.len * size_of::<Block>();
            assert!(
                bytes >= lines && bytes <= lines + 2 * 2048 + 16 * 2 * PIECES,
                "{bytes}"
            );
            // The words only grow where blocks are copied and folded by the greater one.
            for hash in [1u32, 77, 0xffff_ffff, 0x1234_5678] {
                let word = &mut blocks.of_mut(hash)[3];
                assert!(*word > 0 || items == 1, "{items}");
                *word += 1;
            }
        }
        assert_eq!(most, 375);
    }
}
