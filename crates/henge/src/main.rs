//! The one binary: hands the command line to the library, and says which allocator there is.

use std::process::ExitCode;

use henge::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    henge::cli::run(henge::cli::serve)
}
