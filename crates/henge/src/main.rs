//! The one binary: hands the command line to the library, and says which allocator there is.

use std::process::ExitCode;

use henge::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How jemalloc behaves, which it reads from this symbol: freed pages go back to the system at once, so that what the system
/// sees is what is charged; large blocks are not offset by a page each; and no huge pages are asked for, nor taken
/// where the system gives them unasked, as a value comes with more memory in them than is charged.
#[expect(
    unsafe_code,
    reason = "the name of a symbol is a promise to the linker"
)]
// SAFETY: only jemalloc defines and reads this name, as a weak pointer to a string that ends in 0, for settings like these.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; 66] =
    b"cache_oblivious:false,dirty_decay_ms:0,muzzy_decay_ms:0,thp:never\0";

fn main() -> ExitCode {
    henge::cli::run(henge::cli::serve)
}
