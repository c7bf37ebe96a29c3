//! A namespace of its own for each benchmark, emptied and removed at the end, however the benchmark ended.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::json;
use std::cell::Cell;

use crate::connection::Connection;
use crate::kubeconfig::Target;
use crate::latency::Latencies;

/// How long a controller has to make the namespace's default service account before we make it.
const SERVICE_ACCOUNT_WAIT: Duration = Duration::from_secs(5);

/// How long pods have to go when the benchmark is over: a hundred thousand of them take minutes.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(900);

/// How often we look while waiting, outside of what is measured.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Sandbox {
    pub target: Target,
    pub namespace: String,
}

/// Runs a benchmark in a namespace of its own. Ctrl-C ends the benchmark, and the namespace is removed then too.
pub async fn with_sandbox<T>(target: Target, work: impl AsyncFnOnce(&Sandbox) -> Result<T>) -> Result<T> {
    let sandbox = Sandbox::create(target).await?;
    let result = tokio::select! {
        result = work(&sandbox) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let cleaned = sandbox.clean_up().await.context("cannot clean up");
    let result = result?;
    cleaned.map(|()| result)
}

impl Sandbox {
    async fn create(target: Target) -> Result<Sandbox> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let namespace = format!("bench-{now}");
        let mut connection = Connection::open(&target).await?;
        let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        connection.post("/api/v1/namespaces", Bytes::from(body.to_string())).await?;
        let sandbox = Sandbox { target, namespace };
        sandbox.await_service_account(&mut connection).await?;
        Ok(sandbox)
    }

    /// Pods need the default service account. A bare API server has no controller that makes it.
    async fn await_service_account(&self, connection: &mut Connection) -> Result<()> {
        let accounts = self.path("serviceaccounts");
        let deadline = Instant::now() + SERVICE_ACCOUNT_WAIT;
        while Instant::now() < deadline {
            if connection.exists(&format!("{accounts}/default")).await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let body = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        connection.post(&accounts, Bytes::from(body.to_string())).await.map(drop)
    }

    /// The path of a core resource in the namespace.
    pub fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    /// Our address on the way to the API server: one that EndpointSlices may name.
    pub fn own_address(&self) -> Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((self.target.host.as_str(), self.target.port))?;
        let own = socket.local_addr()?.ip();
        ensure!(!own.is_loopback(), "the API server is reached over loopback, where no endpoint may be");
        Ok(own)
    }

    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.target).await
    }

    /// Creates pods over as many connections as `concurrency` says, and tells how long each took.
    pub async fn create_pods(
        &self,
        count: usize,
        concurrency: usize,
        pod: impl Fn(usize) -> Bytes,
    ) -> Result<Latencies> {
        let pods = self.path("pods");
        self.spread(count, concurrency, async |connection, n| connection.post(&pods, pod(n)).await.map(drop))
            .await
    }

    /// Does `work` for each number below `count`, over as many connections as `concurrency` says, and tells how long
    /// each took.
    pub async fn spread(
        &self,
        count: usize,
        concurrency: usize,
        work: impl AsyncFn(&mut Connection, usize) -> Result<()>,
    ) -> Result<Latencies> {
        let next = Cell::new(0);
        let connections =
            try_join_all((0..concurrency.clamp(1, count.max(1))).map(|_| self.connect())).await?;
        let worker = async |mut connection: Connection| {
            let mut took = Vec::new();
            while next.get() < count {
                let n = next.replace(next.get() + 1);
                let start = Instant::now();
                work(&mut connection, n).await?;
                took.push(start.elapsed());
            }
            anyhow::Ok(took)
        };
        let took = try_join_all(connections.into_iter().map(worker)).await?;
        Ok(Latencies::new(took.concat()))
    }

    /// The revision from which on a watch sees everything that is yet to come.
    pub async fn resource_version(&self, connection: &mut Connection) -> Result<String> {
        let list = connection.get(&format!("{}?limit=1", self.path("pods"))).await?;
        Ok(list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned())
    }

    /// Removes the pods, waits until they are gone, removes the namespace.
    async fn clean_up(&self) -> Result<()> {
        let deadline = Instant::now() + CLEAN_UP_WAIT;
        // A slow server may not get through all of them within the time of one request.
        loop {
            match self.remove_pods().await {
                Ok(true) => break,
                Ok(false) if Instant::now() > deadline => {
                    bail!("the pods in {} do not go", self.namespace)
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        let mut connection = self.connect().await?;
        connection.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await.map(drop)
    }

    /// Asks for the removal of all pods, and tells whether there are none left.
    async fn remove_pods(&self) -> Result<bool> {
        let mut connection = self.connect().await?;
        let pods = self.path("pods");
        connection.delete(&format!("{pods}?gracePeriodSeconds=1")).await?;
        let list = connection.get(&format!("{pods}?limit=1")).await?;
        Ok(list["items"].as_array().is_none_or(Vec::is_empty))
    }
}
