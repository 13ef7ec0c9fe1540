//! Who a node is to other nodes: its name, the numbers of its directory and of its start, the cluster that it is in, and how
//! it is reached. What changes of that is learnt while it runs; it asks nobody itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use henge_cluster::forming::{ClusterId, Who};
use henge_cluster::secret::Secrets;
use henge_wire::peer::{Hello, Purpose};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::encryption::random;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Drawn with its directory.
    pub(crate) instance: u64,
    /// The number of this start among all of its directory's.
    incarnation: Mutex<u64>,
    /// What all nodes of its cluster have, if they have any.
    secrets: watch::Sender<Option<Arc<Secrets>>>,
    /// Where it listens.
    listens: SocketAddr,
    cluster: Mutex<Option<ClusterId>>,
    /// How others reach it: as its operator said, or as the first link showed.
    address: Mutex<Option<String>>,
}

impl Identity {
    pub(crate) fn new(
        who: Who,
        incarnation: u64,
        listens: SocketAddr,
        advertise: Option<String>,
        secrets: Option<Secrets>,
    ) -> Self {
        let ip = listens.ip();
        // One that listens on one address is reached there and nowhere else.
        let known = (!ip.is_unspecified()).then(|| listens.to_string());
        Self {
            name: who.name,
            instance: who.instance,
            incarnation: Mutex::new(incarnation),
            secrets: watch::Sender::new(secrets.map(Arc::new)),
            listens,
            cluster: Mutex::new(None),
            address: Mutex::new(advertise.or(known)),
        }
    }

    pub(crate) fn who(&self) -> Who {
        Who {
            name: self.name.clone(),
            instance: self.instance,
        }
    }

    /// What all nodes of its cluster have, as it is now.
    pub(crate) fn secrets(&self) -> Option<Arc<Secrets>> {
        self.secrets.borrow().clone()
    }

    /// The same, and each change of it.
    pub(crate) fn watch_secrets(&self) -> watch::Receiver<Option<Arc<Secrets>>> {
        self.secrets.subscribe()
    }

    /// What proves a node to be of its cluster is this from now on. Connections that were made before go by it too. Whether it
    /// is something else than before.
    pub(crate) fn set_secrets(&self, secrets: Option<Secrets>) -> bool {
        let ids = |secrets: &Secrets| (secrets.used().id(), secrets.also_accepted());
        self.secrets.send_if_modified(|now| {
            let is_new = now.as_deref().map(ids) != secrets.as_ref().map(ids);
            if is_new {
                *now = secrets.map(Arc::new);
            }
            is_new
        })
    }

    pub(crate) fn incarnation(&self) -> u64 {
        *self.incarnation.lock()
    }

    /// The cluster knows of later starts than its directory does.
    pub(crate) fn set_incarnation(&self, incarnation: u64) {
        *self.incarnation.lock() = incarnation;
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        *self.cluster.lock()
    }

    /// It is in a cluster from now on, and in no other.
    pub(crate) fn enter(&self, cluster: ClusterId) {
        *self.cluster.lock() = Some(cluster);
    }

    /// How others reach it, if that is known.
    pub(crate) fn address(&self) -> Option<String> {
        self.address.lock().clone()
    }

    /// The same for one that nobody has met: over the loopback.
    pub(crate) fn address_or_loopback(&self) -> String {
        self.address().unwrap_or_else(|| {
            let loopback = match self.listens.ip() {
                IpAddr::V4(_) => "127.0.0.1",
                IpAddr::V6(_) => "localhost",
            };
            format!("{loopback}:{}", self.listens.port())
        })
    }

    /// Another node is met over this address of the machine.
    pub(crate) fn met_over(&self, local: IpAddr) {
        let mut address = self.address.lock();
        if address.is_none() {
            let local = SocketAddr::new(local.to_canonical(), self.listens.port());
            *address = Some(local.to_string());
        }
    }

    /// What it says of itself on a connection.
    pub(crate) fn hello(&self, purpose: Purpose) -> Hello {
        Hello {
            purpose,
            cluster: self.cluster().map(|cluster| cluster.0),
            instance: self.instance,
            incarnation: self.incarnation(),
            nonce: random(),
            name: self.name.clone(),
            address: self.address().unwrap_or_default(),
        }
    }
}
