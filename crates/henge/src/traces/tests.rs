//! Contexts as they are read and told, and what a thread works for.

use super::*;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn which_traceparents_are_taken() {
    let long = format!("01{}-more", &GOOD[2..]);
    for (text, flags) in [
        (GOOD, Some(1)),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            Some(0),
        ),
        // Unknown flags mean nothing.
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
            Some(3),
        ),
        // A later version, with more behind what is known.
        (&*long, Some(1)),
        (
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some(1),
        ),
        (
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            None,
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            None,
        ),
        (
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            None,
        ),
        (
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            None,
        ),
        (
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            None,
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            None,
        ),
        (
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            None,
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            None,
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-001",
            None,
        ),
        ("", None),
        (
            "é0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            None,
        ),
    ] {
        let context = Context::parse(text.as_bytes());
        assert_eq!(context.map(|context| context.flags), flags, "{text}");
    }
}

#[test]
fn a_context_is_told_as_it_is() {
    let context = Context::parse(GOOD.as_bytes()).expect("it is one");
    assert_eq!(Context::decode(&context.encode()), Some(context.clone()));
    let context = context.with_state(b"a=1,b=2");
    assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
    let question = [&Wrapped::head(&context, 7)[..], b"asked"].concat();
    // As other nodes read it, for ever.
    let golden = b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c\xb7\xad\x6b\x71\x69\x20\x33\x31\x01\x07\x00a=1,b=2\x07asked";
    assert_eq!(question, golden);
    let wrapped = Wrapped::decode(question.clone().into()).expect("it is one");
    assert_eq!(wrapped.context, Some(context.clone()));
    assert_eq!((wrapped.service, &wrapped.question[..]), (7, &b"asked"[..]));
    // What is cut off is no question.
    for length in 0..question.len() - 5 {
        let cut = question[..length].to_vec();
        assert!(Wrapped::decode(cut.into()).is_none(), "{length}");
    }
    let long = format!("a={}", "x".repeat(600));
    for state in [&b"\xff"[..], b"no state", long.as_bytes(), b""] {
        assert_eq!(context.clone().with_state(state).state, None);
    }
}

/// A node that tells nonsense is asked as if it had told nothing.
#[test]
fn a_context_that_makes_no_sense_is_none() {
    for bytes in [
        vec![0; 25],
        vec![1; 24],
        vec![],
        [vec![1; 24], vec![0]].concat(),
    ] {
        assert_eq!(Context::decode(&bytes), None, "{bytes:?}");
    }
    let nonsense = [vec![0; 25], vec![0, 0, 2]].concat();
    let wrapped = Wrapped::decode(nonsense.into()).expect("there is a question");
    assert_eq!((wrapped.context, wrapped.service), (None, 2));
}

#[test]
fn a_thread_works_for_a_trace_while_it_is_entered() {
    let tracer = Tracer::new(&Traces::new("n1", 1.0));
    assert!(child("none", Kind::Internal).is_none());
    let outer = tracer.begin_command(None, "OUTER").expect("all are taken");
    let scope = outer.scope().clone();
    {
        let _entered = enter(&scope);
        let inner = child("inner", Kind::Internal).expect("it is in one");
        {
            let _entered = enter(inner.scope());
            assert_eq!(
                present().map(|s| s.context),
                Some(inner.scope().context.clone())
            );
        }
        assert_eq!(present().map(|s| s.context), Some(scope.context.clone()));
        assert_eq!(inner.scope().context.trace, scope.context.trace);
    }
    assert!(!is_traced());
}

/// Of a batch only those have failed of which nobody knows what becomes; what was not done is asked for again.
#[test]
fn a_reply_that_may_not_be_told_fails_no_other() {
    let replies = Untold::Replies(vec![(1, Bad::NotDone), (2, Bad::Unknown)]);
    for (untold, reply, expected) in [
        (&replies, Some(0), false),
        (&replies, Some(1), false),
        (&replies, Some(2), true),
        (&replies, None, true),
        (&Untold::Replies(vec![(1, Bad::NotDone)]), None, false),
        (&Untold::NotKept, Some(0), true),
    ] {
        assert_eq!(has_failed(untold, reply), expected, "{untold:?} {reply:?}");
    }
}

/// A span of several partitions says nothing of one.
#[test]
fn calls_of_several_partitions_are_of_none() {
    let traces = Traces::new("n1", 1.0);
    let span = Span::begin(&traces, None, "SET".into(), Kind::Server);
    let _entered = enter(span.scope());
    let [one, other] = [1, 2].map(|number| Partition::new(number).expect("it is one"));
    let version = Some(Version::new(3, 4));
    note_call(one, None);
    note_call(one, version);
    assert!(
        matches!(CALLED.get(), Called::One(partition, stamped) if partition == one && stamped == version)
    );
    note_call(other, None);
    note_call(one, None);
    assert!(matches!(CALLED.get(), Called::Several));
}
