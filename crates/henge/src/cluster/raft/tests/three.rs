//! Three of them, and more: they begin, lose each other, come back, and are the same.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_cluster::agreed::{Outcome, Rejected};
use henge_cluster::forming::ClusterId;
use henge_cluster::ring::NodeId;

use super::super::recover::{RecoverError, Recovery};
use super::super::types::Compaction;
use super::super::{Consensus, ConsensusError, ProposeError, Recovered, prepare};
use super::wires::{Cluster, DEADLINE, until};
use super::*;

/// Has a command agreed on by whoever leads: on a slow machine that may have become another.
async fn agree(cluster: &Cluster, command: Command) -> Outcome {
    loop {
        match cluster.leader().await.propose(command.clone()).await {
            Ok(agreed) => return agreed.expect("it is not rejected"),
            Err(ProposeError::NotLeader(_) | ProposeError::Lost) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A cluster of three that vote.
async fn three() -> Cluster {
    of_three(Compaction::default()).await
}

async fn of_three(compaction: Compaction) -> Cluster {
    let mut cluster = Cluster::new(compaction);
    let first = cluster.start(1).await;
    assert!(!first.has_begun().await.expect("it runs"));
    first.begin(address(1)).await.expect("it is the first");
    let again = first.begin(address(1)).await;
    assert_eq!(again, Err(ConsensusError::HasBegun));
    assert!(first.is_leader() && first.has_begun().await.expect("it runs"));
    assert_eq!(agree(&cluster, form()).await, Outcome::Formed);
    let started = agree(&cluster, start(1, 1)).await;
    assert_eq!(started, Outcome::Started(NodeId(1)));
    for id in [2, 3] {
        let node = cluster.start(id).await;
        let added = first.add_learner(id, address(id)).await;
        added.expect("it leads");
        agree(&cluster, start(id, 1)).await;
        until(&node, |agreed| agreed.of_instance(id).is_some()).await;
        assert!(first.learners().contains(&id));
        let alone = node.propose(set("k", "v")).await;
        assert_eq!(alone, Err(ProposeError::NotLeader(Some(1))));
    }
    promote(&first, &[1, 2, 3]).await;
    assert_eq!(cluster.leader().await.instance(), 1);
    cluster
}

async fn promote(leader: &Consensus, voters: &[u64]) {
    let voters: BTreeSet<u64> = voters.iter().copied().collect();
    let missing: BTreeSet<u64> = voters.difference(&leader.voters()).copied().collect();
    let ready = async {
        let mut leaders = leader.leaders();
        while !missing.is_subset(&leader.ready_learners()) {
            let _ = tokio::time::timeout(Duration::from_millis(20), leaders.changed()).await;
        }
    };
    tokio::time::timeout(DEADLINE, ready)
        .await
        .expect("they have copied");
    let set = leader.set_voters(voters.clone(), &BTreeSet::new()).await;
    set.expect("it leads");
    assert_eq!(leader.voters(), voters);
    assert!(!leader.is_changing());
}

fn has(name: &str, value: &str) -> impl Fn(&henge_cluster::agreed::Agreed) -> bool {
    move |agreed| {
        agreed
            .settings()
            .get(name)
            .is_some_and(|s| s.value == value)
    }
}

#[tokio::test]
async fn what_one_agrees_on_all_know() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    agree(&cluster, set("k", "v")).await;
    for node in cluster.nodes.values() {
        until(node, has("k", "v")).await;
    }
    let rejected = leader.propose(form()).await.expect("it leads");
    assert_eq!(rejected, Err(Rejected::AlreadyFormed));
    let long = leader.propose(set("k", &"x".repeat(600 << 10))).await;
    assert_eq!(long, Err(ProposeError::TooLong));
    for id in [1, 2, 3] {
        cluster.stop(id).await;
    }
}

#[tokio::test]
async fn who_is_lost_has_a_successor_and_comes_back() {
    let mut cluster = three().await;
    cluster.stop(1).await;
    let leader = cluster.leader().await;
    assert_ne!(leader.instance(), 1);
    agree(&cluster, set("k", "v")).await;
    let back = cluster.start(1).await;
    // It knew the cluster before it heard anybody.
    assert_eq!(back.watch().borrow().cluster(), Some(ClusterId(7)));
    until(&back, has("k", "v")).await;
    assert_eq!(cluster.leader().await.instance(), leader.instance());
}

#[tokio::test]
async fn all_stop_at_once_and_find_the_same() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    agree(&cluster, set("k", "v")).await;
    let agreed = leader.watch().borrow().clone();
    for id in [1, 2, 3] {
        cluster.stop(id).await;
    }
    drop(leader);
    for id in [3, 1, 2] {
        let node = cluster.start(id).await;
        assert!(node.has_begun().await.expect("it runs"));
    }
    agree(&cluster, set("l", "w")).await;
    for node in cluster.nodes.values() {
        until(node, has("l", "w")).await;
        let now = node.watch().borrow().clone();
        assert_eq!(now.members(), agreed.members());
        assert_eq!(now.topology(), agreed.topology());
        assert_eq!(now.settings()["k"].value, "v");
        assert_eq!(node.voters(), BTreeSet::from([1, 2, 3]));
    }
}

#[tokio::test]
async fn a_minority_says_what_it_cannot_do() {
    let cluster = three().await;
    let old = cluster.leader().await;
    cluster.cut(old.instance(), true);
    let new = cluster.leader().await;
    assert_ne!(new.instance(), old.instance());
    agree(&cluster, set("k", "new")).await;
    // By then it has heard no majority for longer than a lease.
    let mut leaders = old.leaders();
    while old.leader().is_some() {
        let changed = tokio::time::timeout(DEADLINE, leaders.changed()).await;
        changed.expect("in time").expect("it runs");
    }
    let refused = old.propose(set("k", "old")).await;
    assert_eq!(refused, Err(ProposeError::NotLeader(None)));
    cluster.cut(old.instance(), false);
    until(&old, has("k", "new")).await;
    agree(&cluster, set("k", "again")).await;
    until(&old, has("k", "again")).await;
}

#[tokio::test]
async fn a_learner_knows_when_its_leader_is_silent() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    let learner = cluster.start(4).await;
    leader.add_learner(4, address(4)).await.expect("it leads");
    agree(&cluster, set("k", "v")).await;
    until(&learner, has("k", "v")).await;
    assert_eq!(learner.leader(), Some(leader.instance()));
    cluster.cut(4, true);
    let mut leaders = learner.leaders();
    let silent = tokio::time::timeout(DEADLINE, leaders.changed()).await;
    assert_eq!(silent.expect("in time"), Ok(None));
}

#[tokio::test]
async fn who_is_far_behind_gets_a_snapshot() {
    let mut cluster = of_three(Compaction { snapshot_every: 20 }).await;
    let leader = cluster.leader().await;
    cluster.stop(3).await;
    for number in 0..100 {
        agree(&cluster, set("k", &number.to_string())).await;
    }
    let before = cluster.snapshots();
    let late = cluster.start(3).await;
    until(&late, has("k", "99")).await;
    assert!(cluster.snapshots() > before, "it was sent one");
    // And so does one that has nothing.
    let learner = cluster.start(4).await;
    leader.add_learner(4, address(4)).await.expect("it leads");
    until(&learner, has("k", "99")).await;
    agree(&cluster, set("k", "100")).await;
    for node in cluster.nodes.values() {
        until(node, has("k", "100")).await;
    }
    // What it was sent is on its disk.
    cluster.stop(4).await;
    let learner = cluster.start(4).await;
    assert!(learner.watch().borrow().settings().contains_key("k"));
    assert_eq!(learner.watch().borrow().members().len(), 3);
}

#[tokio::test]
async fn voters_are_replaced_and_forgotten() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    let none = BTreeSet::new();
    let unknown = leader.set_voters(BTreeSet::from([1, 2, 9]), &none);
    assert_eq!(unknown.await, Err(ProposeError::UnknownLearner(9)));
    let nobody = leader.set_voters(BTreeSet::new(), &none);
    assert_eq!(nobody.await, Err(ProposeError::NoVoters));
    cluster.start(4).await;
    leader.add_learner(4, address(4)).await.expect("it leads");
    cluster.stop(3).await;
    promote(&leader, &[1, 2, 4]).await;
    assert_eq!(leader.learners(), BTreeSet::from([3]));
    let forget = BTreeSet::from([3]);
    let done = leader.set_voters(BTreeSet::from([1, 2, 4]), &forget).await;
    done.expect("it leads");
    assert_eq!(leader.learners(), BTreeSet::new());
    // And again, where there is nothing left to do.
    let done = leader.set_voters(BTreeSet::from([1, 2, 4]), &forget).await;
    done.expect("it leads");
    cluster.stop(2).await;
    agree(&cluster, set("k", "v")).await;
}

#[tokio::test]
async fn who_campaigns_leads_when_the_leader_is_gone() {
    let mut cluster = three().await;
    cluster.stop(1).await;
    cluster.nodes[&2].campaign().await;
    agree(&cluster, set("k", "v")).await;
}

/// It has forgotten what a leader is told, and another start of it is told nothing in the same term.
#[tokio::test]
async fn who_led_does_not_lead_when_it_starts_again() {
    let mut cluster = three().await;
    let before = cluster.leader().await.term();
    for id in [2, 3, 1] {
        cluster.stop(id).await;
    }
    for id in [1, 2, 3] {
        cluster.start(id).await;
    }
    let term = cluster.leader().await.term();
    assert!(term > before, "{term} after {before}");
}

#[tokio::test]
async fn who_may_not_lead_has_a_successor() {
    let cluster = three().await;
    let leader = cluster.leader().await;
    leader.set_may_lead(false).await;
    leader.campaign().await;
    while cluster.leader().await.instance() == leader.instance() {}
    agree(&cluster, set("k", "v")).await;
}

/// What the leader has agreed on after it said that it ends is not lost by that.
#[tokio::test]
async fn who_succeeds_a_leader_waits_for_its_end() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    let next = cluster.nodes[&2].clone();
    let succeeds = tokio::spawn({
        let next = next.clone();
        async move { next.succeed(1).await }
    });
    agree(&cluster, set("k", "v")).await;
    drop(leader);
    cluster.stop(1).await;
    let ended = tokio::time::timeout(DEADLINE, succeeds).await;
    ended.expect("it is soon over").expect("it does not panic");
    agree(&cluster, set("k", "w")).await;
    until(&next, has("k", "w")).await;
    // One that leads no more has a successor already.
    next.succeed(1).await;
}

#[tokio::test]
async fn who_has_stopped_leads_nobody() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    cluster.stop(1).await;
    assert!(!leader.is_leader() && leader.leader().is_none());
    let refused = leader.propose(set("k", "v")).await;
    assert_eq!(refused, Err(ProposeError::NotLeader(None)));
}

#[tokio::test]
async fn one_survivor_begins_another_cluster() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    agree(&cluster, set("k", "v")).await;
    until(&cluster.nodes[&2], has("k", "v")).await;
    drop(leader);
    for id in [1, 2, 3] {
        cluster.stop(id).await;
    }
    let nobody = Directory::new();
    let recover = |directory: &std::path::Path, cluster| {
        prepare(directory, cluster).and_then(Recovery::carry_out)
    };
    let refused = recover(nobody.path(), ClusterId(8));
    assert_eq!(refused, Err(RecoverError::NoCluster));
    let same = recover(cluster.directory(2).path(), ClusterId(7));
    let already = RecoverError::Rejected(Rejected::AlreadyFormed);
    assert_eq!(same, Err(already));
    let recovered = recover(cluster.directory(2).path(), ClusterId(8));
    let recovered: Recovered = recovered.expect("it was in one");
    assert_eq!(
        (recovered.survivor, recovered.before),
        (NodeId(2), ClusterId(7))
    );
    let lost: Vec<u64> = recovered
        .lost
        .iter()
        .map(|member| member.instance)
        .collect();
    assert_eq!(lost, [1, 3]);
    let survivor = cluster.start(2).await;
    let leader = cluster.leader().await;
    assert_eq!(leader.instance(), 2);
    let agreed = survivor.watch().borrow().clone();
    assert_eq!(agreed.cluster(), Some(ClusterId(8)));
    assert_eq!(agreed.members().len(), 1);
    assert_eq!(agreed.settings()["k"].value, "v");
    assert_eq!(survivor.voters(), BTreeSet::from([2]));
    agree(&cluster, start(2, 2)).await;
    // Another takes the place of one that was lost.
    let joiner = cluster.start(13).await;
    survivor
        .add_learner(13, address(13))
        .await
        .expect("it leads");
    let mut command = start(13, 2);
    if let Command::Start { who, .. } = &mut command {
        who.name = name(3);
    }
    assert_eq!(agree(&cluster, command).await, Outcome::Started(NodeId(3)));
    until(&joiner, |agreed| agreed.of_instance(13).is_some()).await;
}
