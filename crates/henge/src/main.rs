//! The one binary: hands the command line to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    henge::cli::run(|_config, _sources| ExitCode::SUCCESS)
}
