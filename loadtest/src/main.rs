//! The binary: parses the command line and turns the outcome into an exit status.

use std::process::ExitCode;

use clap::Parser;
use gristmill_loadtest::cli::Cli;
use gristmill_loadtest::command::execute;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    Ok(ExitCode::from(execute(&Cli::parse())?))
}
