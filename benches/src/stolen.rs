//! How much of this machine's cores others on the same host took while something was measured.

use std::{fmt, fs, io};

use serde::Serialize;

/// Counts from when it was made.
pub struct Watch {
    began: Ticks,
}

/// Of the time of all cores; 0 on a machine of its own.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct StolenPercent(f64);

/// The kernel's counters, of all cores together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    stolen: u64,
    all: u64,
}

/// From here on latencies are those of the host and not of what is measured.
const DISTURBED_PERCENT: f64 = 2.0;

// === impl Watch ===

impl Watch {
    /// # Errors
    /// The system keeps no such counters.
    pub fn start() -> io::Result<Watch> {
        Ok(Watch { began: Ticks::now()? })
    }

    /// # Errors
    /// As [`Watch::start`].
    pub fn stop(self) -> io::Result<StolenPercent> {
        let now = Ticks::now()?;
        let all = now.all.saturating_sub(self.began.all).max(1);
        Ok(StolenPercent(100.0 * now.stolen.saturating_sub(self.began.stolen) as f64 / all as f64))
    }
}

// === impl StolenPercent ===

impl fmt::Display for StolenPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StolenPercent(percent) = self;
        write!(f, "other machines on this host took {percent:.1} % of the cores meanwhile")?;
        match *percent >= DISTURBED_PERCENT {
            true => f.write_str(": these numbers mean little, repeat them when it is quieter"),
            false => Ok(()),
        }
    }
}

// === impl Ticks ===

impl Ticks {
    fn now() -> io::Result<Ticks> {
        let text = fs::read_to_string("/proc/stat")?;
        Ticks::parse(&text).ok_or_else(|| io::Error::other("/proc/stat has no line of all cores"))
    }

    /// The line is `cpu`, then user, nice, system, idle, iowait, irq, softirq, steal; what follows is in user already.
    fn parse(text: &str) -> Option<Ticks> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks = line.split_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        Some(Ticks { stolen: *ticks.get(7)?, all: ticks.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_all_cores_is_read() {
        let text = "cpu  10 20 30 40 5 6 7 82 9 1\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(Ticks::parse(text), Some(Ticks { stolen: 82, all: 200 }));
        assert_eq!(Ticks::parse("cpu  10 20\n"), None);
    }

    #[test]
    fn a_disturbed_measurement_says_so() {
        assert!(StolenPercent(46.0).to_string().contains("took 46.0 % of the cores meanwhile: these"));
        assert!(StolenPercent(0.1).to_string().ends_with("meanwhile"));
    }
}
