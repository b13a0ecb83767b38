//! As much of an HTTP client as it takes to ask a server about itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// A server that says nothing for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Status and body of `path`.
///
/// # Errors
/// No server, or no answer that can be understood.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    // Before 1.1 an answer ends with its connection, and is never in chunks.
    socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).with_context(|| format!("waiting for {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head and a body")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("expected a status, got {head:?}"))?, body.to_owned()))
}

/// The value of `name` for a version of a model in the text of `/metrics`.
pub fn gauge(metrics: &str, name: &str, model: &str, version: u64) -> Option<f64> {
    let (model, version) = (format!("model=\"{model}\""), format!("version=\"{version}\""));
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let (_, value) = lines.find_map(|line| {
        let (labels, value) = line.rsplit_once("} ")?;
        let mut both = [&model, &version].into_iter();
        both.all(|label| labels.split(',').any(|it| it == label)).then_some((labels, value))
    })?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_found_by_all_their_labels() {
        let text = "# TYPE a gauge\na{model=\"m\",version=\"1\"} 2\na{model=\"m\",version=\"11\"} 3\nab 4\n";
        assert_eq!(gauge(text, "a", "m", 11), Some(3.0));
        assert_eq!(gauge(text, "a", "m", 1), Some(2.0));
        assert_eq!(gauge(text, "a", "n", 1), None);
    }
}
