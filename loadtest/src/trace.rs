//! Decides how what was sent is written down: a CSV file that `gristmill plan --trace` reads.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::{Error, Result};
use crate::record::{Recorder, Sent};
use crate::settings::Settings;

/// Writes a line for every request, the warm-up's too, in the order in which they were sent: when, from the start and
/// in µs, to which model, how many rows, and how long an answer was waited for, in µs, where that was limited.
pub(crate) fn write(path: &Path, settings: &Settings, models: &[Recorder]) -> Result<()> {
    let deadline = settings.timeout().map_or_else(String::new, |timeout| timeout.as_micros().to_string());
    let named = settings.models.iter().zip(models);
    let mut all: Vec<(Sent, &str)> = named
        .flat_map(|(model, recorder)| recorder.sent().iter().map(|sent| (*sent, model.name.as_str())))
        .collect();
    all.sort_unstable();
    let mut text = "at_us,model,rows,deadline_us\n".to_owned();
    for (Sent { at, rows }, model) in all {
        writeln!(text, "{},{model},{rows},{deadline}", at.as_micros())
            .expect("a string takes what is written to it; this is a bug");
    }
    std::fs::write(path, text).map_err(|error| Error::File { path: path.to_owned(), why: error.to_string() })
}
