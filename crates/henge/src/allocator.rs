//! What the allocator says, and the one place that knows which allocator it is. A library cannot choose it for the
//! program that it is linked into, so everything here holds whether `Allocator` is in use or not: it is found out by
//! asking, once, and what is not known is `None`.

#![expect(
    unsafe_code,
    reason = "mimalloc's figures have no safe interface; every block here only asks or hints"
)]

use std::hint::black_box;
use std::sync::OnceLock;

/// The allocator of the `henge` binary: `#[global_allocator] static ALLOCATOR: Allocator = Allocator;`.
pub use mimalloc::MiMalloc as Allocator;

/// Whether `Allocator` is this program's global allocator.
pub fn in_use() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // The box must not be optimised away, so it is shown to nobody in particular.
        let probe = black_box(Box::new(0_u64));
        let address: *const u64 = &raw const *probe;
        // SAFETY: the function looks the address up in mimalloc's page map and never reads through it; any address will do.
        unsafe { libmimalloc_sys::mi_is_in_heap_region(address.cast()) }
    })
}

/// The bytes that an allocation of `bytes` takes: its size class, or whole pages. With another allocator, what most of them
/// take: a word of header each, in steps of 16 bytes, or whole pages from 128 KiB on.
pub fn rounded_size(bytes: usize) -> usize {
    const PAGE: usize = 4096;
    const MAPPED_ALONE: usize = 128 * 1024;
    if in_use() {
        // SAFETY: arithmetic on its argument.
        return unsafe { libmimalloc_sys::mi_good_size(bytes) };
    }
    let with_header = bytes.saturating_add(8);
    let step = if bytes < MAPPED_ALONE { 16 } else { PAGE };
    with_header.checked_next_multiple_of(step).unwrap_or(bytes)
}

/// The bytes that the allocator holds from the system as readable and writable memory. None when another one is in
/// use.
///
/// This is the most that it ever held at a time: what `give_back` returns to the system stays counted, although the
/// resident size shrinks. A release build of mimalloc does not count live bytes.
pub fn committed_bytes() -> Option<u64> {
    if !in_use() {
        return None;
    }
    let none = std::ptr::null_mut();
    let mut committed = 0;
    // SAFETY: every argument may be null, and is only written if it is not; `committed` outlives the call.
    unsafe {
        libmimalloc_sys::mi_process_info(
            none,
            none,
            none,
            none,
            none,
            &raw mut committed,
            none,
            none,
        );
    }
    Some(committed as u64)
}

/// Gives free pages back to the system: those of the calling thread, and those that no thread owns. Each data
/// thread has to call it for its own. Takes milliseconds when much is free. Nothing happens when another allocator is in use.
pub fn give_back() {
    if in_use() {
        // SAFETY: callable from any thread at any time; it frees only what holds no allocation.
        unsafe { libmimalloc_sys::mi_collect(true) }
    }
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

    // The tests of the library run on the system's allocator; `tests/allocator.rs` runs on ours.

    #[test]
    fn another_allocator_is_noticed_and_nothing_is_claimed_about_it() {
        assert!(!in_use());
        assert_eq!(committed_bytes(), None);
        give_back();
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
}
