//! What the kernel says about a process's memory, in units of 1000 kB.

use std::fs;

use anyhow::Context;

/// Resident at the moment.
///
/// # Errors
/// There is no such process.
pub fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    status_mb(pid, "VmRSS:")
}

/// The most that was ever resident.
///
/// # Errors
/// There is no such process.
pub fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    status_mb(pid, "VmHWM:")
}

fn status_mb(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    // The kernel says kB and means 1024 bytes.
    kilobytes
        .map(|value| value * 1024.0 / 1e6)
        .with_context(|| format!("the kernel says nothing about {field}"))
}
