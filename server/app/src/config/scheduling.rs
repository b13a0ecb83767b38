//! What `model.toml` says about when requests are due.

use std::time::Duration;

/// How long after its arrival an answer is worth having.
pub(super) fn slo(text: &str) -> Result<Duration, String> {
    let slo = humantime::parse_duration(text)
        .map_err(|why| format!("slo is \"{text}\": expected a duration such as \"50ms\" ({why})"))?;
    if slo.is_zero() {
        return Err(format!("slo is \"{text}\": expected more than nothing, such as \"50ms\""));
    }
    Ok(slo)
}
