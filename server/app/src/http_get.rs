//! One HTTP/1.0 request by hand, for commands that ask a server: a client library would be most of their start-up time.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::Context as _;

/// A server that takes longer to answer does not answer.
const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The status code and the body of what `address` (`host:port`) answers at `path`.
///
/// # Errors
/// The server cannot be reached, or its answer is none.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let unreachable = || format!("cannot ask the server at {address}");
    let socket = address.to_socket_addrs().with_context(unreachable)?.next();
    let socket = socket.with_context(|| format!("{address} has no address: expected host:port"))?;
    let mut stream = TcpStream::connect_timeout(&socket, TIMEOUT).with_context(unreachable)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(unreachable)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).with_context(unreachable)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status =
        status.with_context(|| format!("{address} did not answer in HTTP: expected its HTTP port"))?;
    Ok((status, body.to_owned()))
}
