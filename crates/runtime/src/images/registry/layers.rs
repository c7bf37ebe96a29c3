//! A layer on its way from a registry into a folder: unpacked while it is fetched, so that neither waits for the
//! other and the compressed bytes never touch the disk.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::blocking;
use super::session::{Host, Refusals, Session, check};
use crate::images::layer::{self, Unpacked};
use crate::images::manifest::Descriptor;
use crate::images::{Error, Result};

/// Pieces fetched ahead of the unpacking; hyper's are of some 8 to 400 kB.
const PIECES_AHEAD: usize = 64;

impl Session<'_> {
    /// Fetches a layer from the first host that has it, and unpacks it into the empty folder `dir`.
    pub async fn layer(&self, layer: &Descriptor, dir: &Path) -> Result<Unpacked> {
        let mut refusals = Refusals::default();
        for (index, host) in self.hosts() {
            match self.layer_from(host, layer, dir).await {
                Ok(unpacked) => {
                    self.prefer(index);
                    return Ok(unpacked);
                }
                // What cannot be written here, no other host makes writable.
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => refusals.add(host, error),
            }
            empty(dir.to_owned()).await?;
        }
        Err(self.refused(refusals))
    }

    async fn layer_from(&self, host: &Host, layer: &Descriptor, dir: &Path) -> Result<Unpacked> {
        let body = self.get(host, &format!("blobs/{}", layer.digest), "layer").await?;
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let dir = dir.to_owned();
        let unpacking = blocking(move || layer::unpack(Pieces { pieces, current: Bytes::new() }, &dir));
        let (fetched, unpacked) = tokio::join!(fetch(host, body, layer, sender), unpacking);
        match fetched {
            // Cut short or forged: what the unpacking makes of that says less.
            Err(error) => Err(error),
            Ok(Fetched::Whole) => unpacked,
            Ok(Fetched::Unwanted) => {
                unpacked.and_then(|_| Err(Error::malformed("layer", "there is more after its end")))
            }
        }
    }
}

enum Fetched {
    Whole,
    /// The unpacking stopped before the end; it knows why.
    Unwanted,
}

/// Passes a body on, and checks that it is what the manifest says.
async fn fetch(
    host: &Host,
    mut body: Incoming,
    layer: &Descriptor,
    sender: mpsc::Sender<Bytes>,
) -> Result<Fetched> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some(piece) = host.chunk(&mut body).await? {
        hash.update(&piece);
        length += piece.len() as u64;
        if layer.size > 0 && length > layer.size {
            return Err(Error::TooLarge { what: "layer", max: layer.size });
        }
        if sender.send(piece).await.is_err() {
            return Ok(Fetched::Unwanted);
        }
    }
    check("layer", &layer.digest, &layer::digest_text(hash))?;
    Ok(Fetched::Whole)
}

/// What was fetched, as a file is read. On a thread that may block.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current[..length]);
        self.current.advance(length);
        Ok(length)
    }
}

/// Removes what a failed attempt left.
async fn empty(dir: PathBuf) -> Result<()> {
    blocking(move || {
        std::fs::remove_dir_all(&dir)
            .and_then(|()| std::fs::create_dir(&dir))
            .map_err(Error::io("empty folder", &dir))
    })
    .await
}
