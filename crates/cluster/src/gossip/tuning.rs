//! How often and how long: what the times of gossip are, and how they follow the size of the cluster. Nobody sets them, as they
//! hold only together: a pause of 300 ms must be harmless, and a machine that is silent must be found in about 2 s.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

/// Each member asks another one by chance, and the next one, whether it lives. An answer that comes before the next turn is in time, so one that
/// waits for a process that is paused for 300 ms is, with 200 ms to spare for a machine that has much to do.
pub(super) const PROBE_MS: u64 = 500;
/// When others are asked to ask as well: far more than a round trip in a data centre, and what is left is enough for theirs.
const DIRECT_MS: u64 = 150;
/// So many others are. With three, and one of 30 datagrams lost, one probe of ten thousand ends in a suspicion.
pub(super) const HELPERS: usize = 3;
/// A suspicion lasts so long, and whoever has it asks every [`CHECK_MS`] in the meantime, itself and by others. So it takes four
/// questions in a row that nobody got through, and a silent machine is down 1.4 to 2 s after its last word.
pub(super) const SUSPICION_MS: u64 = 900;
/// The same after a refused connection, which says already that no process is there: only what the system's answer may be wrong
/// about (a filter on the way, a port that is not open yet) has to come out.
pub(super) const REFUSED_MS: u64 = 700;
/// Whoever hears of a suspicion and not of its end within this time, which is enough for the longest one and for the word of its
/// end to be everywhere, has missed that, and looks itself.
pub(super) const LASTING_MS: u64 = 2 * SUSPICION_MS;
/// Many connections are refused at once, or again and again by a filter between two that live. One that is refuted costs some
/// datagrams, so there is no next one for so long.
pub(super) const REFUSED_AGAIN_MS: u64 = 500;
/// See [`SUSPICION_MS`]: four to a suspicion, and more than a round trip by way of others.
pub(super) const CHECK_MS: u64 = 225;
/// What is new travels in steps of this, to [`FANOUT`] members each: in a cluster of 200 it is everywhere after five or six.
const GOSSIP_MS: u64 = 200;
/// See [`GOSSIP_MS`].
const FANOUT: usize = 3;
/// Members ask each other for members so often, which finds what was lost on all other ways. A list is one full datagram, so
/// this is 130 bytes a second.
const LISTS_MS: u64 = 10_000;
/// How often those are called who are not there, and those who are new ask for members.
pub(super) const CALL_MS: u64 = 250;
/// Who is new, or came back, asks for members for so long, in each turn one member for each [`LIST_MEMBERS`] of them: twenty
/// lists of a random quarter miss one of 200 with a probability of 1 in 300, and there are more of them.
pub(super) const YOUNG_MS: u64 = 5_000;
/// Where many are new together nobody's list is whole yet, so each goes on for half of that after the last one that it hears of,
/// up to this time.
pub(super) const GROWING_MS: u64 = 30_000;
/// As many members are in one list.
pub(super) const LIST_MEMBERS: usize = 50;
/// No more lists in a turn: 42 kB a second, for some seconds.
pub(super) const LISTS_AT_ONCE: usize = 8;
/// Of those that it has not heard since it came back, a member calls so many at a time, and each so often.
pub(super) const CALLS_AT_ONCE: usize = 8;
/// See [`CALLS_AT_ONCE`].
pub(super) const QUICK_CALLS: u8 = 4;
/// Calls to those who are down are one in so many turns of [`CALL_MS`]: with each member calling one a second, one that is back
/// hears of it within a second, from whomever.
pub(super) const SLOW_TURNS: u64 = 4;
/// An address that it was told of is tried for a minute, once a second; whoever knows that it is needed says it again.
pub(super) const TRIES: u32 = 60;
/// So many of those are kept: more than members that a cluster has.
pub(super) const ADDRESSES_MAX: usize = 512;
/// Who was declared down hears of others anew. Of whom it has not heard after this time it takes what all would say by then.
pub(super) const UNHEARD_MS: u64 = 5_000;
/// It does so at most this often: a process that lost its instance to a newer start would otherwise do so with every answer.
pub(super) const RETURN_MS: u64 = 300;
/// Who has been down for an hour is forgotten; it has been out of the ring for long, and comes back by calling.
pub(super) const FORGET_MS: u64 = 3_600_000;
/// Members that are kept, down ones included. A cluster of this size is not made for this gossip.
pub(super) const MEMBERS_MAX: usize = 4_096;
/// Without the seal's 54 bytes, and with them and UDP over IPv6 in a tunnel of 80 bytes still no more than 1,500: a datagram in
/// fragments is lost with any of them.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1_300;
/// A time that is so late is the process's own fault, which was paused: what it waited for may lie in its socket.
pub(super) const LATE_MS: u64 = 100;
/// It is read for so long at the least before anything is due again: many times what a full socket takes.
pub(super) const READING_MS: u64 = 20;

/// Loads of a small cluster are renewed so often.
const LOAD_MS: u64 = 2_000;
/// In a larger one no more of them a second, of all members: each member hears all of them, so their number is what its bytes
/// grow with.
const LOADS_PER_S: u64 = 8;

/// How often a member says its load.
pub(super) fn load_ms(members: usize) -> u64 {
    LOAD_MS.max(members as u64 * 1_000 / LOADS_PER_S)
}

/// What all of these are to the library. What is known is told on by each member ten times in a cluster of 200 (the logarithm to
/// the base of 2 and three), so that one in 20,000 does not hear of it; it finds that out by itself.
pub(super) fn config(members: usize) -> Config {
    let times = members.saturating_add(1).ilog2() + 3;
    let times = u8::try_from(times).unwrap_or(u8::MAX);
    let often = |ms, count| {
        Some(PeriodicParams {
            frequency: Duration::from_millis(ms),
            num_members: NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN),
        })
    };
    Config {
        probe_period: Duration::from_millis(PROBE_MS),
        probe_rtt: Duration::from_millis(DIRECT_MS),
        num_indirect_probes: NonZeroUsize::new(HELPERS).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: NonZeroU8::new(times).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_millis(SUSPICION_MS),
        // Members are forgotten by the machine above, which knows when they are.
        remove_down_after: None,
        max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX).unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: often(LISTS_MS, 1),
        // The library calls nobody when it has nobody left, and then it matters most.
        periodic_announce_to_down_members: None,
        periodic_gossip: often(GOSSIP_MS, FANOUT),
    }
}
