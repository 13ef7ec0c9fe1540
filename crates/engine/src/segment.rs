//! The unit in which a shard takes memory, for records as for tables: 64 KiB, aligned to as much. By that layout an
//! allocator can tell it from all else, and put it where it likes; the engine asks for nothing of that kind otherwise.

/// Bytes in a segment. Evacuating one is the longest step under a lock: 64 KiB is some hundred microseconds in the worst case of
/// tiny records.
pub const SEGMENT_BYTES: usize = 64 * 1024;

/// A segment of something that fills it.
#[repr(C, align(65536))]
pub(crate) struct Segment<T>(pub(crate) T);

impl<T: Copy> Segment<T> {
    /// One with a copy of this in it.
    pub(crate) fn boxed(content: &T) -> Box<Self> {
        const {
            assert!(size_of::<Self>() == SEGMENT_BYTES && align_of::<Self>() == SEGMENT_BYTES);
        }
        Box::new(Self(*content))
    }
}
