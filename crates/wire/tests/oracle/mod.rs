//! What must hold for any bytes that come in by the Redis protocol, or from another node, as functions that panic where it does not. The tests of
//! this crate and the targets of `fuzz/` call the same ones, so that what fuzzing found is tested wherever `cargo test` runs.
//! They know no expected output: they compare readers of one stream with each other, and with the rules of the protocol.

pub(crate) mod keys;
pub(crate) mod peer;
pub(crate) mod replies;
pub(crate) mod requests;

/// Before the stream: two bytes of the place to cut at, one of options.
const HEAD_BYTES: usize = 3;
/// The option of narrow limits, so that a short stream exceeds them.
const NARROW: u8 = 1;
/// Options from here on stretch the stream. Not one bit of its own, as stretched streams take their time.
const STRETCHED: u8 = 224;

/// A test case as bytes: how a stream arrives, and the stream.
struct Case {
    stream: Vec<u8>,
    /// Up to here it comes first, then the rest.
    cut: usize,
    is_narrow: bool,
}

impl Case {
    /// Reads one. To `stretch` is to repeat the byte before the cut so many times, as lines that are too long would
    /// otherwise make a corpus too large. It is not done to the end of a line: thousands of empty ones only take time.
    fn parse(input: &[u8], stretch: usize) -> Option<Self> {
        let (&[low, high, options], stream) = input.split_first_chunk::<HEAD_BYTES>()?;
        let cut = usize::from(u16::from_le_bytes([low, high])) % (stream.len() + 1);
        let mut stream = stream.to_vec();
        let repeated = stream[..cut].last().copied();
        if let Some(repeated) = repeated.filter(|&byte| options >= STRETCHED && byte != b'\n') {
            stream.splice(cut..cut, std::iter::repeat_n(repeated, stretch));
        }
        Some(Self {
            stream,
            cut,
            is_narrow: options & NARROW != 0,
        })
    }
}
