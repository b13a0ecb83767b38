//! Made-up arrivals as `gristmill plan --arrivals` is told: `poisson:500`, `bursts:100,2000,700ms,300ms`, `diurnal:50,500,60s`.

use std::time::Duration;

use gristmill_engine::simulation::Process;

/// Reads a process as it is written on the command line.
///
/// # Errors
/// What was expected.
pub fn process(text: &str) -> Result<Process, String> {
    parse(text).ok_or_else(|| {
        format!(
            "`{text}`: expected poisson:RATE, bursts:CALM_RATE,BURST_RATE,CALM_TIME,BURST_TIME or \
             diurnal:LEAST_RATE,MOST_RATE,PERIOD, as in bursts:100,2000,700ms,300ms"
        )
    })
}

fn parse(text: &str) -> Option<Process> {
    let (kind, values) = text.split_once(':')?;
    let values: Vec<&str> = values.split(',').map(str::trim).collect();
    let rate = |text: &str| text.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
    let time = |text: &str| humantime::parse_duration(text).ok().filter(|time| *time > Duration::ZERO);
    match (kind, values.as_slice()) {
        ("poisson", [per_s]) => Some(Process::Poisson { per_s: rate(per_s)? }),
        ("bursts", [calm_per_s, burst_per_s, calm, burst]) => Some(Process::Bursts {
            calm_per_s: rate(calm_per_s)?,
            burst_per_s: rate(burst_per_s)?,
            calm: time(calm)?,
            burst: time(burst)?,
        }),
        ("diurnal", [least_per_s, most_per_s, period]) => {
            let (least_per_s, most_per_s) = (rate(least_per_s)?, rate(most_per_s)?);
            let process = Process::Diurnal { least_per_s, most_per_s, period: time(period)? };
            (least_per_s <= most_per_s).then_some(process)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read() {
        assert_eq!(process("poisson:500"), Ok(Process::Poisson { per_s: 500.0 }));
        let bursts = Process::Bursts {
            calm_per_s: 100.0,
            burst_per_s: 2000.0,
            calm: Duration::from_millis(700),
            burst: Duration::from_millis(300),
        };
        assert_eq!(process("bursts:100, 2000,700ms,300ms"), Ok(bursts));
        let period = Duration::from_secs(60);
        let diurnal = Process::Diurnal { least_per_s: 0.5, most_per_s: 500.0, period };
        assert_eq!(process("diurnal:0.5,500,60s"), Ok(diurnal));
    }

    #[test]
    fn what_is_none_says_what_was_expected() {
        let faults =
            ["", "poisson", "poisson:0", "poisson:inf", "bursts:1,2,3s", "diurnal:5,1,60s", "steady:5"];
        for text in faults {
            assert!(process(text).unwrap_err().contains("expected poisson:RATE"), "{text}");
        }
    }
}
