//! What must hold for any bytes that another node sends as what its replicas say: see docs/fuzzing.md.

use bytes::Bytes;
use henge_cluster::carrier::FrameOf;
use henge_cluster::replica::Body;
use henge_cluster::store::Store;
use henge_engine::persistence::journal::Pieces;
use henge_wire::Partition;

/// Checks an input. What is understood has one form, so it is written as the same bytes; and it is nothing without its last one.
pub(crate) fn check(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Ok(frame) = FrameOf::<Store>::decode(&bytes) else {
        return;
    };
    let mut pieces = Pieces::default();
    frame.encode(&mut pieces).expect("it was no longer");
    assert_eq!(pieces.len(), input.len());
    let again = pieces.iter().collect::<Vec<_>>().concat();
    assert_eq!(again, input, "it has one form");
    let cut = bytes.slice(..bytes.len() - 1);
    assert!(FrameOf::<Store>::decode(&cut).is_err(), "it has one end");
    for (partition, message) in &frame.messages {
        let is_own = |key: &[u8]| assert_eq!(Partition::of(key), *partition);
        match &message.body {
            Body::Pull { keys, .. } => keys.iter().for_each(|key| is_own(key)),
            Body::Part { states, .. } => {
                for (key, record) in states {
                    is_own(key);
                    assert!(record.as_ref().is_none_or(|record| record.key == *key));
                }
            }
            Body::Append { entry, .. } => {
                let effects = &entry.effects;
                effects.with(|effects| effects.iter().for_each(|(key, _)| is_own(key)));
            }
            _ => {}
        }
    }
}
