//! What the allocator says, and the one place that knows which allocator it is. A library cannot choose it for the
//! program that it is linked into, so everything here holds whether `Allocator` is in use or not: it is found out by
//! asking, once, and what is not known is `None`.
//!
//! It is jemalloc, because the limit has to be the limit: with 256 MiB allowed and 4 GiB of mixed sizes written, it held
//! 250 MiB resident where mimalloc held 308 to 343, and it can say what it holds. How it is set is in `main.rs`. Segments of
//! the shards, which it can tell from all else by their layout, lie in huge pages (`regions.rs`) and all else in small ones:
//! with huge pages, values of 70 to 600 KB took up to a fifth more than their rounded size, and the limit would not be the limit.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::OnceLock;
use std::{io, ptr, thread};

use henge_engine::SEGMENT_BYTES;
use tikv_jemalloc_ctl::{epoch, stats, thread as allocating};
use tikv_jemallocator::Jemalloc;

#[cfg(target_os = "linux")]
mod regions;

/// Elsewhere nobody can ask for huge pages, and segments come from where all else comes from.
#[cfg(not(target_os = "linux"))]
mod regions {
    pub(super) const HAS: bool = false;

    pub(super) fn take() -> *mut u8 {
        std::ptr::null_mut()
    }

    pub(super) fn give_back(_: *mut u8) {}

    pub(super) fn keep_spare() {}

    pub(super) fn figures() -> (u64, u64) {
        (0, 0)
    }
}

/// The allocator of the `henge` binary: `#[global_allocator] static ALLOCATOR: Allocator = Allocator;`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// How the engine asks for a segment, and nobody else for anything.
const SEGMENT: Layout = match Layout::from_size_align(SEGMENT_BYTES, SEGMENT_BYTES) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// Whether this is for `regions.rs`.
#[inline]
fn is_segment(layout: Layout) -> bool {
    regions::HAS && layout == SEGMENT
}

#[expect(unsafe_code, reason = "the trait of allocators is unsafe")]
// SAFETY: each call goes to the allocator that its layout names, and a layout always names the same one; each of the two
// gives memory that is apart from all else it gave, of the layout's size and alignment. What would be a panic aborts, as an allocator must not unwind.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_segment(layout) {
            return regions::take();
        }
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_segment(layout) {
            let segment = regions::take();
            if !segment.is_null() {
                // SAFETY: it was just taken, and is so large.
                unsafe { ptr::write_bytes(segment, 0, layout.size()) };
            }
            return segment;
        }
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_segment(layout) {
            // SAFETY: a segment came from `regions`, and as the caller promises.
            return unsafe { regions::give_back(memory) };
        }
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The engine makes no segment larger or smaller; this is for whoever else has such an alignment.
        if regions::HAS && layout.align() == SEGMENT.align() {
            // SAFETY: the caller promises that the new size is none that overflows when it is rounded to the alignment.
            let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            // SAFETY: the caller promises that the new size is not 0, and that the old memory is of its layout; the new is of
            // its own and apart from it.
            unsafe {
                let new_memory = self.alloc(new_layout);
                if !new_memory.is_null() {
                    ptr::copy_nonoverlapping(memory, new_memory, layout.size().min(new_size));
                    self.dealloc(memory, layout);
                }
                return new_memory;
            }
        }
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.realloc(memory, layout, new_size) }
    }
}

/// Allocations up to this are rounded to a multiple of it.
const QUANTUM: usize = 16;
/// Size classes between two powers of two.
const CLASSES_PER_DOUBLING: u32 = 4;

/// Whether `Allocator` is this program's global allocator: whether it counts what this program allocates.
pub fn in_use() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(counter) = allocating::allocatedp::read() else {
            return false;
        };
        let before = counter.get();
        drop(black_box(Box::new([0_u8; 4096])));
        counter.get() > before
    })
}

/// From now on what a growing cache needs next is asked of the system before it is needed, by a thread of its own, where `Allocator` is
/// this program's.
pub fn keep_spare() -> io::Result<()> {
    if in_use() && regions::HAS {
        let thread = thread::Builder::new().name("henge-memory".to_owned());
        thread.spawn(regions::keep_spare)?;
    }
    Ok(())
}

/// The bytes that an allocation of `bytes` takes: its size class. With another allocator, what most of them take: a
/// word of header each, in steps of 16 bytes, or whole pages from 128 KiB on.
pub fn rounded_size(bytes: usize) -> usize {
    const PAGE: usize = 4096;
    const MAPPED_ALONE: usize = 128 * 1024;
    if in_use() {
        return size_class(bytes);
    }
    let with_header = bytes.saturating_add(8);
    let step = if bytes < MAPPED_ALONE { 16 } else { PAGE };
    with_header.checked_next_multiple_of(step).unwrap_or(bytes)
}

/// jemalloc's size classes, by its manual: multiples of the quantum, then four to a doubling.
fn size_class(bytes: usize) -> usize {
    if bytes <= QUANTUM {
        return QUANTUM;
    }
    let doubling = usize::BITS - 1 - (bytes - 1).leading_zeros();
    let step = (1_usize << doubling >> CLASSES_PER_DOUBLING.ilog2()).max(QUANTUM);
    bytes.checked_next_multiple_of(step).unwrap_or(bytes)
}

/// What the allocator says of this process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Live allocations, as it rounds them.
    pub allocated_bytes: u64,
    /// Pages that hold live allocations.
    pub active_bytes: u64,
    /// Pages that it holds in memory, its own records included.
    pub resident_bytes: u64,
    /// Address space that it keeps without memory behind it.
    pub retained_bytes: u64,
}

/// Asks the allocator. None when another one is in use.
pub fn figures() -> Option<Figures> {
    if !in_use() {
        return None;
    }
    // The figures are those of the last epoch.
    epoch::advance().ok()?;
    let (segment_bytes, region_bytes) = regions::figures();
    Some(Figures {
        allocated_bytes: segment_bytes + stats::allocated::read().ok()? as u64,
        active_bytes: segment_bytes + stats::active::read().ok()? as u64,
        resident_bytes: region_bytes + stats::resident::read().ok()? as u64,
        retained_bytes: stats::retained::read().ok()? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tests of the library run on the system's allocator. That ours counts what it should is seen in `/stats` of the
    // binary, by `cargo xtask bench churn`.

    #[test]
    fn another_allocator_is_noticed_and_nothing_is_claimed_about_it() {
        assert!(!in_use());
        assert_eq!(figures(), None);
    }

    #[test]
    fn another_allocator_rounds_as_most_do() {
        for (bytes, expected) in [
            (0, 16),
            (1, 16),
            (8, 16),
            (9, 32),
            (1000, 1008),
            (1 << 20, (1 << 20) + 4096),
            (usize::MAX, usize::MAX),
        ] {
            assert_eq!(rounded_size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn size_classes_are_those_of_the_manual() {
        for (bytes, class) in [
            (0, 16),
            (16, 16),
            (17, 32),
            (100, 112),
            (129, 160),
            (1000, 1024),
            (1025, 1280),
            (14_337, 16_384),
            (65_536, 65_536),
            (65_537, 81_920),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + (256 << 10)),
        ] {
            assert_eq!(size_class(bytes), class, "{bytes}");
        }
    }
}
