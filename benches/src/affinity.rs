//! Which cores a process runs on.

use std::io;
use std::process::{Child, Command};

use anyhow::ensure;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this thread may run on, ascending.
///
/// # Errors
/// The system does not tell.
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Keeps this thread, and the threads and processes that it starts from now on, on `cores`.
///
/// # Errors
/// The process may not run on one of them.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The same on the `chosen` cores, or else on the first `count` of those that this thread may run on. Gives them.
///
/// # Errors
/// As [`cores`] and [`pin`].
pub fn pin_to(chosen: Option<&[usize]>, count: usize) -> io::Result<Vec<usize>> {
    let cores = match chosen {
        Some(chosen) => chosen.to_vec(),
        None => cores()?.into_iter().take(count).collect(),
    };
    pin(&cores)?;
    Ok(cores)
}

/// Keeps this thread, a client, on `client` and apart from servers on `server`.
///
/// # Errors
/// They are the same core, or this process may not run on one of them.
pub fn pin_client(client: usize, server: usize) -> anyhow::Result<()> {
    let cores = cores()?;
    for core in [server, client] {
        ensure!(cores.contains(&core), "this process may run on cores {cores:?}, not on {core}");
    }
    ensure!(server != client, "the client would take time from the servers on their core");
    Ok(pin(&[client])?)
}

/// Calls `work` on a thread that keeps to `cores`, as do the threads that it starts.
///
/// # Errors
/// The process may not run on one of them.
pub fn on<T: Send>(cores: &[usize], work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| pin(cores).map(|()| work()));
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts a process that keeps to `cores` from its first instruction, so that what it derives from the
/// number of its cores is right.
///
/// # Errors
/// The process may not run on one of them, or the program cannot be started.
pub fn spawn_on(cores: &[usize], command: &mut Command) -> io::Result<Child> {
    // A child inherits the mask of the thread that starts it.
    on(cores, || command.spawn())?
}
