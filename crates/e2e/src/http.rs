//! The smallest HTTP client: one GET per connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// What one request gets.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks from the network of the calling thread.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).context("cannot connect")?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .context("cannot ask")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("no whole answer")?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> anyhow::Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("the answer ends within its head")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim().parse::<usize>())
        .transpose()?;
    if let Some(length) = length {
        ensure!(body.len() == length, "the body has {} bytes of {length}", body.len());
    }
    Ok(Answer { status: status.parse()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_cut_short_is_no_answer() {
        let whole = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!(whole, Answer { status: 200, body: "abc".to_owned() });
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nContent-").is_err());
        assert!(parse("").is_err());
    }
}
