//! `henge cluster recover`: what making a new cluster of one survivor loses, what was done, and what to do next, in words. Doing
//! it is `cluster/raft/recover.rs`.

use std::path::Path;

use henge_cluster::forming::ClusterId;
use henge_wire::PARTITIONS;

use super::{Failure, Output};
use crate::cli::simulate::grouped;
use crate::cluster::raft::{Recovered, prepare};
use crate::config::shown;
use crate::disk::directory::Directory;
use crate::encryption::random_number;

pub(super) fn run(directory: &Path, force: bool, out: &mut Output) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("{}: {error}", shown(directory)));
    // Held to the end: no node may start on it meanwhile.
    let (_lock, _) = Directory::borrow(directory.to_owned()).map_err(Failure::failed)?;
    let cluster = ClusterId(u128::from(random_number()) << 64 | u128::from(random_number()));
    let recovery = prepare(directory, cluster).map_err(failed)?;
    describe(&recovery.recovered, out);
    if !force {
        out.line("If others are only out of reach there are two clusters afterwards, which refuse each other.");
        out.line("Nothing was changed.");
        return Err(Failure {
            line: format!("{}: --force was not given", shown(directory)),
            exit_code: super::EXIT_DAMAGED,
        });
    }
    let Recovered { name, .. } = recovery.carry_out().map_err(failed)?;
    out.line(format_args!(
        "{name} is the cluster {cluster} now, by itself. Start it as before; whatever --peers says."
    ));
    out.line(format_args!(
        "To come back, each other node starts with an empty directory and --peers naming {name}."
    ));
    Ok(())
}

/// Says what was, and what is lost of it.
fn describe(recovered: &Recovered, out: &mut Output) {
    let Recovered {
        name,
        before,
        lost,
        partitions,
        ..
    } = recovered;
    let all = usize::from(PARTITIONS);
    out.line(format_args!(
        "{name} has {} of the {} partitions of the cluster {before}. A cluster of it alone is without",
        grouped(*partitions as u64),
        grouped(all as u64),
    ));
    let others = grouped((all - partitions) as u64);
    out.line(format_args!("  the keys of the other {others} partitions"));
    for member in lost {
        out.line(format_args!("  {} at {}", member.name, member.address));
    }
}
