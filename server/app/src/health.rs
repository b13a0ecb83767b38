//! `gristmill health`: asks a running server whether it is ready, for container health checks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::HealthArgs;

/// A server that takes longer to say so is not healthy.
const TIMEOUT: Duration = Duration::from_secs(3);

/// One HTTP/1.0 request by hand: a client library would be most of this program's start-up time.
///
/// # Errors
/// The server cannot be reached.
pub fn run(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let address = args.server;
    let unreachable = || format!("cannot ask the server at {address}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(unreachable)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream
        .write_all(format!("GET /v2/health/ready HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .with_context(unreachable)?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).with_context(unreachable)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let ready = head.split_whitespace().nth(1) == Some("200");
    writeln!(std::io::stdout(), "{}", body.trim())?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
