//! `gristmill check`: loads and proves every model without serving, and says what was derived and why.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::{LoadReport, Options};
use gristmill_engine::registry::{DirRegistry, Registry};
use gristmill_engine::request::{ModelInfo, VersionSelector};
use gristmill_engine::tensor::TensorSpec;
use gristmill_onnx::Runtime;

use crate::cli::CheckArgs;
use crate::config::SettingsReader;
use crate::log_settings;

/// Labels shown for one output; the rest are counted.
const LABELS_SHOWN_MAX: usize = 8;

/// Checks a repository and prints what was found.
///
/// # Errors
/// The repository cannot be read at all, or the flags cannot be used.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    log_settings::start(&args.models.log)?;
    let runtime = Runtime::find(args.models.onnxruntime_library.as_deref())?;
    let reader = SettingsReader::new(&runtime, &args.models).map_err(anyhow::Error::msg)?;
    let read_settings = Box::new(move |directory: &Path| reader.read(directory));
    // What is checked lies still.
    let mut registry = DirRegistry::new(args.models.repository.clone(), read_settings, Duration::ZERO);
    let desired = registry.desired()?;
    let (engine, mut reconciler) = Engine::new(true, Options { proves_at_load: true, ..Options::default() });
    let reports = reconciler.load(desired);
    let mut output = std::io::stdout().lock();
    let faults =
        print(&mut output, &runtime, &engine, &reports).context("cannot write to standard output")?;
    reconciler.shut_down();
    Ok(if faults == 0 && !reports.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(
    output: &mut impl Write,
    runtime: &Runtime,
    engine: &Engine,
    reports: &[LoadReport],
) -> std::io::Result<usize> {
    writeln!(output, "{}\n", runtime.describe())?;
    let mut faults = 0;
    for report in reports {
        let name = match report.version {
            0 => report.model.clone(),
            version => format!("{} version {version}", report.model),
        };
        match (&report.result, engine.model(&report.model, &VersionSelector::Number(report.version))) {
            (Ok(()), Ok(info)) => {
                writeln!(output, "{name}: sound, loaded and proved in {} ms", report.took.as_millis())?;
                print_model(output, &info)?;
            }
            (Err(error), _) => {
                faults += 1;
                writeln!(output, "{name}: FAULT\n  {error}")?;
            }
            (Ok(()), Err(error)) => {
                faults += 1;
                writeln!(output, "{name}: FAULT\n  {error}")?;
            }
        }
        writeln!(output)?;
    }
    let passed_over = engine.passed_over();
    for one in &*passed_over {
        writeln!(output, "passed over: {one}")?;
    }
    if !passed_over.is_empty() {
        writeln!(output)?;
    }
    match (reports.len(), faults) {
        (0, _) => {
            writeln!(output, "the repository has no model: expected <model>/<version>/model.onnx in it")?
        }
        (all, 0) => writeln!(output, "{all} of {all} versions are sound")?,
        (all, faults) => writeln!(output, "{faults} of {all} versions are at fault")?,
    }
    Ok(faults)
}

fn print_model(output: &mut impl Write, info: &ModelInfo) -> std::io::Result<()> {
    for spec in &info.signature.inputs {
        let optional = if spec.optional { " (optional)" } else { "" };
        writeln!(output, "  input   {spec}{optional}")?;
    }
    for spec in &info.signature.outputs {
        writeln!(output, "  output  {spec}{}", labels(spec))?;
    }
    writeln!(output, "  batch   at most {} rows, delay {:?}", info.batch_rows_max, info.batch_delay)?;
    for note in &info.notes {
        writeln!(output, "  why     {note}")?;
    }
    Ok(())
}

fn labels(spec: &TensorSpec) -> String {
    if spec.labels.is_empty() {
        return String::new();
    }
    let shown: Vec<&str> = spec.labels.iter().take(LABELS_SHOWN_MAX).map(String::as_str).collect();
    let more = match spec.labels.len().saturating_sub(LABELS_SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" labels {}{more}", shown.join(", "))
}
