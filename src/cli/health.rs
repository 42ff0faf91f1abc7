//! `online-compiler health`: asks the running server, for Docker's HEALTHCHECK.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{complain, say};
use crate::config::Config;

const DEADLINE: Duration = Duration::from_secs(40);

pub async fn run(config: &Config) -> ExitCode {
    let host = match config.host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    let address = SocketAddr::new(host, config.port);
    match tokio::time::timeout(DEADLINE, ask(address)).await {
        Ok(Ok((true, body))) => {
            say(&body);
            ExitCode::SUCCESS
        }
        Ok(Ok((false, body))) => complain(&body),
        Ok(Err(error)) => complain(&format!("{address}: {error}")),
        Err(_) => complain(&format!("{address} does not answer")),
    }
}

/// Whether the answer is 200, and its body. HTTP/1.0, so that the end of the connection is the end of the body.
async fn ask(address: SocketAddr) -> std::io::Result<(bool, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /api/health HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let well = answer.split(' ').nth(1) == Some("200");
    let body = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned());
    Ok((well, body))
}
