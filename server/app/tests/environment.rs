//! Environment variables that are set and empty, as templates leave them, count as unset.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use clap::CommandFactory as _;
use gristmill::cli::Cli;

/// What the program reads beside the variables of its flags.
const OTHERS: [&str; 8] = [
    "ORT_DYLIB_PATH",
    "ORT_DISABLE_TELEMETRY",
    "HOSTNAME",
    "AIP_HTTP_PORT",
    "AIP_HEALTH_ROUTE",
    "AIP_PREDICT_ROUTE",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Killed with the test, should it fail.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended when the test went well.
        let _ended = self.0.kill();
    }
}

fn variables(command: &clap::Command, found: &mut Vec<String>) {
    let named = command.get_arguments().filter_map(|argument| argument.get_env());
    found.extend(named.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| variables(command, found));
}

/// The program with every variable that it knows set to nothing.
fn program() -> Command {
    let mut names = OTHERS.map(str::to_owned).to_vec();
    variables(&Cli::command(), &mut names);
    assert!(names.len() > 50, "the variables were found: {names:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.envs(names.iter().map(|name| (name, ""))).stdin(Stdio::null());
    command
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

#[test]
fn a_server_starts() {
    let serve = program()
        .args(["serve", "--backend", "tract", "--lame-duck", "0s", "--repository"])
        .arg(repository())
        .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(serve);
    let log = BufReader::new(program.0.stderr.take().unwrap());
    let mut seen = Vec::new();
    for line in log.lines() {
        seen.push(line.unwrap());
        if seen.last().unwrap().contains("ready in") {
            return;
        }
    }
    panic!("the server ended: {seen:#?}");
}

#[test]
fn defaults_count() {
    // The default is the directory `models` of the current one.
    let check = program()
        .args(["check", "--backend", "tract"])
        .current_dir(repository().join(".."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
    let health = program().arg("health").output().unwrap();
    let said = String::from_utf8_lossy(&health.stderr);
    assert!(!said.contains("invalid value") && !said.contains("a value is required"), "{said}");
}

#[test]
fn what_is_set_counts() {
    let check = program().env("GRISTMILL_BACKEND", "none").arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(said.contains("invalid value 'none' for '--backend <BACKEND>'"), "{said}");
}
