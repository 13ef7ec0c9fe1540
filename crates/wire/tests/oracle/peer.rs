//! What must hold for any bytes that another node sends: see docs/fuzzing.md.

use henge_wire::peer::{
    self, Decoded, FrameError, HEAD_BYTES, Head, Hello, Kind, MAX_HELLO_BYTES, Refusal,
};

/// Frames whose bodies have more are refused.
const NARROW_BYTES: usize = 40;

/// Checks an input. With an even first byte the rest is what arrives; with an odd one it is a row of bodies, each behind its
/// length, as nothing that is made up has the right checksums.
pub(crate) fn check(input: &[u8]) {
    let Some((&options, rest)) = input.split_first() else {
        return;
    };
    let most_bytes = if options & 2 == 0 {
        MAX_HELLO_BYTES
    } else {
        NARROW_BYTES
    };
    if options & 1 == 0 {
        stream(rest, most_bytes);
        return;
    }
    let mut bytes = Vec::new();
    let mut sent = Vec::new();
    for body in bodies(rest) {
        let kinds = [
            Kind::Hello,
            Kind::Refusal,
            Kind::Ask,
            Kind::Answer,
            Kind::Tell,
        ];
        let first = body.first().copied().unwrap_or(0);
        let head = Head {
            kind: kinds[usize::from(first) % kinds.len()],
            service: first,
            id: u32::from(first) << 24,
        };
        peer::encode(&mut bytes, head, &[body]);
        sent.push((head, body));
        said(body);
    }
    let (came, error) = stream(&bytes, most_bytes);
    let taken = sent.iter().take_while(|(_, body)| body.len() <= most_bytes);
    let expected: Vec<_> = taken.map(|(head, body)| (*head, body.to_vec())).collect();
    assert_eq!(came, expected);
    let is_refused = came.len() < sent.len();
    assert_eq!(matches!(error, Some(FrameError::TooLong(..))), is_refused);
}

/// Each behind one byte that says how long it is; the last may be shorter.
fn bodies(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some((&length, after)) = rest.split_first() {
        let (body, after) = after.split_at(usize::from(length).min(after.len()));
        bodies.push(body);
        rest = after;
    }
    bodies
}

/// In one piece, and by who waits for as many bytes as he is told, a stream is the same frames and the same error.
fn stream(bytes: &[u8], most_bytes: usize) -> (Vec<(Head, Vec<u8>)>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut begin = 0;
    loop {
        let mut come = 0;
        let waited = loop {
            match peer::decode(&bytes[begin..begin + come], most_bytes) {
                Ok(Decoded::NotYet(least)) => {
                    assert!(least > come, "it waits for more than has come");
                    assert!(least <= HEAD_BYTES + most_bytes, "no more than is taken");
                    if begin + least > bytes.len() {
                        break Ok(Decoded::NotYet(least));
                    }
                    come = least;
                }
                other => break other,
            }
        };
        let whole = peer::decode(&bytes[begin..], most_bytes);
        assert_eq!(whole, waited);
        match whole {
            Ok(Decoded::Frame { head, body }) => {
                let frame = &bytes[begin..begin + body.end];
                let body = &frame[body];
                let mut again = Vec::new();
                peer::encode(&mut again, head, &[body]);
                // Two bytes of the head are for later versions, which say something there.
                if frame[10..12] == [0, 0] {
                    assert_eq!(again, frame, "a frame has one form");
                }
                frames.push((head, body.to_vec()));
                begin += frame.len();
            }
            Ok(Decoded::NotYet(_)) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// What is understood of who a node is, is said again in the same words.
fn said(body: &[u8]) {
    if let Ok(hello) = Hello::decode(body) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Some(refusal) = Refusal::decode(body) {
        assert_eq!(Refusal::decode(&refusal.encode()), Some(refusal));
    }
}
