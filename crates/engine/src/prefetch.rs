//! Hints to the processor that memory will be read soon. They change nothing but the time that the read takes, and the one
//! unsafe block of this crate is here: stable Rust has no safe name for the instruction.
//!
//! A hint is made in two steps, where to look and then to look. The places are found under locks, and a lock waits until
//! all hints before it have been translated to physical addresses; given one after the other without a lock between, they
//! are translated side by side. Measured, that was a quarter of what a GET in a pipeline cost.

/// A place in memory that will be read soon, or none. It keeps nothing alive: what was there may be gone.
#[derive(Clone, Copy, Debug)]
pub struct Line(usize);

impl Line {
    /// Nowhere.
    pub const NONE: Self = Self(0);

    /// Where this value begins.
    #[inline]
    pub fn of<T>(value: &T) -> Self {
        Self(std::ptr::from_ref(value).addr())
    }

    /// The next cache line.
    #[inline]
    #[must_use]
    pub fn next(self) -> Self {
        /// Of the processors of today; on one with longer lines the second hint is for nothing.
        const CACHE_LINE_BYTES: usize = 64;
        if self.0 == 0 {
            self
        } else {
            Self(self.0.wrapping_add(CACHE_LINE_BYTES))
        }
    }

    /// Asks for the cache line, on processors that can be asked.
    #[inline]
    pub fn prefetch(self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            #[expect(unsafe_code, reason = "there is no safe name for this instruction")]
            // SAFETY: the instruction reads nothing that the program can see and cannot fault, whatever the address is.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(self.0));
            }
        }
    }
}
