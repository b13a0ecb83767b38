//! Hides how the system tells what the generator and the server used: CPU time and memory.

use std::time::{Duration, Instant};

/// CPU time since some moment, of this process and, where its id is known, of the server's.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Option<u32>,
    since: Instant,
    generator_cpu: Duration,
    server_cpu: Option<Duration>,
    server_resident_bytes: Option<u64>,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) generator_cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
    /// At the first of them, and at the second.
    pub(crate) server_resident_before_bytes: Option<u64>,
    pub(crate) server_resident_bytes: Option<u64>,
}

// === impl Meter ===

impl Meter {
    pub(crate) fn start(server: Option<u32>) -> Meter {
        Meter {
            server,
            since: Instant::now(),
            generator_cpu: own_cpu(),
            server_cpu: server.and_then(process_cpu),
            server_resident_bytes: server.and_then(resident_bytes),
        }
    }

    pub(crate) fn read(&self) -> Usage {
        Usage {
            wall: self.since.elapsed(),
            generator_cpu: own_cpu().saturating_sub(self.generator_cpu),
            server_cpu: self
                .server
                .and_then(process_cpu)
                .zip(self.server_cpu)
                .map(|(now, before)| now.saturating_sub(before)),
            server_resident_before_bytes: self.server_resident_bytes,
            server_resident_bytes: self.server.and_then(resident_bytes),
        }
    }
}

fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// User and system time, in the kernel's ticks of usually 10 ms. Linux only.
fn process_cpu(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may itself hold spaces and brackets. utime and stime are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn resident_bytes(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_shows_up_in_both_readings_of_the_same_process() {
        let meter = Meter::start(Some(std::process::id()));
        let mut sum = 0_u64;
        while own_cpu() < meter.generator_cpu + Duration::from_millis(60) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = meter.read();
        assert!(usage.generator_cpu >= Duration::from_millis(60), "{usage:?}");
        assert!(usage.server_cpu.unwrap() >= Duration::from_millis(40), "{usage:?}");
        assert!(usage.server_resident_bytes.unwrap() > 1 << 20, "{usage:?}");
    }
}
