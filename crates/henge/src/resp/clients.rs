//! The clients of the Redis protocol, as `CLIENT LIST` shows them and `CLIENT KILL` finds them. A connection writes its own
//! entry; others only read it, or tell it to end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

use henge_wire::resp::writer::Protocol;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::access::entry::DEFAULT_USER;

/// What a client has told about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    pub(crate) name: Vec<u8>,
    pub(crate) lib_name: Vec<u8>,
    pub(crate) lib_version: Vec<u8>,
    /// The name of the API key that it has shown; empty for none.
    pub(crate) user: String,
}

impl Details {
    /// As whom it is shown.
    pub(crate) fn user(&self) -> &str {
        if self.user.is_empty() {
            DEFAULT_USER
        } else {
            &self.user
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    /// Where it connects from, and to.
    pub(crate) address: SocketAddr,
    pub(crate) local_address: SocketAddr,
    pub(crate) descriptor: i32,
    /// When it connected, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// When it last sent a command, likewise.
    pub(crate) active_ms: AtomicU64,
    /// The number of its last command; [`Client::NO_COMMAND`] before the first.
    pub(crate) last_command: AtomicU16,
    pub(crate) protocol: AtomicU8,
    pub(crate) no_evict: AtomicBool,
    pub(crate) no_touch: AtomicBool,
    /// Commands that it sent, and bytes in both directions.
    pub(crate) commands: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    /// Bytes that wait: of requests not whole, and of replies not taken.
    pub(crate) pending_bytes: AtomicU64,
    pub(crate) unsent_bytes: AtomicU64,
    pub(crate) details: Mutex<Details>,
    killed: AtomicBool,
    wake: Notify,
}

impl Client {
    pub(crate) const NO_COMMAND: u16 = u16::MAX;

    /// Ends its connection at once: what it sends from now on is not run, and what it has not taken is not sent, as who does
    /// not read would otherwise never end.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    #[inline]
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Resolves when it is killed.
    pub(crate) fn killed(&self) -> tokio::sync::futures::Notified<'_> {
        self.wake.notified()
    }

    /// Notes which protocol it speaks from now on.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        self.protocol.store(number(protocol), Ordering::Relaxed);
    }

    /// The letters of what holds of it, as Redis has them: `N` for nothing special.
    pub(crate) fn flags(&self) -> &'static str {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        match (is(&self.no_evict), is(&self.no_touch)) {
            (false, false) => "N",
            (true, false) => "e",
            (false, true) => "T",
            (true, true) => "eT",
        }
    }

    /// Forgets what the connection has set, but not what it has done.
    pub(crate) fn reset(&self) {
        self.speaks(Protocol::Resp2);
        self.no_touch.store(false, Ordering::Relaxed);
        self.no_evict.store(false, Ordering::Relaxed);
        let mut details = self.details.lock();
        details.name.clear();
        details.user.clear();
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next_id: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        local_address: SocketAddr,
        descriptor: i32,
        now_ms: u64,
    ) -> Arc<Client> {
        let client = self.unlisted(address, local_address, descriptor, now_ms);
        let listed = Arc::clone(&client);
        self.connected.lock().insert(client.id, listed);
        client
    }

    /// One that is in no list: another node, for its clients.
    pub(crate) fn unlisted(
        &self,
        address: SocketAddr,
        local_address: SocketAddr,
        descriptor: i32,
        now_ms: u64,
    ) -> Arc<Client> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Client {
            id,
            address: canonical(address),
            local_address: canonical(local_address),
            descriptor,
            since_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            last_command: AtomicU16::new(Client::NO_COMMAND),
            protocol: AtomicU8::new(number(Protocol::Resp2)),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            commands: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            pending_bytes: AtomicU64::new(0),
            unsent_bytes: AtomicU64::new(0),
            details: Mutex::new(Details::default()),
            killed: AtomicBool::new(false),
            wake: Notify::new(),
        })
    }

    pub(crate) fn disconnect(&self, id: u64) {
        self.connected.lock().remove(&id);
    }

    /// Those connected now, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.connected.lock().len()
    }
}

/// An IPv4 address as such, also where it came over a socket of both kinds.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}
