//! Random numbers and bytes from a seed, for loads that can be repeated. Not for secrets.

/// `SplitMix64`: short, fast, and even enough for a load.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// From 0 to 1, without 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A size whose logarithm is even between the two, so that no decade is rare.
    #[expect(
        clippy::cast_sign_loss,
        reason = "e to the power of anything is positive"
    )]
    pub(super) fn size(&mut self, least: usize, most: usize) -> usize {
        let (least, most) = ((least as f64).ln(), (most as f64 + 1.0).ln());
        (least + self.fraction() * (most - least)).exp() as usize
    }

    /// Random bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Random text that JSON needs not escape: lower-case hex digits.
    pub(super) fn text(&mut self, len: usize) -> String {
        (0..len)
            .map(|_| char::from(b"0123456789abcdef"[self.below(16)]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((10..=2000).contains(&random.size(10, 2000)));
            assert!((0.0..1.0).contains(&random.fraction()));
        }
        assert_eq!(random.bytes(13).len(), 13);
        assert_eq!(random.text(13).len(), 13);
    }
}
