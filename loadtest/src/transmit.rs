//! Decides what the load loops need from a protocol: send one encoded request, say how it ended.

use std::future::Future;
use std::time::Duration;

use crate::body::Payload;
use crate::error::Result;
use crate::model::Metadata;
use crate::record::{Answer, Outcome};

/// How long a request without a timeout may take before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How long after a request's timeout the generator stops waiting for the server's own word on it.
const GRACE: Duration = Duration::from_millis(500);

/// A model and version to ask for; an empty version leaves the choice to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelName {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// The requests to one model of a load: what each of them shares is prepared once.
#[derive(Clone, Debug)]
pub(crate) struct Workload<Head> {
    pub(crate) weight: f64,
    /// What the protocol sends in front of each body.
    pub(crate) head: Head,
    pub(crate) payloads: Vec<Payload>,
}

/// A connected sender of one protocol, cheap to clone.
pub(crate) trait Transmit: Clone + Send + Sync + 'static {
    /// What the protocol prepares per model.
    type Head: Clone + Send + Sync + 'static;

    fn head(&self, model: &ModelName, timeout: Option<Duration>) -> Result<Self::Head>;

    fn metadata(&self, model: &ModelName) -> impl Future<Output = Result<Metadata>> + Send;

    fn transmit(&self, head: &Self::Head, payload: &Payload) -> impl Future<Output = Answer> + Send;
}

/// Waits for `answer` no longer than the request's timeout and some grace, so that a load always ends.
pub(crate) async fn give_up(timeout: Option<Duration>, answer: impl Future<Output = Answer>) -> Answer {
    let limit = timeout.map_or(LOST_AFTER, |timeout| timeout + GRACE);
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let outcome = if timeout.is_some() { Outcome::Deadline } else { Outcome::Transport };
            Answer::failed(outcome, format!("no answer within {}", humantime::format_duration(limit)))
        }
    }
}
