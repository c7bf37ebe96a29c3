//! The least HTTP/1.1 that a proxy can be measured with: a backend that gives every request the same small response,
//! and clients that ask again as soon as they are answered. Both are plainer than any proxy, so that the proxy is what
//! is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::latency::Latencies;

const BODY: &str = "A small response, as health checks and most calls of an API have.\n";

/// Heads of requests and responses are far smaller.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens on a free port of `address`, and answers until the process ends.
pub async fn serve(address: std::net::IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream));
        }
    });
    Ok(address)
}

async fn answer_all(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut messages = Messages::new(&mut stream);
    while messages.head().await?.is_some() {
        messages.stream.write_all(response.as_bytes()).await?;
    }
    Ok(())
}

/// Asks over so many connections until `end`; tells how long each response took.
pub async fn ask(proxy: SocketAddr, host: &str, connections: usize, end: Instant) -> Result<Latencies> {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
    let clients = (0..connections).map(|_| ask_over_one(proxy, &request, end));
    Ok(Latencies::new(try_join_all(clients).await?.concat()))
}

async fn ask_over_one(proxy: SocketAddr, request: &str, end: Instant) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(proxy).await.with_context(|| format!("cannot connect to {proxy}"))?;
    stream.set_nodelay(true)?;
    let mut messages = Messages::new(&mut stream);
    let mut took = Vec::new();
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(took);
        }
        messages.stream.write_all(request.as_bytes()).await?;
        let response =
            tokio::time::timeout(PATIENCE, messages.response()).await.context("no response in time")?;
        ensure!(response? == BODY.as_bytes(), "{proxy} did not pass on the backend's response");
        took.push(start.elapsed());
    }
}

/// Messages over a connection, one after the other.
struct Messages<'a> {
    stream: &'a mut TcpStream,
    buffer: Vec<u8>,
}

impl Messages<'_> {
    fn new(stream: &mut TcpStream) -> Messages<'_> {
        Messages { stream, buffer: Vec::with_capacity(MESSAGE_BYTES_MAX) }
    }

    /// The next head, taken off; `None` when the other side has closed.
    async fn head(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Ok(Some(String::from_utf8(head)?));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The body of the next response, which must be a success of known length.
    async fn response(&mut self) -> Result<Vec<u8>> {
        let head = self.head().await?.context("the connection was closed")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "the response is {:?}", head.lines().next());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.context("the response does not tell its length")?;
        while self.buffer.len() < length {
            ensure!(self.read().await?, "the connection was closed within a response");
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn read(&mut self) -> Result<bool> {
        if self.buffer.len() >= MESSAGE_BYTES_MAX {
            bail!("a message is longer than {MESSAGE_BYTES_MAX} bytes");
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_are_answered_until_their_time_is_over() {
        let backend = serve([127, 0, 0, 1].into()).await.unwrap();
        let took = ask(backend, "example.org", 2, Instant::now() + Duration::from_millis(20)).await.unwrap();
        assert!(took.len() >= 2);
    }
}
