//! `gristmill models`: the commands about the models of a repository.

mod remote;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::remote::Order;
pub use self::remote::{LabelArgs, ModelArgs, RollBackArgs, ServerArgs};
use crate::import;

#[derive(Clone, Debug, Subcommand)]
pub enum ModelsCommand {
    /// Copy a model into a repository as a new version.
    ///
    /// The version appears whole or not at all, so a server that watches the repository never loads a
    /// part of one. A manifest with the size and SHA-256 of each file is written beside the model, and
    /// verified whenever the version is loaded. Exits with 1, leaving the repository as it was, when the
    /// model cannot be read or the version exists.
    Import(ImportArgs),
    /// List every model of a running server with its versions, states and labels.
    List(ServerArgs),
    /// Show one model with what has happened to it.
    Show(ModelArgs),
    /// Load a model now, whatever was unloaded, rolled back or failed before, and wait until it serves.
    Load(ModelArgs),
    /// Take a model out of service until it is loaded again.
    Unload(ModelArgs),
    /// Go back to the version that was served by default before.
    Rollback(RollBackArgs),
    /// Point a label at a version; requests may name it instead of a version.
    Label(LabelArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// An ONNX file, which is copied with the data files that it refers to, or a directory that holds
    /// model.onnx, of which every file is copied that is not hidden.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Name of the model: one directory of the repository.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Version to import as, 1 or more; by default the one after the newest.
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
    /// Directory of <model>/<version>/model.onnx. It is made where there is none.
    #[arg(long, env = "GRISTMILL_REPOSITORY", default_value = "models", value_name = "DIRECTORY")]
    pub repository: PathBuf,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Runs one of the commands.
///
/// # Errors
/// The answer cannot be written. What the command itself refuses is told on standard error.
pub fn run(command: &ModelsCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelsCommand::Import(args) => run_import(args),
        ModelsCommand::List(args) => remote::run(&Order::List(args)),
        ModelsCommand::Show(args) => remote::run(&Order::Show(args)),
        ModelsCommand::Load(args) => remote::run(&Order::Load(args)),
        ModelsCommand::Unload(args) => remote::run(&Order::Unload(args)),
        ModelsCommand::Rollback(args) => remote::run(&Order::RollBack(args)),
        ModelsCommand::Label(args) => remote::run(&Order::Label(args)),
    }
}

fn run_import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let imported = match import::import(&args.path, &args.repository, &args.name, args.version) {
        Ok(imported) => imported,
        Err(error) => {
            eprintln!("gristmill: nothing was imported: {error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let line = if args.json {
        serde_json::json!({
            "model": imported.model,
            "version": imported.version,
            "directory": imported.directory.display().to_string(),
            "files": imported.files,
            "bytes": imported.bytes,
        })
        .to_string()
    } else {
        let files = if imported.files == 1 { "file" } else { "files" };
        format!(
            "imported {} version {}: {} {files}, {} bytes in {}",
            imported.model,
            imported.version,
            imported.files,
            imported.bytes,
            imported.directory.display()
        )
    };
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
