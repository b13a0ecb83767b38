//! Servers under test: this program started again, on cores of their own, with a model repository of their own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use gristmill::cli;
use serde::Deserialize;
use tempfile::TempDir;

use crate::affinity::{self, spawn_on};
use crate::echo;
use crate::model::Model;

/// A running server; ended when dropped.
pub struct Server {
    process: Child,
    ready_after: Duration,
    addresses: Addresses,
    log: PathBuf,
    _directory: TempDir,
}

/// What a server writes to its ready file.
#[derive(Deserialize)]
struct Addresses {
    grpc: SocketAddr,
    /// The bare server has none.
    http: Option<SocketAddr>,
}

/// The first argument of a program that is to be the bare server, and not a measurement.
const ECHO: &str = "echo";
/// The first argument of one that is to be `gristmill`.
const GRISTMILL: &str = "gristmill";

/// How long a server may take until it is ready.
pub const START_MAX: Duration = Duration::from_secs(60);

/// To be called first in `main`: runs the server that this process was started as, if it was.
///
/// # Errors
/// The server's own.
pub fn run_if_asked() -> anyhow::Result<Option<ExitCode>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(ECHO) => {
            let ready_file = arguments.next().context("the bare server needs the path of its ready file")?;
            echo::serve(SocketAddr::from(([127, 0, 0, 1], 0)), Path::new(&ready_file))?;
            Ok(Some(ExitCode::SUCCESS))
        }
        Some(GRISTMILL) => {
            gristmill_onnx::disable_telemetry();
            match cli::Cli::parse_from(std::env::args().skip(1)).command {
                Some(cli::Command::Serve(args)) => gristmill::serve::run(&args).map(Some),
                _ => bail!("only `serve` is measured"),
            }
        }
        _ => Ok(None),
    }
}

/// The release build of this checkout, which lies beside the benches in `target/release`.
///
/// # Errors
/// It has not been built.
pub fn release_build() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let directory = this.parent().and_then(Path::parent).context("a bench lies in target/release/deps")?;
    let program = directory.join("gristmill");
    ensure!(
        program.exists(),
        "no {}: run `cargo build --release --package gristmill` first",
        program.display()
    );
    Ok(program)
}

/// A command without the settings of whoever runs the measurement.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("GRISTMILL_") || name == "ORT_DYLIB_PATH") {
            command.env_remove(name);
        }
    }
    command
}

/// Waits until a server has written its addresses to `ready_file`.
///
/// # Errors
/// It ends, or takes longer than `start_max`.
fn wait_for(ready_file: &Path, process: &mut Child, start_max: Duration) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(ready_file) {
            return Ok(text);
        }
        if let Some(status) = process.try_wait()? {
            bail!("the server ended before it was ready: {status}");
        }
        if start.elapsed() > start_max {
            bail!("the server was not ready after {start_max:?}");
        }
        pause(Duration::from_millis(1));
    }
}

/// Lets time go by.
#[expect(
    clippy::disallowed_methods,
    reason = "a measuring program waits for another process, not for a condition"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

// === impl Server ===

impl Server {
    /// The bare tonic server, on `cores`.
    ///
    /// # Errors
    /// It does not start.
    pub fn echo(cores: &[usize]) -> anyhow::Result<Server> {
        let directory = tempfile::tempdir()?;
        let ready_file = directory.path().join("ready.json");
        let mut command = command(&std::env::current_exe()?);
        command.arg(ECHO).arg(&ready_file);
        Server::start(cores, command, &ready_file, directory, START_MAX)
    }

    /// `gristmill serve` with `model` alone on ONNX Runtime, on `cores`. `flags` are added to the command.
    ///
    /// # Errors
    /// It does not start.
    pub fn gristmill(
        cores: &[usize],
        library: &Path,
        model: Model,
        flags: &[&str],
    ) -> anyhow::Result<Server> {
        let directory = tempfile::tempdir()?;
        let repository = directory.path().join("models");
        model.copy_to(&repository)?;
        Server::on_repository(cores, library, &repository, flags, directory)
    }

    /// The same with all models of `repository`; `directory` is removed with the server.
    ///
    /// # Errors
    /// It does not start.
    pub fn on_repository(
        cores: &[usize],
        library: &Path,
        repository: &Path,
        flags: &[&str],
        directory: TempDir,
    ) -> anyhow::Result<Server> {
        let ready_file = directory.path().join("ready.json");
        let mut command = command(&std::env::current_exe()?);
        command.args([GRISTMILL, "serve", "--backend", "onnxruntime", "--onnxruntime-library"]).arg(library);
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        command.arg("--repository").arg(repository).arg("--ready-file").arg(&ready_file).args(flags);
        Server::start(cores, command, &ready_file, directory, START_MAX)
    }

    /// The same of another build: `program serve` on all cores. Gives up after `start_max`.
    ///
    /// # Errors
    /// It does not start.
    pub fn of_program(
        program: &Path,
        library: &Path,
        repository: &Path,
        directory: TempDir,
        start_max: Duration,
    ) -> anyhow::Result<Server> {
        Server::of_program_on(&affinity::cores()?, program, library, repository, &[], directory, start_max)
    }

    /// The same on `cores`, with `flags` added to the command.
    ///
    /// # Errors
    /// It does not start.
    pub fn of_program_on(
        cores: &[usize],
        program: &Path,
        library: &Path,
        repository: &Path,
        flags: &[&str],
        directory: TempDir,
        start_max: Duration,
    ) -> anyhow::Result<Server> {
        let ready_file = directory.path().join("ready.json");
        let mut command = command(program);
        command.env("ORT_DYLIB_PATH", library).args(["serve", "--backend", "onnxruntime", "--repository"]);
        command.arg(repository).arg("--ready-file").arg(&ready_file).args(flags);
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
        Server::start(cores, command, &ready_file, directory, start_max)
    }

    fn start(
        cores: &[usize],
        mut command: Command,
        ready_file: &Path,
        directory: TempDir,
        start_max: Duration,
    ) -> anyhow::Result<Server> {
        let log: PathBuf = directory.path().join("log");
        command
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let start = Instant::now();
        let mut process = spawn_on(cores, &mut command)?;
        let addresses: anyhow::Result<Addresses> =
            wait_for(ready_file, &mut process, start_max).and_then(|text| Ok(serde_json::from_str(&text)?));
        match addresses {
            Ok(addresses) => {
                Ok(Server { process, ready_after: start.elapsed(), addresses, log, _directory: directory })
            }
            Err(error) => {
                process.kill()?;
                process.wait()?;
                Err(error.context(fs::read_to_string(&log).unwrap_or_default()))
            }
        }
    }

    /// Where it serves gRPC.
    pub fn address(&self) -> SocketAddr {
        self.addresses.grpc
    }

    /// Where it serves HTTP.
    ///
    /// # Errors
    /// It is the bare server, which does not.
    pub fn http_address(&self) -> anyhow::Result<SocketAddr> {
        self.addresses.http.context("the bare server has no HTTP")
    }

    /// What it has printed about itself and logged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// From its start until it said that it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing depends on how it ends, and there is nobody to tell.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}
