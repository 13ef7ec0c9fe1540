//! Compression of values, and the cheap guess whether it is worth it. Takes bytes and gives bytes: it does not decide
//! where a value lives, keeps no figures (whoever counts is told why a value stayed raw), and never trusts a length that
//! it was not given.

use henge_wire::Encoding;
use libdeflater::{CompressionLvl, Compressor as Gzip, Decompressor as Gunzip};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use std::fmt;
use std::ops::RangeInclusive;
use zstd::bulk::{Compressor as Zstd, Decompressor as Unzstd};
use zstd::zstd_safe::CParameter;

/// What a value must shrink by to be kept compressed: a sixteenth. Below that, a few bytes saved are paid for by
/// decompressing on every read.
const LEAST_SAVING_DIVISOR: usize = 16;

/// Bytes that the guess looks at. One page is enough for a byte histogram to be within 0.05 bits of the truth, and
/// takes 2 to 3 us, against milliseconds for gzip on the values that are large enough to hurt.
const SAMPLE_BYTES: usize = 4096;

/// Pieces that the sample is made of. A head alone would judge a file by its header; eight pieces also see the middle of
/// a value whose halves differ. Fewer bytes than these 512 in a piece would hide the repeats that text has.
const SAMPLE_PIECES: usize = 8;

/// A value below this entropy (bits a byte) is worth a try even when the sample repeats nothing: it is the entropy at
/// which a perfect byte coder would just save the least saving. Base64 has 6.
const WORTHWHILE_ENTROPY_BITS: f32 = 8.0 - 8.0 / LEAST_SAVING_DIVISOR as f32;

/// The output buffer that a compressor keeps between values, in bytes. Larger ones are rare and given back at once:
/// there is a compressor for each thread.
const KEPT_SCRATCH_BYTES: usize = 256 * 1024;

/// The zstd state that a compressor keeps between values, in bytes. Levels up to 8 take less; the others take more,
/// and only while they work.
const KEPT_ZSTD_BYTES: usize = 8 * 1024 * 1024;

/// The largest window of zstd, as a power of two: 2 MiB, what levels 3 to 8 have anyway. Higher levels would take up to
/// 8 MiB, and search tables in proportion (90 MiB for each thread), for values that seldom repeat so far away.
const ZSTD_WINDOW_LOG: u32 = 21;

/// A way to compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RFC 1952. The one that HTTP clients take as it is stored.
    Gzip,
    /// RFC 8878. Smaller and faster than gzip.
    Zstd,
    /// An LZ4 block. The fastest, and the largest.
    Lz4,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Lz4];

    /// The name in configuration and metrics.
    pub const fn name(self) -> &'static str {
        self.encoding().name()
    }

    /// The encoding of what it makes.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Gzip => Encoding::Gzip,
            Self::Zstd => Encoding::Zstd,
            Self::Lz4 => Encoding::Lz4,
        }
    }

    /// The levels that it knows, from fast to small. None for LZ4, which has only one and takes any.
    ///
    /// While it compresses a large value, zstd takes 0.6 MiB at level 1, 3 MiB at level 6 and 34 MiB at level 19 for each
    /// thread, beside the value; gzip 9 MiB at levels 10 to 12, and below 1 MiB at the others.
    pub const fn levels(self) -> Option<RangeInclusive<u8>> {
        match self {
            Self::Gzip => Some(1..=12),
            // 20 and above only widen the window, which is bounded here.
            Self::Zstd => Some(1..=19),
            Self::Lz4 => None,
        }
    }
}

/// What to compress, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// None keeps every value raw.
    pub algorithm: Option<Algorithm>,
    /// Values shorter than this many bytes stay raw.
    pub threshold_bytes: usize,
    /// One of the algorithm's levels.
    pub level: u8,
}

/// A level that the algorithm does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownLevel {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The level that was asked for.
    pub level: u8,
    /// The levels that there are.
    pub known: RangeInclusive<u8>,
}

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.known.start(), self.known.end());
        let name = self.algorithm.name();
        write!(f, "{name} has levels {first} to {last}, not {}", self.level)
    }
}

impl std::error::Error for UnknownLevel {}

/// Why a value stays raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// Compression is switched off.
    Off,
    /// It is shorter than the threshold.
    BelowThreshold,
    /// A sample of it neither repeats itself nor prefers some bytes to others. Nothing else of it was looked at.
    LooksIncompressible,
    /// It was compressed, and a sixteenth was not to be had.
    DidNotShrink,
}

impl Skipped {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::BelowThreshold => "below_threshold",
            Self::LooksIncompressible => "looks_incompressible",
            Self::DidNotShrink => "did_not_shrink",
        }
    }
}

/// Compresses values, one after another. Keeps the tables of its algorithm and an output buffer between them, so each thread
/// has its own.
pub struct Compressor {
    settings: Settings,
    /// Made for the first value that needs it: many threads never compress.
    state: Option<State>,
    /// LZ4 is the quick look at every sample too, whatever the algorithm.
    lz4: CompressTable,
    scratch: Vec<u8>,
}

enum State {
    Gzip(Gzip),
    Zstd(Zstd<'static>),
    Lz4,
}

impl Compressor {
    /// A compressor that has allocated next to nothing yet.
    ///
    /// # Errors
    /// The algorithm does not have this level.
    pub fn new(settings: Settings) -> Result<Self, UnknownLevel> {
        if let Some(algorithm) = settings.algorithm
            && let Some(known) = algorithm.levels()
            && !known.contains(&settings.level)
        {
            return Err(UnknownLevel {
                algorithm,
                level: settings.level,
                known,
            });
        }
        Ok(Self {
            settings,
            state: None,
            lz4: CompressTable::small(),
            scratch: Vec::new(),
        })
    }

    /// What it was made with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The encoding of what `compress` returns; raw when compression is off.
    pub fn encoding(&self) -> Encoding {
        self.settings
            .algorithm
            .map_or(Encoding::Raw, Algorithm::encoding)
    }

    /// The value compressed, in a `Vec` without spare capacity, at least a sixteenth shorter than it was.
    ///
    /// # Errors
    /// Why it is to stay as it is.
    pub fn compress(&mut self, raw: &[u8]) -> Result<Vec<u8>, Skipped> {
        let Settings {
            algorithm,
            threshold_bytes,
            level,
        } = self.settings;
        let algorithm = algorithm.ok_or(Skipped::Off)?;
        if raw.len() < threshold_bytes {
            return Err(Skipped::BelowThreshold);
        }
        if raw.len() > SAMPLE_BYTES && !looks_compressible(raw, &mut self.lz4) {
            return Err(Skipped::LooksIncompressible);
        }

        // Gzip and zstd give up as soon as the buffer is full, so the buffer is what they may use. LZ4 insists on room
        // for the worst case.
        let most = raw.len() - raw.len().div_ceil(LEAST_SAVING_DIVISOR);
        let room = match algorithm {
            Algorithm::Lz4 => get_maximum_output_size(raw.len()),
            Algorithm::Gzip | Algorithm::Zstd => most,
        };
        if self.scratch.len() < room {
            // A new buffer rather than a longer one: the old content is worth no copy, and fresh zeroes come from
            // the system for nothing.
            self.scratch = vec![0; room];
        }
        let out = &mut self.scratch[..room];
        let state = self
            .state
            .get_or_insert_with(|| State::new(algorithm, level));
        let written = match state {
            State::Gzip(gzip) => gzip.gzip_compress(raw, out).ok(),
            State::Zstd(zstd) => zstd.compress_to_buffer(raw, out).ok(),
            State::Lz4 => compress_into_with_table(raw, out, &mut self.lz4).ok(),
        };
        let packed = written
            .filter(|&len| len <= most)
            .map(|len| self.scratch[..len].to_vec());

        if self.scratch.len() > KEPT_SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        if let Some(State::Zstd(zstd)) = &mut self.state
            && zstd.context_mut().sizeof() > KEPT_ZSTD_BYTES
        {
            self.state = None;
        }
        packed.ok_or(Skipped::DidNotShrink)
    }
}

impl State {
    fn new(algorithm: Algorithm, level: u8) -> Self {
        match algorithm {
            Algorithm::Gzip => {
                let level = CompressionLvl::new(i32::from(level));
                Self::Gzip(Gzip::new(level.expect("checked against levels()")))
            }
            Algorithm::Zstd => {
                let mut zstd = Zstd::new(i32::from(level)).expect("checked against levels()");
                zstd.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))
                    .expect("zstd has windows of 2^10 to 2^31 on every machine");
                Self::Zstd(zstd)
            }
            Algorithm::Lz4 => Self::Lz4,
        }
    }
}

/// Whether a sample of a value (longer than the sample) promises that the whole would shrink.
///
/// Two signs, and either is enough. **Bytes that are not equally frequent** promise an entropy coder something even when
/// nothing repeats, as in base64 or packed numbers. **Repeats in the sample**, found by LZ4, promise something even when
/// all bytes are equally frequent, as in one random block over and over: the pieces are cut from different
/// phases of the period, and together are longer than it. What has neither, but repeats itself at a distance longer than the
/// sample, is missed: it then costs memory, never correctness.
fn looks_compressible(raw: &[u8], lz4: &mut CompressTable) -> bool {
    const PIECE: usize = SAMPLE_BYTES / SAMPLE_PIECES;
    let mut sample = [0; SAMPLE_BYTES];
    for (i, piece) in sample.chunks_exact_mut(PIECE).enumerate() {
        // The first piece begins with the value and the last one ends with it; they meet only if the value is no longer
        // than the sample. (In 64 bits: 7 x 4 GiB.)
        let start = (raw.len() - PIECE) as u64 * i as u64 / (SAMPLE_PIECES - 1) as u64;
        piece.copy_from_slice(&raw[start as usize..][..PIECE]);
    }
    if entropy_bits(&sample) < WORTHWHILE_ENTROPY_BITS {
        return true;
    }
    let mut packed = [0; get_maximum_output_size(SAMPLE_BYTES)];
    let most = SAMPLE_BYTES - SAMPLE_BYTES / LEAST_SAVING_DIVISOR;
    compress_into_with_table(&sample, &mut packed, lz4).is_ok_and(|len| len <= most)
}

/// Shannon's entropy of the bytes taken one by one, in bits a byte.
fn entropy_bits(bytes: &[u8]) -> f32 {
    let mut counts = [0_u32; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as f32;
    let sum: f32 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| count as f32 * (count as f32).log2())
        .sum();
    total.log2() - sum / total
}

/// Stored bytes that do not decode to what the record says: our memory was corrupted, or a bug of ours. No request can
/// cause it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorruptValue {
    /// How the value claims to be encoded.
    pub encoding: Encoding,
    /// The bytes that were stored.
    pub stored_len: usize,
    /// The bytes that they should have decoded to.
    pub raw_len: u32,
}

impl fmt::Display for CorruptValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, stored, raw) = (self.encoding.name(), self.stored_len, self.raw_len);
        write!(
            f,
            "a stored value is corrupt: {stored} bytes of {name} do not decode to {raw} bytes"
        )
    }
}

impl std::error::Error for CorruptValue {}

/// Decompresses values of any encoding, one after another. Keeps the tables of each algorithm that it met (32 KiB for
/// gzip, 160 KiB for zstd), so each thread has its own.
#[derive(Default)]
pub struct Decompressor {
    gunzip: Option<Gunzip>,
    unzstd: Option<Unzstd<'static>>,
}

impl Decompressor {
    /// A decompressor that has allocated nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what is in `out` by the decoded value: exactly `raw_len` bytes. Takes no more memory than that, whatever
    /// `data` says about itself.
    ///
    /// # Errors
    /// `data` is no such encoding of `raw_len` bytes. `out` is empty then.
    pub fn decompress(
        &mut self,
        encoding: Encoding,
        data: &[u8],
        raw_len: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), CorruptValue> {
        let len = raw_len as usize;
        out.clear();
        let written = if encoding == Encoding::Raw {
            if data.len() == len {
                out.extend_from_slice(data);
            }
            Some(data.len())
        } else {
            if out.capacity() < len {
                // Zeroes from the allocator cost nothing for large values; resizing would write them.
                *out = vec![0; len];
            } else {
                out.resize(len, 0);
            }
            self.decode(encoding, data, out)
        };
        if written == Some(len) {
            return Ok(());
        }
        out.clear();
        Err(CorruptValue {
            encoding,
            stored_len: data.len(),
            raw_len,
        })
    }

    /// Decodes into all of `out`; the number of bytes written, or None if `data` is broken or longer than that.
    fn decode(&mut self, encoding: Encoding, data: &[u8], out: &mut [u8]) -> Option<usize> {
        match encoding {
            Encoding::Raw => unreachable!("copied by the caller"),
            Encoding::Gzip => {
                let gunzip = self.gunzip.get_or_insert_with(Gunzip::new);
                gunzip.gzip_decompress(data, out).ok()
            }
            Encoding::Zstd => {
                let unzstd = self.unzstd.get_or_insert_with(|| {
                    Unzstd::new().expect("an empty dictionary is never refused")
                });
                unzstd.decompress_to_buffer(data, out).ok()
            }
            Encoding::Lz4 => lz4_flex::block::decompress_into(data, out).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: usize = 1024;

    fn compressor(algorithm: Algorithm, level: u8) -> Compressor {
        Compressor::new(Settings {
            algorithm: Some(algorithm),
            threshold_bytes: KIB,
            level,
        })
        .expect("the tests ask for known levels")
    }

    /// Every algorithm at every level.
    fn every_setting() -> Vec<(Algorithm, u8)> {
        let levels = |algorithm: Algorithm| algorithm.levels().unwrap_or(1..=1);
        Algorithm::ALL
            .into_iter()
            .flat_map(|algorithm| levels(algorithm).map(move |level| (algorithm, level)))
            .collect()
    }

    /// `SplitMix64`.
    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn base64(len: usize, seed: u64) -> Vec<u8> {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        random(len, seed)
            .iter()
            .map(|byte| LETTERS[usize::from(byte % 64)])
            .collect()
    }

    fn json(len: usize) -> Vec<u8> {
        let mut text = b"[".to_vec();
        for id in 0_u64.. {
            if text.len() >= len {
                break;
            }
            let name = id * 7919 % 1000;
            text.extend(
                format!(r#"{{"id":{id},"name":"user {name}","active":true}},"#).into_bytes(),
            );
        }
        text.truncate(len);
        text
    }

    fn round_trip(compressor: &mut Compressor, raw: &[u8]) -> Result<usize, Skipped> {
        let packed = compressor.compress(raw)?;
        assert_eq!(packed.capacity(), packed.len());
        assert!(packed.len() <= raw.len() - raw.len() / LEAST_SAVING_DIVISOR);
        let mut out = Vec::new();
        Decompressor::new()
            .decompress(compressor.encoding(), &packed, raw.len() as u32, &mut out)
            .expect("what was compressed decompresses");
        assert_eq!(out, raw);
        Ok(packed.len())
    }

    #[test]
    fn each_kind_of_value_is_compressed_or_left_for_the_right_reason() {
        let repeated = |period: usize, len: usize| random(period, 5).repeat(len / period + 1);
        let half_random = [random(32 * KIB, 1), vec![b' '; 32 * KIB]].concat();
        let random_head = [random(8 * KIB, 1), json(56 * KIB)].concat();
        let mostly_random = [random(1024 * KIB, 1), json(8 * KIB)].concat();
        let guessed = Some(Skipped::LooksIncompressible);
        #[rustfmt::skip]
        let table = [
            ("short",                  json(1023),                  Some(Skipped::BelowThreshold), Some(Skipped::BelowThreshold)),
            ("at the threshold",       json(1024),                  None,                          None),
            ("JSON",                   json(100 * KIB),             None,                          None),
            // LZ4 has no entropy coder, so base64 is worth the try and comes to nothing.
            ("base64",                 base64(64 * KIB, 3),         None,                          Some(Skipped::DidNotShrink)),
            ("repeats of 1 KiB",       repeated(KIB, 64 * KIB),     None,                          None),
            ("repeats of 1 KiB, long", repeated(KIB, 1024 * KIB),   None,                          None),
            ("repeats of 3000 B",      repeated(3000, 200 * KIB),   None,                          None),
            ("half random",            half_random,                 None,                          None),
            ("random head",            random_head,                 None,                          None),
            ("zeroes",                 vec![0; 1024 * KIB],         None,                          None),
            ("small and random",       random(2 * KIB, 1),          Some(Skipped::DidNotShrink),   Some(Skipped::DidNotShrink)),
            ("random, 5 KiB",          random(5 * KIB, 1),          guessed,                       guessed),
            ("random, 64 KiB",         random(64 * KIB, 1),         guessed,                       guessed),
            ("random, 1 MiB",          random(1024 * KIB, 1),       guessed,                       guessed),
            ("random but for the end", mostly_random,               guessed,                       guessed),
        ];
        for (name, raw, coded, lz4) in table {
            for (algorithm, expected) in [
                (Algorithm::Gzip, coded),
                (Algorithm::Zstd, coded),
                (Algorithm::Lz4, lz4),
            ] {
                let result = round_trip(&mut compressor(algorithm, 6), &raw);
                assert_eq!(result.err(), expected, "{name} by {algorithm:?}");
            }
        }
    }

    #[test]
    fn random_bytes_are_never_worth_a_try_and_short_periods_always_are() {
        let mut lz4 = CompressTable::small();
        for seed in 0..200 {
            let len = SAMPLE_BYTES + 1 + seed as usize * 1000;
            assert!(!looks_compressible(&random(len, seed), &mut lz4));
        }
        for period in (16..=3 * KIB).step_by(61) {
            for len in [SAMPLE_BYTES + 1, 20_000, 65_536, 1_000_003] {
                let raw = random(period, 9).repeat(len / period + 1);
                assert!(
                    looks_compressible(&raw[..len], &mut lz4),
                    "period {period}, length {len}"
                );
            }
        }
    }

    #[test]
    fn every_level_round_trips_and_the_compressor_can_be_used_again() {
        let values = [
            json(1100),
            json(70 * KIB),
            vec![7; KIB],
            base64(300 * KIB, 2),
        ];
        for (algorithm, level) in every_setting() {
            let mut compressor = compressor(algorithm, level);
            for raw in values.iter().chain(values.iter().rev()) {
                let result = round_trip(&mut compressor, raw);
                let futile = algorithm == Algorithm::Lz4 && raw.len() == 300 * KIB;
                assert_eq!(
                    result.err(),
                    futile.then_some(Skipped::DidNotShrink),
                    "{algorithm:?} at {level}"
                );
                // A failure in between leaves nothing behind.
                assert_eq!(
                    compressor.compress(&random(3 * KIB, 4)),
                    Err(Skipped::DidNotShrink)
                );
            }
        }
    }

    #[test]
    fn large_values_leave_little_behind() {
        let raw = json(4 << 20);
        for (algorithm, level) in [(Algorithm::Zstd, 12), (Algorithm::Gzip, 1)] {
            let mut compressor = compressor(algorithm, level);
            round_trip(&mut compressor, &raw).expect("JSON shrinks");
            assert!(compressor.scratch.len() <= KEPT_SCRATCH_BYTES);
            if let Some(State::Zstd(zstd)) = &mut compressor.state {
                assert!(zstd.context_mut().sizeof() <= KEPT_ZSTD_BYTES);
            }
        }
    }

    #[test]
    fn levels_outside_the_range_are_refused_with_the_range() {
        let settings = |algorithm, level| Settings {
            algorithm: Some(algorithm),
            threshold_bytes: 0,
            level,
        };
        for (algorithm, level, message) in [
            (Algorithm::Gzip, 0, "gzip has levels 1 to 12, not 0"),
            (Algorithm::Gzip, 13, "gzip has levels 1 to 12, not 13"),
            (Algorithm::Zstd, 0, "zstd has levels 1 to 19, not 0"),
            (Algorithm::Zstd, 20, "zstd has levels 1 to 19, not 20"),
        ] {
            let error = Compressor::new(settings(algorithm, level)).err();
            assert_eq!(error.map(|e| e.to_string()).as_deref(), Some(message));
        }
        assert!(Compressor::new(settings(Algorithm::Lz4, 200)).is_ok());
    }

    #[test]
    fn off_is_off_and_an_empty_value_stays_raw() {
        let mut off = Compressor::new(Settings {
            algorithm: None,
            threshold_bytes: 0,
            level: 0,
        })
        .expect("no algorithm has no levels");
        assert_eq!(off.compress(&[0; 9000]), Err(Skipped::Off));
        assert_eq!(off.encoding(), Encoding::Raw);

        for algorithm in Algorithm::ALL {
            let mut on = Compressor::new(Settings {
                algorithm: Some(algorithm),
                threshold_bytes: 0,
                level: 6,
            })
            .expect("all have level 6");
            assert_eq!(on.compress(&[]), Err(Skipped::DidNotShrink));
            assert_eq!(on.compress(&[1]), Err(Skipped::DidNotShrink));
        }
    }

    #[test]
    fn raw_values_are_copied_if_the_length_is_right() {
        let mut out = vec![9; 3];
        let mut decompressor = Decompressor::new();
        assert_eq!(
            decompressor.decompress(Encoding::Raw, b"abcd", 4, &mut out),
            Ok(())
        );
        assert_eq!(out, b"abcd");
        for wrong in [0, 3, 5, u32::MAX] {
            let error = decompressor.decompress(Encoding::Raw, b"abcd", wrong, &mut out);
            assert_eq!(error.map_err(|e| e.raw_len), Err(wrong));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_bomb_stops_at_the_stored_length() {
        let raw = vec![0; 8 << 20];
        for algorithm in Algorithm::ALL {
            let packed = compressor(algorithm, 6)
                .compress(&raw)
                .expect("zeroes shrink");
            let mut out = Vec::new();
            let result =
                Decompressor::new().decompress(algorithm.encoding(), &packed, 1000, &mut out);
            assert!(result.is_err());
            assert!(out.is_empty() && out.capacity() <= 1000);
        }
    }

    /// Values with some structure: runs, repeats and noise in any order.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (any::<u8>(), 1..3000_usize).prop_map(|(byte, len)| vec![byte; len]),
            (any::<u64>(), 1..3000_usize).prop_map(|(seed, len)| random(len, seed)),
            (1..3000_usize).prop_map(json),
            (any::<u64>(), 1..300_usize, 1..30_usize)
                .prop_map(|(seed, len, times)| random(len, seed).repeat(times)),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_value_round_trips(raw in value(), setting in prop::sample::select(every_setting())) {
            let mut compressor = compressor(setting.0, setting.1);
            let _ = round_trip(&mut compressor, &raw);
        }

        #[test]
        fn damage_is_an_error_or_at_least_the_right_length(
            raw in value(),
            algorithm in prop::sample::select(&Algorithm::ALL),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            raw_len in prop::option::of(0..30_000_u32),
        ) {
            let Ok(mut data) = compressor(algorithm, 6).compress(&raw) else {
                return Ok(());
            };
            for (place, byte) in damage {
                let place = place.index(data.len());
                data[place] = byte;
            }
            if let Some(cut) = cut {
                data.truncate(cut.index(data.len()));
            }
            let raw_len = raw_len.unwrap_or(raw.len() as u32);
            check_bounded(algorithm.encoding(), &data, raw_len)?;
        }

        #[test]
        fn noise_is_never_more_than_the_right_length(
            data in prop::collection::vec(any::<u8>(), 0..500),
            encoding in prop::sample::select(&Encoding::ALL),
            raw_len in 0..5000_u32,
        ) {
            check_bounded(encoding, &data, raw_len)?;
        }
    }

    fn check_bounded(encoding: Encoding, data: &[u8], raw_len: u32) -> Result<(), TestCaseError> {
        let mut out = Vec::new();
        let result = Decompressor::new().decompress(encoding, data, raw_len, &mut out);
        let expected = if result.is_ok() { raw_len as usize } else { 0 };
        prop_assert_eq!(out.len(), expected);
        prop_assert!(out.capacity() <= raw_len as usize);
        Ok(())
    }
}
