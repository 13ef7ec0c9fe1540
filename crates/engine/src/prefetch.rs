//! A hint to the processor that memory will be read soon. It changes nothing but the time that the read takes, and the one
//! unsafe block of this crate is here: stable Rust has no safe name for the instruction.

/// Asks for the cache line that holds this value, on processors that can be asked.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "there is no safe name for this instruction")]
        // SAFETY: the instruction reads nothing that the program can see and cannot fault, whatever the address is; this
        // one comes from a reference, so it is even valid.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = value;
    }
}
