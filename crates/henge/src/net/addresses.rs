//! How many connections each address has open, so that one client cannot take the room of all. It closes none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections by where they are from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The place of one connection among those of its address, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Addresses,
    from: IpAddr,
}

impl Addresses {
    /// A place for one more from this address, if it has fewer than this many.
    pub(crate) fn enter(&self, address: IpAddr, most: usize) -> Option<Seat> {
        let from = counted(address);
        let mut open = self.0.lock();
        let count = open.entry(from).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat {
            addresses: self.clone(),
            from,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.addresses.0.lock();
        if let Some(count) = open.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.from);
            }
        }
    }
}

/// What is counted as one: of IPv6 the network, as whoever has an address there mostly has 2^64 of them.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
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
        let _mapped = enter("::ffff:192.0.2.1").expect("there is room");
        assert!(enter("192.0.2.1").is_none());
        let _others = enter("192.0.2.2").expect("it is another");
        drop(first);
        let _again = enter("192.0.2.1").expect("there is room again");
        let six = [enter("2001:db8::1"), enter("2001:db8::ffff")];
        assert!(enter("2001:db8::2").is_none(), "it is the same network");
        assert!(enter("2001:db8:0:1::2").is_some());
        drop(six);
        assert_eq!(
            addresses.0.lock().len(),
            2,
            "who has none is not remembered"
        );
    }
}
