//! `henge restore`: what is shown while a directory is made of a backup, and after it. The making is `disk/restore.rs`.

use std::path::Path;

use super::{Failure, Output, bar, moment};
use crate::cli::simulate::grouped;
use crate::config::shown;
use crate::disk::restore::restore;
use crate::encryption::Encryption;

pub(super) fn run(
    file: &Path,
    directory: &Path,
    encryption: &Encryption,
    out: &mut Output,
) -> Result<(), Failure> {
    let bar = bar(
        "restoring [{bar:40}] {bytes} of {total_bytes}, {msg}, {eta} left",
        0,
    );
    let restored = restore(file, directory, encryption, &mut |read, of, records| {
        bar.set_length(of);
        bar.set_position(read);
        bar.set_message(format!("{} records", grouped(records)));
    });
    bar.finish_and_clear();
    let restored = restored.map_err(|error| {
        if error.is_damage() {
            Failure::damaged(format!("{error}; nothing was restored"))
        } else {
            Failure::failed(error)
        }
    })?;
    let made = match restored.at_ms {
        0 => String::new(),
        at_ms => format!(" of {}", moment(at_ms)),
    };
    out.line(format_args!(
        "restored {} records{made} into {}: {} bytes",
        grouped(restored.records),
        shown(directory),
        grouped(restored.bytes)
    ));
    Ok(())
}
