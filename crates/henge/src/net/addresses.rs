//! How many connections each address has open, and what their requests hold, so that one client cannot take the room of all. It
//! closes none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::inflight::Share;

/// Connections by where they are from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    open: HashMap<IpAddr, Open>,
    /// Addresses that have no connection, and of whose requests something is held yet: work that goes on, a value on its way to the
    /// disk. As many as there are holds at the most, which are bounded by what they hold.
    gone: HashMap<IpAddr, Weak<Share>>,
    /// When there are so many of those, the ones of which nothing is held any more are dropped.
    sweep_at: usize,
}

/// So many may have gone before it is looked whether something of them is held.
const GONE: usize = 64;

/// Those of one address.
#[derive(Debug)]
struct Open {
    count: usize,
    share: Arc<Share>,
}

/// The place of one connection among those of its address, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Addresses,
    from: IpAddr,
    share: Arc<Share>,
}

impl Seat {
    /// What the requests of its address hold.
    pub(crate) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }
}

impl Addresses {
    /// A place for one more from this address, if it has fewer than this many.
    pub(crate) fn enter(&self, address: IpAddr, most: usize) -> Option<Seat> {
        let from = counted(address);
        let mut all = self.0.lock();
        let All { open, gone, .. } = &mut *all;
        let open = open.entry(from).or_insert_with(|| Open {
            count: 0,
            // Who comes again has what it had.
            share: (gone.remove(&from).and_then(|share| share.upgrade())).unwrap_or_default(),
        });
        if open.count >= most {
            return None;
        }
        open.count += 1;
        Some(Seat {
            addresses: self.clone(),
            from,
            share: Arc::clone(&open.share),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.addresses.0.lock();
        let Some(open) = all.open.get_mut(&self.from) else {
            return;
        };
        open.count -= 1;
        if open.count > 0 {
            return;
        }
        all.open.remove(&self.from);
        // This and that of the seat are dropped now.
        if Arc::strong_count(&self.share) > 1 {
            all.gone.insert(self.from, Arc::downgrade(&self.share));
            if all.gone.len() >= all.sweep_at.max(GONE) {
                all.gone.retain(|_, share| share.strong_count() > 0);
                all.sweep_at = 2 * all.gone.len();
            }
        }
    }
}

/// The prefix of addresses that stand for ones of IPv4.
const NAT64: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is counted as one: of IPv6 the network, as whoever has an address there mostly has 2^64 of them.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Who is behind NAT64 (RFC 6052) has an address of IPv4, and machines of one link have nothing else in common.
        IpAddr::V6(address) if address.octets().starts_with(&NAT64) => {
            let [.., a, b, c, d] = address.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        IpAddr::V6(address) if !address.is_loopback() && !address.is_unicast_link_local() => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places() {
        let addresses = Addresses::default();
        let enter = |text: &str| addresses.enter(text.parse().expect("an address"), 2);
        let first = enter("192.0.2.1").expect("there is room");
        let mapped = enter("::ffff:192.0.2.1").expect("there is room");
        assert!(Arc::ptr_eq(&first.share(), &mapped.share()));
        assert!(enter("192.0.2.1").is_none());
        let _others = enter("192.0.2.2").expect("it is another");
        drop(first);
        let _again = enter("192.0.2.1").expect("there is room again");
        let six = [enter("2001:db8::1"), enter("2001:db8::ffff")];
        assert!(enter("2001:db8::2").is_none(), "it is the same network");
        assert!(enter("2001:db8:0:1::2").is_some());
        drop(six);
        let one = enter("64:ff9b::192.0.2.9").expect("it is one of IPv4");
        let same = enter("192.0.2.9").expect("there is room");
        assert!(enter("64:ff9b::c000:209").is_none());
        drop((one, same));
        let of_link = ["fe80::1", "fe80::1", "fe80::2"].map(enter);
        assert!(of_link.iter().all(Option::is_some), "each is by itself");
        drop(of_link);
        assert_eq!(
            addresses.0.lock().open.len(),
            2,
            "who has none is not remembered"
        );
    }

    #[test]
    fn who_comes_again_holds_what_it_held() {
        let addresses = Addresses::default();
        let enter = |n: u8| addresses.enter(Ipv4Addr::new(192, 0, 2, n).into(), 1);
        let seat = enter(1).expect("there is room");
        // Some work goes on.
        let held = seat.share();
        drop(seat);
        let again = enter(1).expect("there is room");
        assert!(Arc::ptr_eq(&held, &again.share()));
        drop(again);
        drop(held);
        for n in 1..=u8::try_from(2 * GONE).expect("it is few") {
            let seat = enter(n).expect("there is room");
            let held = seat.share();
            drop(seat);
            drop(held);
        }
        let all = addresses.0.lock();
        assert!(all.open.is_empty());
        assert!(all.gone.len() <= GONE, "{} are remembered", all.gone.len());
    }
}
