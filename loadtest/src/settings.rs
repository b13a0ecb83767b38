//! What a load is made of: all that a result must name to be repeated.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::model::Dimensions;
use crate::schedule::Arrivals;

/// One load, with nothing left open.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Settings {
    /// `host:port`
    pub(crate) address: String,
    pub(crate) body: Body,
    pub(crate) models: Vec<ModelSettings>,
    pub(crate) load: Load,
    pub(crate) extent: ExtentSettings,
    pub(crate) warmup_s: f64,
    pub(crate) timeout_ms: Option<f64>,
    pub(crate) slo_ms: Option<f64>,
    /// Over all threads. With HTTP, the most that are made.
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) seed: u64,
    /// The process whose CPU time and memory are read beside the load.
    pub(crate) server_pid: Option<u32>,
    /// What was sent is kept, to be written down. No part of the load, and so of no result.
    #[serde(skip)]
    pub(crate) keeps_sent: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct ModelSettings {
    pub(crate) name: String,
    /// Empty for the version that the server chooses.
    pub(crate) version: String,
    /// The share of requests is the weight over the sum of the weights.
    pub(crate) weight: f64,
    /// Rows per request; `None` for one random row, or for all rows of `input`.
    pub(crate) rows: Option<usize>,
    pub(crate) input: Option<PathBuf>,
    pub(crate) dimensions: Dimensions,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub(crate) enum Load {
    Closed { in_flight: usize },
    Open { rate_per_s: f64, arrivals: Arrivals, in_flight_max: u32 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExtentSettings {
    DurationS(f64),
    Requests(u64),
}

// === impl Settings ===

impl Settings {
    /// Says what does not make sense before anything is connected.
    pub(crate) fn check(&self) -> Result<()> {
        let fault = |why: String| Err(Error::Settings(why));
        if self.models.is_empty() {
            return fault("no model is named: say which with --model NAME".to_owned());
        }
        if let Some(model) =
            self.models.iter().find(|model| !(model.weight > 0.0 && model.weight.is_finite()))
        {
            return fault(format!("model `{}`: weight {} is not above 0", model.name, model.weight));
        }
        if let Some(model) = self.models.iter().find(|model| model.rows == Some(0)) {
            return fault(format!("model `{}`: a request of 0 rows asks for nothing", model.name));
        }
        if self.threads == 0 || self.connections == 0 {
            return fault("at least one thread and one connection are needed".to_owned());
        }
        match self.load {
            Load::Closed { in_flight } if in_flight < self.threads => fault(format!(
                "{in_flight} requests in flight do not keep {} threads busy: ask for more concurrency or \
                 fewer threads",
                self.threads
            )),
            Load::Open { rate_per_s, .. } if !(rate_per_s > 0.0 && rate_per_s.is_finite()) => {
                fault(format!("the rate is {rate_per_s} requests a second, expected more than 0"))
            }
            Load::Open { in_flight_max: 0, .. } => fault("no request may be in flight".to_owned()),
            _ => Ok(()),
        }
    }

    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_s)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(|timeout| Duration::from_secs_f64(timeout / 1e3))
    }

    pub(crate) fn slo(&self) -> Option<Duration> {
        self.slo_ms.map(|slo| Duration::from_secs_f64(slo / 1e3))
    }
}

// === impl ModelSettings ===

impl ModelSettings {
    /// The name, and the version where one is asked for.
    pub(crate) fn label(&self) -> String {
        match self.version.as_str() {
            "" => self.name.clone(),
            version => format!("{}:{version}", self.name),
        }
    }
}

/// `whole` divided among `shares` as evenly as it goes; what is left over goes to the first ones.
pub(crate) fn share(whole: u64, index: usize, shares: usize) -> u64 {
    let (index, shares) = (index as u64, shares as u64);
    whole / shares + u64::from(index < whole % shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        let shares: Vec<_> = (0..4).map(|index| share(10, index, 4)).collect();
        assert_eq!(shares, [3, 3, 2, 2]);
    }
}
