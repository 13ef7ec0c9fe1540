//! Changes of what all nodes agree on that a route asks for: by whichever node leads, and told in the same words by all routes.

use henge_cluster::agreed::{Command, Outcome, Rejected};

use super::problem::{Code, Problem};
use crate::cluster::Cluster;
use crate::cluster::control::Changed;
use crate::cluster::view::Standing;

/// Has a change agreed on. Where nobody knows whether it is, `unknown` says what may be so and where to look.
///
/// # Errors
/// The node is in no cluster, nobody can agree on anything now, or it is not known what came of it.
pub(super) async fn change(
    cluster: &Cluster,
    command: Command,
    unknown: &str,
) -> Result<Result<Outcome, Rejected>, Problem> {
    let view = cluster.view.load_full();
    if view.standing != Standing::Inside {
        let detail = format!("{}; nothing was done", view.why_nowhere());
        return Err(Problem::new(Code::NotInCluster, detail));
    }
    match cluster.change(command).await {
        Changed::Done(outcome) => Ok(Ok(outcome)),
        Changed::Rejected(rejected) => Ok(Err(rejected)),
        Changed::NotNow(why) => Err(Problem::new(
            Code::NoControlLeader,
            format!("{why}; nothing was done"),
        )),
        Changed::Unknown(why) => Err(Problem::new(
            Code::OutcomeUnknown,
            format!("{why}: {unknown}"),
        )),
    }
}
