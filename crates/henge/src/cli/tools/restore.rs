//! `henge restore`: what is shown while a directory is made of a backup, and after it. The making is `disk/restore.rs`; a running
//! cluster is loaded in `cluster.rs`.

mod batches;
mod cluster;

use std::path::Path;

use super::{Failure, Output, bar};
use crate::calendar;
use crate::cli::simulate::grouped;
use crate::config::shown;
use crate::disk::restore::{RestoreError, restore};
use crate::encryption::Encryption;

pub(super) use cluster::{Order, run as into_cluster};

pub(super) fn into_directory(
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
    let restored = restored.map_err(unread)?;
    let made = match restored.at_ms {
        0 => String::new(),
        at_ms => format!(" of {}", calendar::text(at_ms)),
    };
    out.line(format_args!(
        "restored {} records{made} into {}: {} bytes",
        grouped(restored.records),
        shown(directory),
        grouped(restored.bytes)
    ));
    Ok(())
}

/// Nothing was restored, as the file cannot be read to its end.
fn unread(error: RestoreError) -> Failure {
    if error.is_damage() {
        Failure::damaged(format!("{error}; nothing was restored"))
    } else {
        Failure::failed(error)
    }
}
