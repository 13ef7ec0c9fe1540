//! The slot and the partition of a key: CRC16 over the key or its hash tag, as the Redis Cluster specification has it.
//! This is wire format: a change here moves every key of every cluster.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How many slots there are, by the Redis Cluster specification.
pub const SLOTS: u16 = 16_384;

/// How many partitions a cluster has. 1,024 place evenly on hundreds of nodes, and one of them is small enough to move in
/// a second.
pub const PARTITIONS: u16 = 1_024;

/// A slot: `CRC16(key or {hashtag}) mod 16384`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key. If the key holds a `{`, and a `}` after it with something between, only that something counts,
    /// so that related keys can share a slot.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(Self::hash_tag(key).unwrap_or(key)) % SLOTS)
    }

    /// The part of a key that alone decides its slot; none if all of it does.
    #[inline]
    pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
        let open = find_brace(key)?;
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&b| b == b'}')?;
        (close > 0).then(|| &rest[..close])
    }

    /// The slot's number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The partition that holds the slot.
    #[inline]
    pub const fn partition(self) -> Partition {
        Partition(self.0 / (SLOTS / PARTITIONS))
    }
}

/// A fixed run of slots: what a cluster places, orders and replicates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Partition(u16);

impl Partition {
    /// The partition with this number, if there is one.
    pub const fn new(number: u16) -> Option<Self> {
        if number < PARTITIONS {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The partition of a key.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        Slot::of(key).partition()
    }

    /// All partitions, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// The partition's number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl From<Partition> for u16 {
    fn from(partition: Partition) -> Self {
        partition.number()
    }
}

impl TryFrom<u16> for Partition {
    type Error = NoPartition;

    fn try_from(number: u16) -> Result<Self, NoPartition> {
        Self::new(number).ok_or(NoPartition(number))
    }
}

/// A number that no partition has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoPartition(pub u16);

impl fmt::Display for NoPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no partition {}", self.0)
    }
}

impl std::error::Error for NoPartition {}

/// The place of the first `{`. Most keys have none, and that is seen eight bytes at a time.
#[inline]
fn find_brace(key: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut chunks = key.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        // A byte is 0 where there is one, and only then does a borrow reach the top bit of a byte that had none.
        let differ =
            chunk.first_chunk().map_or(0, |c| u64::from_le_bytes(*c)) ^ (EACH * u64::from(b'{'));
        let zeros = differ.wrapping_sub(EACH) & !differ & (EACH * 0x80);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let mut rest = chunks.remainder().iter();
    rest.position(|&b| b == b'{').map(|place| at + place)
}

/// CRC-16/XMODEM (polynomial 0x1021, initial value 0), eight bytes a step: every request pays for this, and a key may be
/// 64 KiB long.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(c[0] ^ high)]
            ^ TABLES[6][usize::from(c[1] ^ low)]
            ^ TABLES[5][usize::from(c[2])]
            ^ TABLES[4][usize::from(c[3])]
            ^ TABLES[3][usize::from(c[4])]
            ^ TABLES[2][usize::from(c[5])]
            ^ TABLES[1][usize::from(c[6])]
            ^ TABLES[0][usize::from(c[7])];
    }
    for &b in chunks.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ b)];
    }
    crc
}

/// `TABLES[n][b]` is the CRC of the byte `b` followed by `n` zero bytes.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        byte = 0;
        while byte < 256 {
            let before = tables[n - 1][byte];
            tables[n][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_matches_the_specification_and_the_plain_loop() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        for n in 0..bytes.len() {
            let plain = bytes[..n].iter().fold(0u16, |crc, &b| {
                (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ b)]
            });
            assert_eq!(crc16(&bytes[..n]), plain, "{n} bytes");
        }
    }

    #[test]
    fn the_first_brace_is_found() {
        for len in 0..40 {
            let mut key: Vec<u8> = (0..len).map(|n| b'z' + (n % 2) as u8 * 2).collect();
            assert_eq!(find_brace(&key), None, "{len}");
            for place in (0..len).rev() {
                key[place] = b'{';
                assert_eq!(find_brace(&key), Some(place), "{len} {place}");
            }
        }
    }

    /// Golden: these placements may never change.
    #[test]
    fn slots_and_hash_tags() {
        for (key, slot) in [
            ("", 0),
            ("foo", 12_182),
            ("user:1000", 1_649),
            ("{user1000}.following", 3_443),
            ("{user1000}.followers", 3_443),
            ("user1000", 3_443),
            ("foo{}{bar}", 8_363),
            ("foo{{bar}}zap", 4_015),
            ("foo{bar}{zap}", 5_061),
            ("bar", 5_061),
        ] {
            assert_eq!(Slot::of(key.as_bytes()).number(), slot, "{key}");
        }
        assert_eq!(Partition::of(b"foo").number(), 12_182 / 16);
    }
}
