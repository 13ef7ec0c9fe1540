//! Two ends of connections in one process, over real sockets: what is large delays nothing that is small, what has no room waits for
//! it, and what is too long ends nobody.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::forming::{ClusterId, Who};
use henge_cluster::secret::{Secret, Secrets};
use henge_wire::peer::{
    self, Head, Hello, Kind, MAX_BODY_BYTES, NONCE_BYTES, PREFACE, Purpose, Refusal, Why,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::answering::{Answers, Reply, answer_all};
use super::asking::{AskError, Came, Link, MAX_OUT_BYTES};
use super::frames::{Incoming, Outgoing};
use super::greet::{Greeted, accept};
use super::links::Links;
use super::parking::{Parking, Parks};
use super::standing::Standing;
use super::{BULK_BYTES, FAILED, Service};
use crate::cluster::identity::Identity;
use crate::net::data_thread;
use crate::net::inflight::InFlight;

const DEADLINE: Duration = Duration::from_mins(1);
/// More than the buffers of two sockets hold.
const LARGE_BYTES: usize = 64 << 20;
/// Who asks.
const INSTANCE: u64 = 1;

fn run(test: impl Future<Output = ()>) {
    let runtime = data_thread::runtime().expect("a runtime");
    let in_time = async { tokio::time::timeout(DEADLINE, test).await };
    runtime.block_on(in_time).expect("it ends in time");
}

/// A node by itself.
fn identity() -> Identity {
    let who = Who {
        name: "one".to_owned(),
        instance: 1,
    };
    Identity::new(who, 1, ([127, 0, 0, 1], 1).into(), None, None)
}

/// The two ends of a connection, as if they had greeted each other.
async fn connection(purpose: Purpose) -> [Greeted; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("it has one");
    let asking = TcpStream::connect(address).await.expect("it listens");
    let (answering, _) = listener.accept().await.expect("it comes");
    [asking, answering].map(|socket| Greeted {
        socket,
        incoming: Incoming::default(),
        hello: Hello {
            purpose,
            cluster: None,
            instance: INSTANCE,
            incarnation: 1,
            nonce: [0; NONCE_BYTES],
            name: "other".to_owned(),
            address: String::new(),
        },
        standing: Standing::of(&identity(), None, None),
    })
}

async fn link(purpose: Purpose) -> (Link, Greeted) {
    let [asking, answering] = connection(purpose).await;
    let (link, run) = Link::over(asking, Arc::default());
    spawn_local(run);
    (link, answering)
}

/// The next frame that comes.
async fn next(greeted: &mut Greeted) -> (Head, Bytes) {
    let Greeted {
        socket, incoming, ..
    } = greeted;
    loop {
        if let Some(frame) = incoming.next(MAX_BODY_BYTES).expect("it is a frame") {
            return frame;
        }
        let read = poll_fn(|cx| incoming.poll_read(socket, cx));
        read.await.expect("it goes on");
    }
}

async fn say(greeted: &mut Greeted, kind: Kind, service: u8, id: u32, body: &[u8]) {
    let mut bytes = Vec::new();
    let head = Head { kind, service, id };
    peer::encode(&mut bytes, head, &[body]);
    let sent = greeted.socket.write_all(&bytes).await;
    sent.expect("it is taken");
}

/// Answers with as many bytes as it is asked for.
struct Counted(Arc<Parking>);

impl Answers for Counted {
    fn answer(&self, service: Service, question: Bytes, reply: Reply) {
        let number = question
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes));
        let number = number.expect("it is a number");
        if service == Service::Claim {
            let answer = self.0.claim(INSTANCE, number).expect("it waits");
            reply.send(&[&answer]);
        } else {
            // Without the memory where no node has so much.
            let piece = vec![7; 1 << 16];
            let count = number as usize / piece.len();
            let mut pieces = vec![&piece[..]; count];
            pieces.push(&piece[..number as usize % piece.len()]);
            reply.send(&pieces);
        }
    }
}

#[test]
fn a_large_answer_that_nobody_reads_stops_no_small_one() {
    run(async {
        let parking = Parking::new(InFlight::new(usize::MAX), DEADLINE);
        let parks = Parks {
            parking: Arc::clone(&parking),
            instance: INSTANCE,
        };
        let (small, answering) = link(Purpose::Data).await;
        let of_small = Counted(Arc::clone(&parking));
        spawn_local(async move { answer_all(answering, &of_small, Some(parks)).await });
        let [mut bulk, answering] = connection(Purpose::Bulk).await;
        let of_bulk = Counted(parking);
        spawn_local(async move { answer_all(answering, &of_bulk, None).await });
        let ask = async |bytes: usize| {
            let question = (bytes as u64).to_le_bytes();
            let answer = small.ask(Service::Commands, &[&question], DEADLINE)?;
            answer.await
        };
        let Ok(Came::Parked(number)) = ask(LARGE_BYTES).await else {
            panic!("it is too large for this connection");
        };
        // It is asked for, and nobody reads it.
        say(
            &mut bulk,
            Kind::Ask,
            Service::Claim as u8,
            9,
            &number.to_le_bytes(),
        )
        .await;
        for bytes in (0..100).chain([BULK_BYTES - 1]) {
            assert_eq!(ask(bytes).await, Ok(Came::Whole(vec![7; bytes].into())));
        }
        assert!(matches!(ask(BULK_BYTES).await, Ok(Came::Parked(_))));
        let (head, answer) = next(&mut bulk).await;
        assert_eq!((head.service, head.id, answer.len()), (0, 9, LARGE_BYTES));
        assert!(answer.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn no_length_ends_a_node() {
    run(async {
        let (link, answering) = link(Purpose::Bulk).await;
        let answers = Counted(Parking::new(InFlight::new(usize::MAX), DEADLINE));
        spawn_local(async move { answer_all(answering, &answers, None).await });
        let ask = async |bytes: u64| {
            let answer = link.ask(Service::Commands, &[&bytes.to_le_bytes()], DEADLINE)?;
            answer.await
        };
        let error = ask(3 << 30).await.expect_err("it is too long");
        assert!(error.may_be_done, "{error}");
        let piece = vec![0; 1 << 20];
        let question = vec![&piece[..]; 2048];
        let error = link.ask(Service::Commands, &question, DEADLINE);
        let error = error.expect_err("it is too long");
        assert!(!error.may_be_done, "{error}");
        assert_eq!(ask(3).await, Ok(Came::Whole(Bytes::from_static(&[7; 3]))));
    });
}

#[test]
fn what_has_no_room_waits_for_it_in_its_order() {
    run(async {
        let (link, mut answering) = link(Purpose::Data).await;
        let ask = |body: &[u8], timeout| link.ask(Service::Commands, &[body], timeout);
        let first = ask(&vec![1; MAX_OUT_BYTES - 10], DEADLINE).expect("it is sent");
        let second = ask(&[2; 11], DEADLINE).expect("it waits");
        let gone = ask(&[3; 1], DEADLINE).expect("it waits");
        // There would be room for it, and it does not overtake.
        let third = ask(&[4; 5], DEADLINE).expect("it waits");
        let late = ask(&[5; 1], Duration::ZERO).expect("it waits");
        let order = Rc::new(RefCell::new(Vec::new()));
        let [second, third] = [second, third].map(|answer| {
            let order = Rc::clone(&order);
            spawn_local(async move {
                let came = answer.await;
                order.borrow_mut().push(came.clone());
                came
            })
        });
        let error = late.await.expect_err("there is no room in its time");
        assert!(!error.may_be_done, "{error}");
        drop(gone);
        let (head, body) = next(&mut answering).await;
        assert_eq!(body.len(), MAX_OUT_BYTES - 10);
        say(&mut answering, Kind::Answer, 0, head.id, b"one").await;
        assert_eq!(first.await, Ok(Came::Whole(Bytes::from_static(b"one"))));
        for expected in [&[2; 11][..], &[4; 5]] {
            let (head, body) = next(&mut answering).await;
            assert_eq!(body, expected);
            say(&mut answering, Kind::Answer, FAILED, head.id, b"no").await;
        }
        let failed = Err(AskError::unsent("no"));
        assert_eq!(second.await.expect("it ends"), failed);
        assert_eq!(third.await.expect("it ends"), failed);
        // What waits when the connection ends was not done; what was sent may have been.
        let sent = ask(&vec![6; MAX_OUT_BYTES], DEADLINE).expect("it is sent");
        let waits = ask(&[7; 1], DEADLINE).expect("it waits");
        let _ = next(&mut answering).await;
        drop(answering);
        for (answer, may_be_done) in [(sent, true), (waits, false)] {
            let error = answer.await.expect_err("nobody answers");
            assert_eq!((error.may_be_done, error.link_broke), (may_be_done, true));
        }
    });
}

/// What came in one piece with what is answered first is not left lying when the reader begins late.
#[test]
fn a_burst_is_answered_to_its_end() {
    run(async {
        let [mut asking, answering] = connection(Purpose::Bulk).await;
        let answers = Counted(Parking::new(InFlight::new(usize::MAX), DEADLINE));
        spawn_local(async move { answer_all(answering, &answers, None).await });
        let mut bytes = Vec::new();
        for id in 0..50 {
            let head = Head {
                kind: Kind::Ask,
                service: Service::Commands as u8,
                id,
            };
            peer::encode(&mut bytes, head, &[&(1_u64 << 20).to_le_bytes()]);
        }
        let sent = asking.socket.write_all(&bytes).await;
        sent.expect("it is taken");
        for id in 0..50 {
            let (head, answer) = next(&mut asking).await;
            assert_eq!((head.id, answer.len()), (id, 1 << 20));
        }
    });
}

#[test]
fn what_is_sent_is_not_kept_though_more_waits_always() {
    run(async {
        let [mut writing, mut reading] = connection(Purpose::Data).await;
        let outgoing = Rc::new(Outgoing::default());
        let head = Head {
            kind: Kind::Tell,
            service: 0,
            id: 0,
        };
        let own = Rc::clone(&outgoing);
        let body = vec![1; 64 << 10];
        spawn_local(poll_fn(move |cx| {
            loop {
                // More than the buffers of two sockets hold, so that it is never empty.
                while own.len() < 16 << 20 {
                    own.push(head, &[&body]);
                }
                let broke = own.poll_send(&mut writing.socket, cx);
                if broke.is_ready() {
                    return broke;
                }
                if own.len() > 0 {
                    return Poll::Pending;
                }
            }
        }));
        for _ in 0..4_000 {
            let _ = next(&mut reading).await;
        }
        assert!(outgoing.capacity() <= 64 << 20, "{}", outgoing.capacity());
    });
}

#[test]
fn the_room_of_a_long_frame_is_not_kept() {
    run(async {
        let [mut writing, mut reading] = connection(Purpose::Data).await;
        let mut bodies = vec![vec![1; 8 << 20]];
        bodies.extend((0..200).map(|_| vec![2; 60_000]));
        let sent = bodies.clone();
        spawn_local(async move {
            for body in sent {
                say(&mut writing, Kind::Tell, 0, 0, &body).await;
            }
            std::future::pending::<()>().await;
        });
        for body in &bodies {
            // Nobody has one of before any more: its room could be used again.
            let (_, came) = next(&mut reading).await;
            assert_eq!(came, body[..]);
        }
        let kept = reading.incoming.capacity();
        assert!(kept <= 1 << 20, "{kept}");
    });
}

/// Drops what it is asked, as work does that ends in its midst.
struct Forgetful;

impl Answers for Forgetful {
    fn answer(&self, _: Service, _: Bytes, reply: Reply) {
        drop(reply);
    }
}

#[test]
fn nothing_was_done_only_where_somebody_says_so() {
    run(async {
        let (asking, answering) = link(Purpose::Data).await;
        spawn_local(async move { answer_all(answering, &Forgetful, None).await });
        let asked = asking.ask(Service::Commands, &[b"a"], DEADLINE);
        let error = asked.expect("it is sent").await.expect_err("it is dropped");
        assert!(error.may_be_done, "{error}");
        // Who refuses has not looked at what was asked.
        let (asking, mut answering) = link(Purpose::Data).await;
        let asked = asking.ask(Service::Commands, &[b"a"], DEADLINE);
        let _ = next(&mut answering).await;
        let refusal = Refusal {
            why: Why::Stranger,
            text: "no".to_owned(),
        };
        say(&mut answering, Kind::Refusal, 0, 0, &refusal.encode()).await;
        let error = asked.expect("it is sent").await.expect_err("it is refused");
        assert!(!error.may_be_done, "{error}");
        assert!(
            error.to_string().contains("it refuses this node: no"),
            "{error}"
        );
    });
}

/// Whoever is forgotten while a connection to it is made leaves nobody waiting for that.
#[test]
fn who_waits_for_a_connection_is_told_what_becomes_of_it() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("it has one");
        let who = Who {
            name: "a".to_owned(),
            instance: INSTANCE,
        };
        let me = Arc::new(Identity::new(who, 1, address, None, None));
        let links = Links::new(me, Purpose::Control, None, |_| {});
        let own = Rc::clone(&links);
        let waits = spawn_local(async move { own.to(2, &address.to_string()).await.is_err() });
        let (socket, _) = listener.accept().await.expect("it comes");
        links.forget(2, "it is no member any more");
        drop(socket);
        assert!(waits.await.expect("it ends"), "nobody is there");
    });
}

/// A connection that goes on beside the one that took its place, for what was asked over it, ends with the node that it leads to.
#[test]
fn one_whose_place_another_takes_ends_with_its_node() {
    run(async {
        for forgets in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
            let address = listener.local_addr().expect("it has one");
            let [old, new] = [&b"old"[..], b"new"].map(Secret::of);
            let node = |name: &str, instance| {
                let who = Who {
                    name: name.to_owned(),
                    instance,
                };
                let secrets = Secrets::new(old.clone(), Some(new.clone()));
                let node = Identity::new(who, 1, address, None, Some(secrets));
                node.enter(ClusterId(7));
                Arc::new(node)
            };
            let [me, other] = [node("a", 1), node("b", 2)];
            let links = Links::new(Arc::clone(&me), Purpose::Data, None, |_| {});
            let greeted = async || {
                let (mut socket, _) = listener.accept().await.expect("it comes");
                let mut first = [0; PREFACE.len()];
                let read = socket.read_exact(&mut first).await;
                read.expect("it says the preface");
                accept(socket, &first, &other)
                    .await
                    .expect("it belongs here")
            };
            let address = address.to_string();
            let (link, mut first) = tokio::join!(links.to(2, &address), greeted());
            let link = link.expect("it is made");
            let asked = link.ask(Service::Commands, &[b"a"], DEADLINE);
            let asked = asked.expect("it is sent");
            let _ = next(&mut first).await;
            let replaced = link.weak();
            drop(link);
            me.set_secrets(Some(Secrets::new(new.clone(), Some(old.clone()))));
            let _second = greeted().await;
            while links.connected(2).is_none_or(|now| replaced.is(&now)) {
                tokio::task::yield_now().await;
            }
            if forgets {
                links.forget(2, "it is gone");
            } else {
                // An earlier start of it is not this one.
                links.end(2, 0, "it was gone before");
                links.end(2, 1, "it is gone");
            }
            let error = asked.await.expect_err("nobody answers");
            assert!(error.to_string().contains("it is gone"), "{error}");
        }
    });
}
