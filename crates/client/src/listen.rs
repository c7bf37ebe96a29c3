//! Opening ports as upstream's components do, which is as Go does: no address in particular means all of both families.

use std::io::{ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// Opens a port. On a machine without IPv6, all addresses are those of IPv4.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return TcpListener::bind(address).await;
    }
    let on = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, address.port()));
    match on(Ipv6Addr::UNSPECIFIED.into()).await {
        Err(error) if !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
            on(Ipv4Addr::UNSPECIFIED.into()).await
        }
        listening => listening,
    }
}

/// Opens a port on all addresses.
pub async fn listen_everywhere(port: u16) -> Result<TcpListener> {
    listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn no_address_in_particular_is_all_of_both_families() {
        let listener = listen_everywhere(0).await.expect("listens");
        let port = listener.local_addr().expect("has an address").port();
        for own in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            TcpStream::connect((own, port)).await.expect("connects");
        }
        let refused = listen((Ipv4Addr::UNSPECIFIED, port).into()).await.expect_err("is in use");
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        let one = listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("listens");
        assert_eq!(one.local_addr().expect("has an address").ip(), Ipv4Addr::LOCALHOST);
    }
}
