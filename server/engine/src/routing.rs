//! Which arm of a route a request goes to, and which routes can be: the same key gets the same arm for ever.

pub mod canary;
mod check;
mod passage;
mod sample;
mod split;
pub mod tally;
mod weight;
pub mod winner;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use xxhash_rust::xxh64::xxh64;

use self::canary::{Canary, Step};
pub(crate) use self::check::{check, check_version};
pub(crate) use self::passage::Passage;
pub(crate) use self::sample::Sampler;
use self::split::Split;
use self::tally::Tally;
pub use self::weight::Weight;
use crate::bandit;
use crate::comparison::Tolerance;
use crate::journal::Journal;
use crate::metrics::ArmMetrics;
use crate::prediction::{ArmName, PredictionId};
use crate::request::VersionSelector;

/// A served name whose requests go to one of several models or versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: String,
    pub policy: Policy,
    pub key: KeySource,
    /// Routes with the same salt and the same arms give a key the same arm; another salt deals anew.
    pub salt: String,
    /// The first is the control: the others must be usable by its clients.
    pub arms: Vec<Arm>,
    /// Where the policy is one. The arms' weights are those of its stage.
    pub canary: Option<Canary>,
    /// How the winner of a bandit comes to get everything: ascending, at once where there is none.
    pub rollout: Vec<Step>,
    /// Who answers requests too, for comparison.
    pub shadows: Vec<Shadow>,
}

/// One of those that a route's requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Keys are dealt by it: an arm may be pointed at another version and keeps its keys.
    pub name: String,
    pub model: String,
    pub version: VersionSelector,
    /// Nothing where the policy is a fallback or a bandit.
    pub weight: Weight,
}

/// A version that answers some of a route's requests besides, in time that nobody else wants, and whose answers are
/// compared with those that clients get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Its weight is the share of the keys that are mirrored.
    pub target: Arm,
    /// Answers further apart than this are a mismatch.
    pub tolerance: Tolerance,
    /// The worst mismatches are kept with the requests' inputs.
    pub keep_inputs: bool,
}

/// How an arm is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// By weight and key.
    Split,
    /// As a split, whose second arm grows by itself while it is as good as the first.
    Canary,
    /// The first that serves and does not refuse.
    Fallback,
    /// By shares that follow from rewards.
    Bandit(bandit::Settings),
}

/// Where a request says by which key it is dealt. One that does not say is dealt by its prediction id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The header or metadata `x-routing-key`.
    Header,
    /// A parameter of the request.
    Parameter(String),
    /// The request's own id.
    RequestId,
}

/// What a request says of itself. Only asked of requests to a route.
pub trait Keyed: Sync {
    fn key(&self, source: &KeySource) -> Option<Cow<'_, [u8]>>;
}

/// A request without any key.
pub struct Unkeyed;

/// A route, ready to choose.
pub(crate) struct Router {
    pub(crate) route: Route,
    split: Split,
    /// Of a bandit, in place of the split: replaced whenever rewards come.
    dealt: Option<ArcSwap<Split>>,
    /// Whether requests are dealt by their keys.
    has_keys: bool,
    /// Of the routing keys' hashes.
    key_seed: u64,
    arms: Vec<Arc<ArmHandles>>,
    journal: Arc<Journal>,
    /// Rewards of older predictions say nothing of its arms.
    began: Instant,
}

/// What the request path needs of an arm: behind one pointer, as each that a request holds costs it two atomic counts.
pub(crate) struct ArmHandles {
    pub(crate) name: Arc<ArmName>,
    metrics: ArmMetrics,
    /// Where a running canary wants to know.
    pub(crate) tally: Option<Tally>,
    journal: Arc<Journal>,
}

/// Where requests name their key, as a header or as metadata.
pub const KEY_HEADER: &str = "x-routing-key";

// === impl Route ===

impl Route {
    /// The same route with `arm` at `weight`, what the others had shared among them in proportion.
    ///
    /// A bandit ends when an arm gets everything: it is a split from then on.
    ///
    /// # Errors
    /// There is no such arm, or the policy has no weights.
    pub fn with_weight(&self, arm: &str, weight: Weight) -> Result<Route, String> {
        if matches!(self.policy, Policy::Bandit(_)) {
            if weight == Weight::ALL {
                let split = Route { policy: Policy::Split, rollout: Vec::new(), ..self.clone() };
                return split.with_weight(arm, weight);
            }
            return Err(format!(
                "route '{}' has no weights: its policy is bandit; an arm can get everything, which ends it",
                self.name
            ));
        }
        if self.policy == Policy::Fallback {
            return Err(format!(
                "route '{}' has no weights: its policy is {}; set its arms in another order instead",
                self.name,
                self.policy.name()
            ));
        }
        let Some(index) = self.arms.iter().position(|other| other.name == arm) else {
            return Err(format!(
                "route '{}' has no arm '{arm}': its arms are {}",
                self.name,
                self.arm_names()
            ));
        };
        if self.policy == Policy::Canary {
            let weighed = self.with_canary_weight(index, weight);
            return weighed.map_err(|why| format!("route '{}' {why}", self.name));
        }
        let before: Vec<Weight> = self.arms.iter().map(|arm| arm.weight).collect();
        let mut route = self.clone();
        for (arm, weight) in route.arms.iter_mut().zip(weight::with(&before, index, weight)) {
            arm.weight = weight;
        }
        Ok(route)
    }

    fn arm_names(&self) -> String {
        self.arms.iter().map(|arm| format!("'{}'", arm.name)).collect::<Vec<_>>().join(", ")
    }
}

// === impl Arm ===

impl Arm {
    /// The model and what is meant of it, for people: `digits`, `digits@2` or `digits@stable`.
    pub fn target(&self) -> String {
        match &self.version {
            VersionSelector::Default => self.model.clone(),
            VersionSelector::Number(version) => format!("{}@{version}", self.model),
            VersionSelector::Label(label) => format!("{}@{label}", self.model),
        }
    }
}

// === impl Policy ===

impl Policy {
    pub const ALL: [Policy; 4] =
        [Policy::Split, Policy::Canary, Policy::Fallback, Policy::Bandit(bandit::Settings::DEFAULT)];

    pub fn name(self) -> &'static str {
        match self {
            Policy::Split => "split",
            Policy::Canary => "canary",
            Policy::Fallback => "fallback",
            Policy::Bandit(_) => "bandit",
        }
    }
}

// === impl KeySource ===

/// Of a parameter's name in a key's text.
const PARAMETER_PREFIX: &str = "parameter:";

impl KeySource {
    /// `header`, `request_id` or `parameter:NAME`.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<KeySource, String> {
        match (text, text.strip_prefix(PARAMETER_PREFIX)) {
            ("header", _) => Ok(KeySource::Header),
            ("request_id", _) => Ok(KeySource::RequestId),
            (_, Some(name)) if !name.is_empty() => Ok(KeySource::Parameter(name.to_owned())),
            _ => Err(format!("key is \"{text}\": expected header, request_id or parameter:NAME")),
        }
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::Header => f.write_str("header"),
            KeySource::RequestId => f.write_str("request_id"),
            KeySource::Parameter(name) => write!(f, "{PARAMETER_PREFIX}{name}"),
        }
    }
}

impl Keyed for Unkeyed {
    fn key(&self, _source: &KeySource) -> Option<Cow<'_, [u8]>> {
        None
    }
}

// === impl Router ===

impl Router {
    pub(crate) fn new(route: Route, journal: Arc<Journal>) -> Router {
        let is_judged = route.running_canary().is_some();
        let handles = |arm: &Arm| {
            let name = ArmName { route: route.name.clone(), arm: arm.name.clone() };
            let metrics = ArmMetrics::new(&name);
            metrics.weight.set(arm.weight.share());
            let tally = is_judged.then(Tally::new);
            Arc::new(ArmHandles { name: Arc::new(name), metrics, tally, journal: Arc::clone(&journal) })
        };
        let arms = route.arms.iter().map(handles).collect();
        let key_seed = xxh64(route.salt.as_bytes(), 0);
        let (dealt, has_keys) = match route.policy {
            Policy::Split | Policy::Canary | Policy::Fallback => (None, true),
            Policy::Bandit(settings) => {
                let alike = vec![1.0 / route.arms.len() as f64; route.arms.len()];
                (Some(ArcSwap::from_pointee(Split::with_shares(&route, &alike))), settings.sticky)
            }
        };
        Router {
            split: Split::new(&route),
            dealt,
            has_keys,
            key_seed,
            arms,
            journal,
            began: Instant::now(),
            route,
        }
    }

    /// What a request without a key of its own is dealt by is its prediction id.
    pub(crate) fn key<'a>(&self, request: &'a dyn Keyed, prediction_id: &'a [u8; 16]) -> Cow<'a, [u8]> {
        request.key(&self.route.key).unwrap_or(Cow::Borrowed(prediction_id))
    }

    /// The same route, of whose arms nothing is known.
    pub(crate) fn anew(&self) -> Router {
        Router::new(self.route.clone(), Arc::clone(&self.journal))
    }

    pub(crate) fn arm(&self, index: usize) -> &ArmHandles {
        &self.arms[index]
    }

    /// The place among the arms of the one that this request goes to, and the hash of its key.
    pub(crate) fn choose(&self, request: &dyn Keyed, prediction_id: PredictionId) -> (usize, Option<u64>) {
        let pick = |key: &[u8]| match &self.dealt {
            Some(dealt) => dealt.load().pick(key),
            None => self.split.pick(key),
        };
        let key = request.key(&self.route.key);
        let hash = key.as_deref().filter(|_| self.journal.is_open()).map(|key| xxh64(key, self.key_seed));
        match key.filter(|_| self.has_keys) {
            Some(key) => (pick(&key), hash),
            None => (pick(&prediction_id.bytes()), hash),
        }
    }

    /// Gives a bandit's arms other shares, from the next request on.
    pub(crate) fn deal(&self, shares: &[f64]) {
        if let Some(dealt) = &self.dealt {
            dealt.store(Arc::new(Split::with_shares(&self.route, shares)));
            for (arm, share) in self.arms.iter().zip(shares) {
                arm.metrics.weight.set(*share);
            }
        }
    }

    /// A prediction of this age, which an arm made, was rewarded.
    pub(crate) fn rewarded(&self, index: usize, age: Duration, reward: f64) {
        if let Some(tally) = self.arms[index].tally.as_ref().filter(|_| age <= self.began.elapsed()) {
            tally.rewarded(reward);
        }
    }

    /// A request goes through an arm.
    pub(crate) fn pass(&self, index: usize, prediction_id: PredictionId, arrived: Instant) -> Passage {
        Passage::begin(Arc::clone(&self.arms[index]), prediction_id, arrived)
    }
}

#[cfg(test)]
mod tests;
