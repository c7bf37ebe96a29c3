//! Leases, by which etcd itself removes what has a time to live. Many objects share one, since a lease costs etcd more than
//! a key. Follows `etcd3/lease_manager.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etcd::{Client, Error};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How much longer than asked a lease may live, so that it can be given out again meanwhile.
const REUSE_MAX: Duration = Duration::from_secs(60);
/// And as a part of what was asked.
const REUSE_FRACTION: u32 = 20;

/// The most objects that go with one lease, and so in one transaction.
const KEYS_MAX: usize = 1000;

#[derive(Debug)]
pub(crate) struct Leases {
    client: Arc<Client>,
    /// The newest of each time to live.
    newest: Mutex<HashMap<Duration, Lease>>,
}

#[derive(Debug)]
struct Lease {
    id: i64,
    ends: Instant,
    keys: usize,
}

impl Leases {
    pub(crate) fn new(client: Arc<Client>) -> Leases {
        Leases { client, newest: Mutex::default() }
    }

    /// A lease that lasts for `ttl` at least.
    pub(crate) async fn get(&self, ttl: Duration) -> Result<i64, Error> {
        let mut newest = self.newest.lock().await;
        let asked = Instant::now();
        if let Some(lease) = newest.get_mut(&ttl)
            && lease.keys < KEYS_MAX
            && asked + ttl <= lease.ends
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let lasts = ttl + reuse(ttl);
        let id = self.client.lease(lasts).await?.id;
        newest.insert(ttl, Lease { id, ends: asked + lasts, keys: 1 });
        Ok(id)
    }

    /// etcd does not know a lease any more.
    pub(crate) async fn forget(&self, ttl: Duration) {
        self.newest.lock().await.remove(&ttl);
    }
}

fn reuse(ttl: Duration) -> Duration {
    REUSE_MAX.min(ttl / REUSE_FRACTION)
}
