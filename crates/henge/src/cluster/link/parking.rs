//! Large answers to questions that came over a connection for small ones: each waits under a number for who asked to claim it over
//! a connection for bulk, which may come to another data thread. It is given once, to the node that asked, and is forgotten when
//! nobody can wait for it any more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::encryption::random_number;
use crate::net::inflight::InFlight;

/// Answers that are parked at one time: 256 MiB of the smallest. What they may have in bytes is what `limits.max_inflight_bytes`
/// leaves.
const MOST: usize = 1024;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Parking {
    in_flight: Arc<InFlight>,
    /// How long an answer is kept.
    keep: Duration,
    parked: Mutex<HashMap<u64, Parked>>,
}

#[derive(Debug)]
struct Parked {
    /// Who asked.
    instance: u64,
    answer: Bytes,
    /// Is dropped with the rest, which tells who waits to forget it.
    _claimed: oneshot::Sender<()>,
}

impl Parking {
    pub(crate) fn new(in_flight: Arc<InFlight>, keep: Duration) -> Arc<Self> {
        Arc::new(Self {
            in_flight,
            keep,
            parked: Mutex::default(),
        })
    }

    /// Keeps an answer for a node, and says under which number. None where too much is kept already.
    /// Beside it is what resolves when it is gone.
    fn park(&self, instance: u64, body: &[&[u8]]) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.parked.lock().len() >= MOST {
            return None;
        }
        let mut hold = self.in_flight.hold_apart();
        if !hold.set(body.iter().map(|piece| piece.len()).sum()) {
            return None;
        }
        let answer = hold.attach(body.concat().into());
        let mut parked = self.parked.lock();
        // Drawn, so that what was meant for one start of a node, or one question, is not taken for another's.
        let number = random_number();
        match parked.entry(number) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                let (claimed, gone) = oneshot::channel();
                place.insert(Parked {
                    instance,
                    answer,
                    _claimed: claimed,
                });
                Some((number, gone))
            }
        }
    }

    /// Gives an answer to who asked for it.
    pub(crate) fn claim(&self, instance: u64, number: u64) -> Option<Bytes> {
        let mut parked = self.parked.lock();
        parked.get(&number).filter(|one| one.instance == instance)?;
        parked.remove(&number).map(|one| one.answer)
    }
}

/// The parking for one node's questions.
#[derive(Clone, Debug)]
pub(crate) struct Parks {
    pub(crate) parking: Arc<Parking>,
    /// Who asks.
    pub(crate) instance: u64,
}

impl Parks {
    /// Keeps an answer for as long as who asked waits, and says under which number. None where too much is kept: it is sent as it
    /// is then, as what was done has to be told, and that its connection is slow for it bounds what there can be of it.
    pub(super) fn park(&self, body: &[&[u8]]) -> Option<u64> {
        let Self { parking, instance } = self;
        let (number, gone) = parking.park(*instance, body)?;
        let (parking, instance) = (Arc::clone(parking), *instance);
        tokio::task::spawn_local(async move {
            if tokio::time::timeout(parking.keep, gone).await.is_err() {
                drop(parking.claim(instance, number));
            }
        });
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::data_thread;
    use tokio::sync::oneshot::error::TryRecvError;

    static ANSWER: [u8; 100_000] = [7; 100_000];

    #[test]
    fn an_answer_is_given_once_and_to_who_asked() {
        let in_flight = InFlight::new(150_000);
        let parking = Parking::new(Arc::clone(&in_flight), Duration::from_secs(5));
        let number = parking.park(1, &[&ANSWER[..10], &ANSWER[10..]]);
        let (number, mut gone) = number.expect("there is room");
        assert_eq!(gone.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(in_flight.held(), ANSWER.len());
        assert!(parking.park(1, &[&ANSWER]).is_none(), "there is no room");
        assert_eq!(parking.claim(2, number), None);
        assert_eq!(parking.claim(1, number ^ 1), None);
        let answer = parking.claim(1, number).expect("it is there");
        assert_eq!(answer, ANSWER[..]);
        assert_eq!(in_flight.held(), ANSWER.len(), "it is held on its way");
        assert_eq!(gone.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(parking.claim(1, number), None);
        drop(answer);
        assert_eq!(in_flight.held(), 0);
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let parking = Parking::new(InFlight::new(1), Duration::from_secs(5));
        let numbers: Vec<_> = (0..MOST).map(|_| parking.park(1, &[b"x"])).collect();
        assert!(numbers.iter().all(Option::is_some));
        assert!(parking.park(1, &[b"x"]).is_none());
        let (number, _) = numbers[7].as_ref().expect("it is kept");
        assert!(parking.claim(1, *number).is_some());
        assert!(parking.park(1, &[b"x"]).is_some());
    }

    #[test]
    fn what_nobody_claims_is_forgotten() {
        let in_flight = InFlight::new(150_000);
        let parks = Parks {
            parking: Parking::new(Arc::clone(&in_flight), Duration::ZERO),
            instance: 1,
        };
        let runtime = data_thread::runtime().expect("a runtime");
        runtime.block_on(async {
            parks.park(&[&ANSWER]).expect("there is room");
            while in_flight.held() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
