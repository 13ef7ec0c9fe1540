//! What the allocator says, and the one place that knows which allocator it is. A library cannot choose it for the
//! program that it is linked into, so everything here holds whether `Allocator` is in use or not: it is found out by
//! asking, once, and what is not known is `None`.
//!
//! It is jemalloc, because the limit has to be the limit: with 256 MiB allowed and 4 GiB of mixed sizes written, it held
//! 250 MiB resident where mimalloc held 308 to 343, and it can say what it holds. How it is set is in `main.rs`.

use std::hint::black_box;
use std::sync::OnceLock;
use tikv_jemalloc_ctl::{epoch, stats, thread};

/// The allocator of the `henge` binary: `#[global_allocator] static ALLOCATOR: Allocator = Allocator;`.
pub use tikv_jemallocator::Jemalloc as Allocator;

/// Allocations up to this are rounded to a multiple of it.
const QUANTUM: usize = 16;
/// Size classes between two powers of two.
const CLASSES_PER_DOUBLING: u32 = 4;

/// Whether `Allocator` is this program's global allocator: whether it counts what this program allocates.
pub fn in_use() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(counter) = thread::allocatedp::read() else {
            return false;
        };
        let before = counter.get();
        drop(black_box(Box::new([0_u8; 4096])));
        counter.get() > before
    })
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
    Some(Figures {
        allocated_bytes: stats::allocated::read().ok()? as u64,
        active_bytes: stats::active::read().ok()? as u64,
        resident_bytes: stats::resident::read().ok()? as u64,
        retained_bytes: stats::retained::read().ok()? as u64,
    })
}

/// Asks the system for small pages only, for this whole process and all that it starts. With huge pages, values of 70 to
/// 600 KB took up to a fifth more than their rounded size, as each page came with 2 MiB: the limit would not be the limit.
/// For a `main` to call first; a library has no business to. Elsewhere than on Linux there is nothing to do.
///
/// # Errors
/// What the system says; the node can run without, with more memory than it charges.
pub fn forbid_huge_pages() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true)?;
    Ok(())
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
