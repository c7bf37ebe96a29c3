//! Bytes between a client and a port of a pod, until one of them has had enough.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may go on sending to a pod that has ended its half (containerd's portForward waits as long).
const GOODBYE: Duration = Duration::from_secs(1);

/// Copies both ways. A client may end its half and still wait for the answer; once the pod has ended its own there is
/// nothing more to come, and a client that itself waits for our end gets it soon after.
pub async fn relay(client: impl AsyncRead + AsyncWrite, mut pod: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_pod, mut to_pod) = pod.split();
    let asking = async {
        tokio::io::copy(&mut from_client, &mut to_pod).await?;
        to_pod.shutdown().await
    };
    let answering = async {
        tokio::io::copy(&mut from_pod, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(asking, answering);
    tokio::select! {
        asked = &mut asking => {
            asked?;
            answering.await
        }
        answered = &mut answering => {
            answered?;
            timeout(GOODBYE, asking).await.unwrap_or(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    /// A client and a pod with a relay between them.
    async fn connected() -> (DuplexStream, TcpStream, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (pod, _) = listener.accept().await.unwrap();
        let (client, far) = duplex(64);
        (client, pod, tokio::spawn(relay(far, near)))
    }

    #[tokio::test]
    async fn a_pod_that_ends_ends_a_client_that_would_wait_forever() {
        let (mut client, mut pod, relay) = connected().await;
        pod.write_all(b"answer").await.unwrap();
        drop(pod);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        // The client keeps its half open, as `kubectl` does until the server is done.
        relay.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_has_asked_gets_its_whole_answer() {
        let (mut client, mut pod, relay) = connected().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        pod.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        pod.write_all(b"answer").await.unwrap();
        drop(pod);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        relay.await.unwrap().unwrap();
    }
}
