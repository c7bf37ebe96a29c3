//! Many watches of one path, as programs hold them.

use anyhow::Result;
use futures_util::future::try_join_all;

use crate::arrival::{Arrival, Stamped};
use crate::connection::{self, Connection, Watch};
use crate::kubeconfig::Target;

/// Streams that upstream's API server allows a connection (`MaxConcurrentStreams` in its secure serving).
const STREAMS_MAX: i64 = 100;

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Sharing {
    /// Watches that share a connection, over HTTP/2 as client-go's do; without it each has one of its own over HTTP/1.1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=STREAMS_MAX))]
    share: Option<u32>,
}

impl Sharing {
    /// Opens so many watches. Beside each stands when the last bytes on its connection arrived.
    pub async fn open(self, target: &Target, path: &str, count: usize) -> Result<Vec<(Watch, Arrival)>> {
        let each = self.share.map_or(1, |share| share as usize);
        let connections = (0..count).step_by(each);
        let opened = connections.map(|first| self.connect(target, path, each.min(count - first)));
        Ok(try_join_all(opened).await?.into_iter().flatten().collect())
    }

    async fn connect(self, target: &Target, path: &str, count: usize) -> Result<Vec<(Watch, Arrival)>> {
        let stream = Stamped::new(connection::dial(target).await?)?;
        let arrival = stream.arrival();
        let connection = match self.share {
            Some(_) => Connection::http2(target, stream).await?,
            None => Connection::http1(target, stream).await?,
        };
        let watches = connection.watches(path, count).await?;
        Ok(watches.into_iter().map(|watch| (watch, arrival.clone())).collect())
    }
}
