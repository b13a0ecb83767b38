//! `gristmill health`: asks a running server whether it is ready, for container health checks.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::HealthArgs;
use crate::http_get;

/// # Errors
/// The server cannot be reached.
pub fn run(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let (status, body) = http_get::get(&args.server.to_string(), "/v2/health/ready")?;
    writeln!(std::io::stdout(), "{}", body.trim())?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
