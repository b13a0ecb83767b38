//! Calls at a steady rate, whether or not the answers to the ones before have come.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gristmill_proto::inference::ModelInferRequest;

use crate::connection::Connection;
use crate::server::pause;

/// Connections that take turns, so that a call waits for one before it only when all are late.
pub struct Paced {
    connections: Vec<Connection>,
    rate_per_s: f64,
}

// === impl Paced ===

impl Paced {
    /// # Errors
    /// A connection or its first call fails.
    pub fn open(
        address: SocketAddr,
        connections: usize,
        request: &ModelInferRequest,
        rate_per_s: f64,
    ) -> anyhow::Result<Paced> {
        let open = |_| Ok(Connection::open(address, request)?.0);
        Ok(Paced { connections: (0..connections).map(open).collect::<anyhow::Result<_>>()?, rate_per_s })
    }

    /// Calls until `is_over`; gives the latencies. That of a call which could not be sent in time, because its
    /// connection still waited, counts from when it was due.
    ///
    /// # Errors
    /// A call fails.
    pub fn run(&mut self, is_over: impl Fn() -> bool + Sync) -> anyhow::Result<Vec<Duration>> {
        let interval = Duration::from_secs_f64(1.0 / self.rate_per_s);
        let own_interval = interval * self.connections.len() as u32;
        let start = Instant::now();
        let is_over = &is_over;
        let mut latencies = Vec::new();
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let threads: Vec<_> = (0..)
                .zip(&mut self.connections)
                .map(|(index, connection)| {
                    scope.spawn(move || one(connection, start + interval * index, own_interval, is_over))
                })
                .collect();
            for thread in threads {
                latencies.extend(thread.join().expect("a connection does not panic; this is a bug")?);
            }
            Ok(())
        })?;
        Ok(latencies)
    }

    /// Calls for `length`; gives the latencies, ascending.
    ///
    /// # Errors
    /// A call fails.
    pub fn run_for(&mut self, length: Duration) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + length;
        let mut latencies = self.run(|| Instant::now() >= end)?;
        latencies.sort_unstable();
        Ok(latencies)
    }
}

fn one(
    connection: &mut Connection,
    mut due: Instant,
    interval: Duration,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while !is_over() {
        let was_late = Instant::now() > due;
        pause(due.saturating_duration_since(Instant::now()));
        // A client that wakes late is not the server's doing; one that still waited for an answer is.
        let start = if was_late { due } else { Instant::now() };
        connection.call()?;
        latencies.push(start.elapsed());
        due += interval;
    }
    Ok(latencies)
}

/// The latency that `share` of all calls stay within.
pub fn percentile(ascending: &[Duration], share: f64) -> Duration {
    let place = (ascending.len() as f64 * share).ceil() as usize;
    ascending.get(place.clamp(1, ascending.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_calls_that_were_made() {
        let calls: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&calls, 0.99), Duration::from_millis(198));
        assert_eq!(percentile(&calls, 0.5), Duration::from_millis(100));
        assert_eq!(percentile(&calls[..1], 0.99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 0.99), Duration::ZERO);
    }
}
