//! Threads that proxy. A client's connection and those to endpoints that its requests take are all one thread's: no
//! request waits for another thread to wake, and no two contend for a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::CancellationToken;
use tokio::runtime::{Builder, Handle};

use crate::pool::Pool;

/// More do not make a node's network faster, and each keeps connections of its own to every endpoint.
const COUNT_MAX: usize = 16;

/// The threads; they end when this is dropped, or told to.
pub struct Workers {
    all: Vec<Worker>,
    next: AtomicUsize,
    end: CancellationToken,
}

/// One thread, and the connections to endpoints that it has.
pub struct Worker {
    pub runtime: Handle,
    pub pool: Arc<Pool>,
}

impl Workers {
    /// One for each CPU that the process may use, in the caller's network namespace.
    pub fn start() -> io::Result<Workers> {
        let count = std::thread::available_parallelism()?.get().min(COUNT_MAX);
        let end = CancellationToken::new();
        let all = (0..count).map(|_| Worker::start(end.clone())).collect::<io::Result<_>>()?;
        Ok(Workers { all, next: AtomicUsize::default(), end })
    }

    /// Whose turn it is to take a client.
    pub fn next(&self) -> &Worker {
        &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }

    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.all.iter().map(|worker| &worker.pool)
    }

    /// Closes what is still open.
    pub fn end(&self) {
        self.end.cancel();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Worker {
    fn start(end: CancellationToken) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("ingress".into())
            .spawn(move || runtime.block_on(end.cancelled()))?;
        Ok(Worker { runtime: handle, pool: Arc::default() })
    }
}
