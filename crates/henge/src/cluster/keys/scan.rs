//! A scan over the keys of all members, one after the other: whose turn it is, which the cursor's partition says, and a page of
//! this node's. A page is bounded in keys, in bytes and in steps, so it may be short or empty while its cursor goes on.

use std::sync::Arc;

use bytes::Bytes;
use henge_wire::Partition;
use henge_wire::peer::keys::{Page, Scan};

use super::Elsewhere;
use crate::cache::ScanCursor;
use crate::cluster::link::Service;
use crate::cluster::link::asking::AskError;
use crate::cluster::routing::Routes;
use crate::cluster::view::{Member, View};
use crate::metrics::counters::add;
use crate::net::data_thread::Local;

/// The most bytes of keys on a page: a thousand keys of 1 KiB. A thousand of the longest would be 64 MiB, and six times that
/// with the escapes of JSON. Only the keys of a single place of the table may make it more, as no cursor stands between them.
const PAGE_BYTES: usize = 1 << 20;
/// Steps of the scan for one page. A prefix that few keys have would otherwise make a page read the whole cache.
const STEPS: usize = 64;

/// The member whose turn it is, and from where on; none if no member has anything.
pub(crate) fn turn(view: &View, cursor: ScanCursor) -> Option<(&Arc<Member>, ScanCursor)> {
    if let Some(partition) = cursor.partition() {
        return Some((view.holder(partition)?, cursor));
    }
    // It begins with the first member that has something.
    let (first, _, member) = view.runs().into_iter().next()?;
    Some((member, ScanCursor::beginning_of(first)))
}

/// Where a scan goes on when a member has answered this cursor.
pub(crate) fn next(view: &View, asked: &Member, cursor: ScanCursor) -> ScanCursor {
    let Some(partition) = cursor.partition() else {
        return next_member(view, asked);
    };
    let is_its = |member: &Arc<Member>| member.id == asked.id;
    if view.holder(partition).is_some_and(is_its) {
        return cursor;
    }
    // Between two of its partitions are those of others, where it has nothing.
    let runs = view.runs();
    let mut later = runs.iter().filter(|(first, ..)| *first > partition);
    later.find(|(.., member)| is_its(member)).map_or_else(
        || next_member(view, asked),
        |(first, ..)| ScanCursor::beginning_of(*first),
    )
}

fn next_member(view: &View, done: &Member) -> ScanCursor {
    let runs = view.runs();
    // Members in the order of their first partitions.
    let mut order: Vec<(Partition, u64)> = Vec::new();
    for (first, _, member) in runs {
        if order.iter().all(|(_, id)| *id != member.id.0) {
            order.push((first, member.id.0));
        }
    }
    let at = order.iter().position(|(_, id)| *id == done.id.0);
    let next = at.and_then(|at| order.get(at + 1));
    next.map_or_else(ScanCursor::default, |(first, _)| {
        ScanCursor::beginning_of(*first)
    })
}

/// What takes the keys of a page.
pub(crate) trait Sheet {
    /// A state to go back to.
    type Mark: Copy;

    fn push(&mut self, key: &[u8]);
    fn count(&self) -> usize;
    /// Its bytes, and those it has room for.
    fn len(&self) -> usize;
    fn capacity(&self) -> usize;
    fn mark(&self) -> Self::Mark;
    fn back_to(&mut self, mark: Self::Mark);
}

/// Requests and answers hold all that they may.
#[derive(Debug)]
pub(crate) struct NoRoom;

/// Puts keys of this node on a sheet, up to about so many, and says where to go on.
pub(crate) async fn page(
    local: &Local,
    mut cursor: ScanCursor,
    prefix: &[u8],
    limit: usize,
    sheet: &mut impl Sheet,
) -> Result<ScanCursor, NoRoom> {
    let mut hold = local.shared.in_flight.hold();
    // Halved while not even the first keys fit on the page; never again after.
    let mut most = limit;
    for step in 0..STEPS {
        let now_ms = local.shared.clock.now_ms();
        let (before, had) = (sheet.mark(), sheet.count());
        let mut fits = true;
        let asked = most.min(limit - had);
        let next = local.shared.cache.scan(cursor, asked, now_ms, &mut |key| {
            fits = fits && (sheet.len() < PAGE_BYTES || asked == 1);
            if fits && key.starts_with(prefix) {
                sheet.push(key);
            }
        });
        if !hold.set(sheet.capacity()) {
            return Err(NoRoom);
        }
        if fits {
            cursor = next;
            if cursor.is_end() || sheet.count() >= limit || sheet.len() >= PAGE_BYTES {
                break;
            }
        } else {
            sheet.back_to(before);
            if had > 0 {
                break;
            }
            // A handful of these are far from all steps, so that the cursor moves on every page.
            most = (asked / 2).max(1);
        }
        if step % 4 == 3 {
            tokio::task::yield_now().await;
        }
    }
    Ok(cursor)
}

/// Puts keys of another member on a sheet, and says where to go on there.
pub(crate) async fn page_of(
    local: &Local,
    routes: &Routes,
    member: &Arc<Member>,
    asked: &Scan<'_>,
    sheet: &mut impl Sheet,
) -> Result<ScanCursor, Elsewhere> {
    if !member.is_reachable() {
        return Err(Elsewhere::Down(Arc::clone(member)));
    }
    add(&local.counters.forwarded, 1);
    let question = asked.encode();
    let asking = routes.ask(member, Service::Commands, &question);
    let answer = routes.answer(member, asking, Some(&question)).await;
    let answer: Bytes = answer.map_err(|error| Elsewhere::unanswered(member, &error, false))?;
    let page = Page::decode(&answer).map_err(|malformed| {
        let error = AskError::lost(format!("its answer makes no sense: {malformed}"));
        Elsewhere::unanswered(member, &error, false)
    })?;
    for key in &page.keys {
        sheet.push(key);
    }
    Ok(ScanCursor::from_u64(page.cursor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::MemberState;
    use henge_cluster::forming::ClusterId;
    use henge_cluster::ring::NodeId;

    /// Two members: the first has the partitions 2 to 3 and 6, the second 0 to 1 and 4 to 5, and nobody the rest.
    fn view() -> View {
        let member = |id| {
            Arc::new(Member {
                id: NodeId(id),
                name: format!("node{id}"),
                instance: id,
                incarnation: 1,
                address: format!("127.0.0.1:{id}"),
                state: MemberState::Up,
                is_silent: false,
                has_left: false,
                is_me: id == 1,
            })
        };
        let owner = |partition: Partition| match partition.number() {
            2 | 3 | 6 => Some(NodeId(1)),
            0 | 1 | 4 | 5 => Some(NodeId(2)),
            _ => None,
        };
        View::of(ClusterId(1), 1, vec![member(1), member(2)], owner)
    }

    #[test]
    fn each_member_has_its_turn() {
        let view = view();
        let at = |number| {
            let partition = Partition::new(number).expect("there is such a partition");
            ScanCursor::beginning_of(partition)
        };
        let whose = |cursor| {
            let (member, from) = turn(&view, cursor)?;
            Some((member.id.0, from))
        };
        assert_eq!(whose(ScanCursor::default()), Some((2, at(0))));
        assert_eq!(whose(at(3)), Some((1, at(3))));
        assert_eq!(whose(at(9)), None);
        for (asked, answered, expected) in [
            (2, at(1), at(1)),
            (2, at(2), at(4)),
            // After its last partition, and at its end, it is the other's turn.
            (2, at(6), at(2)),
            (2, ScanCursor::default(), at(2)),
            (1, at(4), at(6)),
            (1, at(7), ScanCursor::default()),
            (1, ScanCursor::default(), ScanCursor::default()),
        ] {
            let members = &view.members;
            let asked = members.iter().find(|member| member.id.0 == asked);
            let asked = asked.expect("there is such a member");
            assert_eq!(next(&view, asked, answered), expected, "{answered}");
        }
    }
}
