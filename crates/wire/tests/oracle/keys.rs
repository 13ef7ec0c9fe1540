//! What must hold for any bytes that another node sends as a question about keys, or as an answer to one: see docs/fuzzing.md.

use henge_wire::peer::keys::{
    Answered, FLUSH_QUESTION, Page, Question, Replies, commands_head, decode_replicas,
    encode_answered, encode_command, encode_key, encode_replicas, page_head, replies_head,
    why_question,
};
use henge_wire::{MAX_KEY_BYTES, Reply};

/// Checks an input. Its first byte says what the rest is read as. What is understood has one form, so it is written as the same
/// bytes; and it is nothing without its last one.
pub(crate) fn check(input: &[u8]) {
    let Some((&what, bytes)) = input.split_first() else {
        return;
    };
    let again = match what % 3 {
        0 => question(bytes),
        1 => replies(bytes),
        _ => page(bytes),
    };
    if let Some(again) = again {
        assert_eq!(again, bytes, "it has one form");
        let cut = &bytes[..bytes.len() - 1];
        let again = match what % 3 {
            0 => question(cut),
            1 => replies(cut),
            _ => page(cut),
        };
        assert!(again.is_none(), "it has one end");
    }
}

fn question(bytes: &[u8]) -> Option<Vec<u8>> {
    match Question::decode(bytes).ok()? {
        Question::Scan(scan) => Some(scan.encode()),
        Question::Flush => Some(FLUSH_QUESTION.to_vec()),
        Question::Why(key) => Some(why_question(key)),
        Question::Commands(level, commands) => {
            let mut again = commands_head(level, commands.count() as u32).to_vec();
            let mut count = 0;
            for command in commands.iter() {
                assert!(command.key.len() <= MAX_KEY_BYTES);
                encode_command(&mut again, &command);
                count += 1;
            }
            assert_eq!(count, commands.count());
            Some(again)
        }
    }
}

fn replies(bytes: &[u8]) -> Option<Vec<u8>> {
    let replies = Replies::decode(bytes).ok()?;
    let mut again = replies_head(replies.count() as u32).to_vec();
    let mut rest = replies.bytes();
    for _ in 0..replies.count() {
        let has_replicas = rest.first() == Some(&8);
        let (replicas, answered) = decode_replicas(&mut rest).expect("it was read before");
        if has_replicas {
            let place = encode_replicas(&mut again);
            again[place] = replicas;
        }
        if let Answered::Reply(Reply::Found(item)) = &answered {
            assert!(item.value.content_type.is_none_or(|text| text.len() <= 255));
        }
        encode_answered(&mut again, &answered);
    }
    assert!(rest.is_empty(), "there are as many as it says");
    Some(again)
}

fn page(bytes: &[u8]) -> Option<Vec<u8>> {
    let page = Page::decode(bytes).ok()?;
    let mut again = page_head(page.cursor, page.keys.len() as u32).to_vec();
    for key in page.keys {
        encode_key(&mut again, key);
    }
    Some(again)
}
