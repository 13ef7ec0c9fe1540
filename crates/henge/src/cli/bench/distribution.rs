//! Which key comes next, and what its value is: random, and the same again for the same seed. Not for secrets.

/// The exponent of the Zipf distribution, as YCSB has it: the most popular of 10,000 keys gets a tenth of all requests.
const THETA: f64 = 0.99;

/// `SplitMix64`: short, fast, and even enough for a load.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Random(u64);

impl Random {
    /// A stream of its own for each pair of numbers.
    pub(in crate::cli) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed);
        random.0 = random.bits() ^ stream;
        random.0 = random.bits();
        random
    }

    /// 64 random bits.
    pub(in crate::cli) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(in crate::cli) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1, without 1.
    pub(in crate::cli) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How popular the keys are.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// All alike.
    Uniform(u64),
    /// The first of them most, by Zipf's law.
    Zipf(Zipf),
}

impl Keys {
    pub(super) fn zipf(count: u64) -> Self {
        Self::Zipf(Zipf::new(count, THETA))
    }

    /// The number of a key, from 0.
    pub(super) fn next(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform(count) => random.below(*count),
            Self::Zipf(zipf) => zipf.next(random) - 1,
        }
    }
}

/// The Zipf distribution over 1 to `count`, where k has a probability in proportion to k to the power of -theta. By
/// rejection-inversion: W. Hörmann, G. Derflinger: Rejection-inversion to generate variates from monotone discrete
/// distributions, ACM TOMACS 6 (1996). It needs no table, and less than 1.1 tries on average.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    count: f64,
    theta: f64,
    /// The ends of the interval whose inversion gives the variates.
    low: f64,
    high: f64,
    /// So far to the left of an integer nothing has to be rejected.
    sure: f64,
}

impl Zipf {
    pub(super) fn new(count: u64, theta: f64) -> Self {
        let mut zipf = Self {
            count: count as f64,
            theta,
            low: 0.0,
            high: 0.0,
            sure: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    #[expect(clippy::cast_sign_loss, reason = "it is clamped to what is at least 1")]
    pub(super) fn next(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.high + random.fraction() * (self.low - self.high);
            let at = self.inverse(area);
            let k = at.round().clamp(1.0, self.count);
            if k - at <= self.sure || area >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.theta)
    }

    /// An antiderivative of the weight.
    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.theta) - 1.0) / (1.0 - self.theta)
    }

    fn inverse(&self, y: f64) -> f64 {
        (1.0 + y * (1.0 - self.theta)).powf(1.0 / (1.0 - self.theta))
    }
}

/// The values: views of one run of random bytes, so that writing one costs the client nothing. A key has the same value
/// throughout, and compression finds nothing in it.
#[derive(Debug)]
pub(super) struct Values {
    bytes: Vec<u8>,
    size: usize,
    seed: u64,
}

/// So many places a value may begin at.
const PLACES: u64 = 1 << 16;

impl Values {
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, u64::MAX);
        let len = size + PLACES as usize;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&random.bits().to_le_bytes());
        }
        Self { bytes, size, seed }
    }

    pub(super) fn of(&self, key: u64) -> &[u8] {
        let at = Random::new(self.seed, key).below(PLACES) as usize;
        &self.bytes[at..at + self.size]
    }
}

/// The name of a key: always as long, so that all requests are.
pub(super) fn name(key: u64) -> [u8; 16] {
    let mut name = *b"bench:0000000000";
    let mut rest = key;
    for digit in name[6..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of 1 to `count` comes in `tries`.
    fn counted(count: u64, tries: u64, mut next: impl FnMut() -> u64) -> Vec<f64> {
        let mut counts = vec![0.0; count as usize];
        for _ in 0..tries {
            counts[next() as usize] += 1.0;
        }
        counts
    }

    #[test]
    fn zipf_is_as_its_law_says() {
        let tries = 400_000;
        for theta in [0.5, THETA, 1.5] {
            for count in [1, 2, 3, 10, 1000] {
                let zipf = Zipf::new(count, theta);
                let mut random = Random::new(1, 2);
                let counts = counted(count, tries, || zipf.next(&mut random) - 1);
                let weight = |k: u64| (k as f64).powf(-theta);
                let sum: f64 = (1..=count).map(weight).sum();
                for (k, found) in (1..).zip(counts) {
                    let p = weight(k) / sum;
                    let expected = tries as f64 * p;
                    // Six standard deviations, and a seed that stays: this fails only if the law is another.
                    let tolerance = 6.0 * (expected * (1.0 - p)).sqrt() + 1.0;
                    assert!(
                        (found - expected).abs() < tolerance,
                        "theta {theta}, {k} of {count}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn zipf_stays_within_large_ranges() {
        let zipf = Zipf::new(10_000_000_000, THETA);
        let mut random = Random::new(3, 4);
        for _ in 0..100_000 {
            assert!((1..=10_000_000_000).contains(&zipf.next(&mut random)));
        }
    }

    #[test]
    fn uniform_is_even() {
        let keys = Keys::Uniform(10);
        let mut random = Random::new(5, 6);
        let counts = counted(10, 100_000, || keys.next(&mut random));
        assert!(
            counts.iter().all(|found| (found - 10_000.0).abs() < 600.0),
            "{counts:?}"
        );
    }

    #[test]
    fn a_seed_gives_the_same_again() {
        let (a, b) = (Values::new(100, 7), Values::new(100, 7));
        assert_eq!(a.of(3), b.of(3));
        assert_ne!(a.of(3), a.of(4));
        assert_ne!(a.of(3), Values::new(100, 8).of(3));
        assert_eq!(Values::new(0, 7).of(3), b"");
        assert_ne!(Random::new(1, 0).bits(), Random::new(1, 1).bits());
    }

    #[test]
    fn names() {
        assert_eq!(&name(0), b"bench:0000000000");
        assert_eq!(&name(9_999_999_999), b"bench:9999999999");
    }
}
