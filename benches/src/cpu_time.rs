//! How much CPU time another process has used, in all and by thread.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

/// CPU time by thread name; threads of one name are added up.
pub type ByThread = BTreeMap<String, Duration>;

/// CPU time of process `pid` since it began, in user and kernel mode, to the nanosecond for threads that
/// sleep now. Threads that have ended are not in it: servers at work keep theirs.
///
/// # Errors
/// There is no such process, or the kernel keeps no scheduler statistics.
pub fn by_thread(pid: u32) -> io::Result<ByThread> {
    let mut times = ByThread::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = entry?.path();
        let name = fs::read_to_string(task.join("comm"))?.trim_end().to_owned();
        let statistics = fs::read_to_string(task.join("schedstat"))?;
        let nanoseconds = statistics.split(' ').next().and_then(|field| field.parse().ok());
        let nanoseconds = nanoseconds.ok_or_else(|| io::Error::other("schedstat has no number in it"))?;
        *times.entry(name).or_default() += Duration::from_nanos(nanoseconds);
    }
    Ok(times)
}

/// What each thread used between two readings of [`by_thread`].
pub fn used_between(before: &ByThread, after: &ByThread) -> ByThread {
    let used = |(name, time): (&String, &Duration)| {
        (name.clone(), time.saturating_sub(before.get(name).copied().unwrap_or_default()))
    };
    after.iter().map(used).collect()
}

/// The sum over all threads.
///
/// # Errors
/// As [`by_thread`].
pub fn total(pid: u32) -> io::Result<Duration> {
    Ok(by_thread(pid)?.into_values().sum())
}
