//! A bounded pool of connections to one server. A permit is held for as long as a connection is in use; the lock is held
//! only to push or pop one that is idle. A connection returns to the pool by a call and not by being dropped, so that
//! one whose request was given up halfway never does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::{Connection, ConsistencyLevel, Error, Settings, Target};

#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    settings: Settings,
    permits: Semaphore,
    /// The one used last is at the end, and is used next: the others grow old, and are dropped when they are found closed.
    idle: Mutex<Vec<Connection>>,
}

/// The right to one connection.
#[derive(Debug)]
pub(crate) struct Checkout<'a> {
    pool: &'a Pool,
    /// Dropped after what it stands for.
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new(target: Target, settings: Settings, size: usize) -> Self {
        Self {
            target,
            settings,
            permits: Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS)),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Waits until a connection may be used.
    pub(crate) async fn check_out(&self, deadline: Instant) -> Result<Checkout<'_>, Error> {
        let began = Instant::now();
        match timeout_at(deadline, self.permits.acquire()).await {
            Ok(permit) => Ok(Checkout {
                pool: self,
                _permit: permit.expect("the semaphore is never closed"),
            }),
            Err(_) => Err(Error::Busy(deadline.duration_since(began))),
        }
    }

    fn pop(&self, level: Option<ConsistencyLevel>) -> Option<Connection> {
        let mut idle = self.idle();
        match idle.iter().rposition(|one| one.is_at(level)) {
            Some(place) => Some(idle.remove(place)),
            None => idle.pop(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // Pushing and popping leave nothing half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkout<'_> {
    /// An idle connection that still seems to work, or else a fresh one. One that is at this level goes before others, as it need not
    /// be told.
    pub(crate) async fn connection(
        &self,
        level: Option<ConsistencyLevel>,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        loop {
            // Not as the condition of the loop, which would hold the lock while it runs.
            let idle = self.pool.pop(level);
            let Some(mut connection) = idle else {
                return self.fresh(deadline).await;
            };
            if connection.is_usable() {
                return Ok(connection);
            }
        }
    }

    /// A connection that nobody used before.
    pub(crate) async fn fresh(&self, deadline: Instant) -> Result<Connection, Error> {
        let Pool {
            target, settings, ..
        } = self.pool;
        let deadline = deadline.min(Instant::now() + settings.connect_timeout);
        Connection::open_until(target, settings.clone(), deadline).await
    }

    /// Gives a connection back whose request was answered.
    pub(crate) fn give_back(self, connection: Connection) {
        self.pool.idle().push(connection);
    }
}
