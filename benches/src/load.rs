//! A closed loop over several connections: always the same number of calls in flight.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use gristmill_proto::inference::{ModelInferRequest, ModelInferResponse};

use crate::connection::Connection;

/// Open connections to one server, each with a thread of its own while it is used.
pub struct Load {
    connections: Vec<Connection>,
}

/// What a loop measured.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    pub calls: usize,
    pub took: Duration,
    pub median: Duration,
    /// Of the calls' latencies too.
    pub p99: Duration,
}

// === impl Load ===

impl Load {
    /// Opens `connections` connections, each with a call whose answer `check` must like.
    ///
    /// # Errors
    /// A connection or a call fails, or `check` does.
    pub fn open(
        address: SocketAddr,
        connections: usize,
        request: &ModelInferRequest,
        check: impl Fn(&ModelInferResponse) -> anyhow::Result<()>,
    ) -> anyhow::Result<Load> {
        let open = |_| {
            let (connection, answer) = Connection::open(address, request)?;
            check(&answer)?;
            Ok(connection)
        };
        Ok(Load { connections: (0..connections).map(open).collect::<anyhow::Result<_>>()? })
    }

    /// Keeps `in_flight` calls open for `duration`, spread over as many connections as have one each.
    ///
    /// # Errors
    /// A call fails.
    pub fn run(&mut self, in_flight: usize, duration: Duration) -> anyhow::Result<Loop> {
        let used = self.connections.len().min(in_flight);
        ensure!(
            in_flight.is_multiple_of(used),
            "{in_flight} calls cannot be shared equally by {used} connections"
        );
        let start = Instant::now();
        let end = start + duration;
        let mut latencies = Vec::new();
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let loops: Vec<_> = self.connections[..used]
                .iter_mut()
                .map(|connection| scope.spawn(move || connection.run(in_flight / used, end)))
                .collect();
            for one in loops {
                latencies.extend(one.join().expect("a connection does not panic; this is a bug")?);
            }
            Ok(())
        })?;
        let took = start.elapsed();
        let middle = latencies.len() / 2;
        let (_, &mut median, _) = latencies.select_nth_unstable(middle);
        let last = latencies.len() * 99 / 100;
        let (_, &mut p99, _) = latencies.select_nth_unstable(last);
        Ok(Loop { calls: latencies.len(), took, median, p99 })
    }
}
