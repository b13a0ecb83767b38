//! What the kernel says about a process: its memory, in units of 1000 kB, and its threads.

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

/// Threads that it has now.
///
/// # Errors
/// There is no such process.
pub fn threads(pid: u32) -> anyhow::Result<usize> {
    Ok(status(pid, "Threads:")? as usize)
}

fn status_mb(pid: u32, field: &str) -> anyhow::Result<f64> {
    // The kernel says kB and means 1024 bytes.
    Ok(status(pid, field)? * 1024.0 / 1e6)
}

fn status(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("the kernel says nothing about {field}"))
}
