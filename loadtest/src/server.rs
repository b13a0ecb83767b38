//! Hides starting a server for a scenario, learning its addresses, and stopping it.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::scenario::ServerCommand;

/// How often the ready file is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to stop after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) addresses: Addresses,
}

/// What a server writes into its ready file.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) http: Option<String>,
    pub(crate) grpc: Option<String>,
}

// === impl Server ===

impl Server {
    /// Starts the command and waits until it is ready.
    pub(crate) async fn start(server: &ServerCommand) -> Result<Server> {
        let error = |why: String| Error::Server { command: server.command.join(" "), why };
        let directory = TempDir::new().map_err(|why| error(format!("no place for its ready file: {why}")))?;
        let ready_file = directory.path().join("ready.json");
        let mut words =
            server.command.iter().map(|word| word.replace("{ready_file}", &ready_file.to_string_lossy()));
        let program = words.next().ok_or_else(|| error("the command is empty".to_owned()))?;
        let mut child = Command::new(&program)
            .args(words)
            .envs(&server.environment)
            .spawn()
            .map_err(|why| error(format!("cannot start it: {why}")))?;
        let deadline = Instant::now() + server.ready_timeout;
        loop {
            // The file appears whole or is read again: half a JSON document does not parse.
            let written = std::fs::read(&ready_file).ok();
            if let Some(addresses) = written.and_then(|text| serde_json::from_slice(&text).ok()) {
                return Ok(Server { child, addresses });
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(error(format!("it ended before it was ready: {status}")));
            }
            if Instant::now() >= deadline {
                drop(Server { child, addresses: Addresses { http: None, grpc: None } });
                let limit = humantime::format_duration(server.ready_timeout);
                return Err(error(format!("it was not ready within {limit}; see its log above")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the server to stop, and waits for it; a server that does not stop is killed.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn ask_to_stop(&self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which is as good.
            kill_process(id, Signal::TERM).ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Both fail only where it has ended meanwhile.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
