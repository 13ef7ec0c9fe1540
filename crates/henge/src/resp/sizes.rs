//! How many keys all nodes have together: each says how many there are in the partitions that it leads, and which these are, so that it
//! is seen where none of them has counted one, or two have, as its leader changes. It asks nobody.

use bytes::Bytes;
use henge_wire::resp::request::integer;
use henge_wire::{PARTITIONS, Partition};

use super::call::ErrorReply;

/// A node's part, in text: how many keys, and runs of partitions in their order, `17 0-340,682,1000-1023`.
pub(super) fn text(keys: u64, partitions: &[Partition]) -> String {
    let numbers: Vec<u16> = partitions.iter().map(|one| one.number()).collect();
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs = runs.map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    format!("{keys} {}", runs.collect::<Vec<_>>().join(","))
}

/// What all nodes have together.
///
/// # Errors
/// A partition was counted by none, or by two: it may be asked for again. Or a reply makes no sense.
pub(super) fn total(replies: &[Bytes]) -> Result<i64, ErrorReply> {
    let mut counted = vec![false; usize::from(PARTITIONS)];
    let mut total = 0_i64;
    let mut is_once = true;
    for reply in replies {
        let (keys, runs) = part(reply).ok_or(ErrorReply::fixed(
            "ERR another node's reply is none to what was asked",
        ))?;
        total = total.saturating_add(keys);
        for number in runs.into_iter().flat_map(|(first, last)| first..=last) {
            is_once &= !std::mem::replace(&mut counted[usize::from(number)], true);
        }
    }
    if is_once && counted.iter().all(|is_counted| *is_counted) {
        Ok(total)
    } else {
        Err(ErrorReply::fixed(
            "TRYAGAIN the leader of a partition is changing; nothing was done",
        ))
    }
}

/// What one node says.
fn part(reply: &Bytes) -> Option<(i64, Vec<(u16, u16)>)> {
    let (head, rest) = reply.split_at_checked(reply.iter().position(|&byte| byte == b'\n')? + 1)?;
    let len = usize::try_from(integer(head.strip_prefix(b"$")?.strip_suffix(b"\r\n")?)?).ok()?;
    let text = rest
        .strip_suffix(b"\r\n")
        .filter(|text| text.len() == len)?;
    let (keys, runs) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let number = |text: &str| {
        let number: u16 = text.parse().ok()?;
        (number < PARTITIONS).then_some(number)
    };
    let runs = runs.split(',').filter(|run| !run.is_empty()).map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let run = (number(first)?, number(last)?);
        (run.0 <= run.1).then_some(run)
    });
    Some((
        keys.parse().ok().filter(|keys| *keys >= 0)?,
        runs.collect::<Option<_>>()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Bytes {
        format!("${}\r\n{text}\r\n", text.len()).into()
    }

    #[test]
    fn each_partition_is_counted_once() {
        let all: Vec<Partition> = Partition::all().collect();
        let (some, others) = all.split_at(340);
        assert_eq!(text(5, &others[..1]), "5 340");
        assert_eq!(text(5, &[all[0], all[1], all[7]]), "5 0-1,7");
        assert_eq!(text(0, &[]), "0 ");
        let some = reply(&text(3, some));
        let nothing = reply(&text(0, &[]));
        let total = |others: &[Partition]| {
            let replies = [some.clone(), nothing.clone(), reply(&text(4, others))];
            total(&replies).map_err(|error| error.says_nothing_was_done())
        };
        assert_eq!(total(others), Ok(7));
        // By none, and by two.
        assert_eq!(total(&others[1..]), Err(true));
        assert_eq!(total(&all[339..]), Err(true));
        // As many as there are, of which one is another.
        let others = [&all[339..340], &others[1..]].concat();
        assert_eq!(total(&others), Err(true));
    }

    #[test]
    fn what_makes_no_sense_is_no_count() {
        for text in [
            "",
            "7",
            "7 0-1024",
            "7 5-3",
            "-1 0-1023",
            "x 0-1023",
            "7 a",
            "7 0,,",
            "7 1-2-3",
        ] {
            let total = total(&[reply(text)]);
            assert!(total.is_err(), "{text:?}");
        }
        for broken in [
            ":7\r\n",
            "$9\r\n7 0-1023",
            "$8\r\n7 0-1023\r\n$",
            "+OK\r\n",
            "",
        ] {
            let total = total(&[Bytes::from_static(broken.as_bytes())]);
            let error = total.expect_err("it makes no sense");
            assert!(!error.says_nothing_was_done(), "{broken:?}");
        }
        assert_eq!(total(&[reply("7 0-1023")]).ok(), Some(7));
    }
}
