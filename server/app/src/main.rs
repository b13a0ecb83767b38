//! The program `gristmill`: picks the command and runs it.

use std::process::ExitCode;

use gristmill::cli::{Cli, Command, ServeArgs};
use gristmill::{check, experiments_command, health, models_command, plan_command, routes_command, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gristmill_onnx::disable_telemetry();
    let command =
        Cli::read().command.unwrap_or_else(|| Command::Serve(Box::new(ServeArgs::from_environment())));
    let result = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Plan(args) => plan_command::run(&args),
        Command::Models(command) => models_command::run(&command),
        Command::Routes(command) => routes_command::run(&command),
        Command::Experiments(command) => experiments_command::run(&command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gristmill: {error:#}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// EX_CONFIG of sysexits.h: the program could not be set up as asked.
const EXIT_CONFIG: u8 = 78;
