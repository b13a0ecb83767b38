//! One model: its versions on disk and in memory, its labels and its default, and what has happened to it.

mod default;
mod history;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Gauge;

pub use self::history::{Event, EventKind};
use crate::backend::Artifact;
use crate::conduct::Summary;
use crate::deployment::Deployment;
use crate::error::LoadError;
use crate::metrics::{VersionGauges, model_ready};
use crate::plan::{Failed, Held, Step, Wanted, plan};
use crate::registry::{DesiredModel, ModelSettings, SourceState, Stamp, VersionPolicy, VersionSource};
use crate::request::VersionSelector;
use crate::service_level::ServiceLevel;
use crate::workers::{Order, Workers};

/// What a request without a version gets, where a model has this label.
pub const STABLE: &str = "stable";

/// Pause before a failed load is tried again; doubles with each failure ...
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// ... up to this.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// A model as the reconciler manages it.
pub(crate) struct Managed {
    name: String,
    service_level: Arc<ServiceLevel>,
    source: Source,
    /// False when it was unloaded through an interface, or has not been asked for where that is needed.
    pub(crate) is_asked_for: bool,
    slots: BTreeMap<u64, Slot>,
    /// Set through an interface; they go before those of the settings. `None` was taken away.
    labels: BTreeMap<String, Option<u64>>,
    /// Versions that an arm of a route names: they are wanted whatever the policy says.
    pub(crate) named_by_routes: BTreeSet<u64>,
    /// Contents that were rolled back, and why.
    held_back: BTreeMap<u64, (Stamp, String)>,
    default: Option<u64>,
    /// What was the default before.
    previous: Option<u64>,
    history: VecDeque<Event>,
    watched: Option<Watched>,
    /// Says that the model as a whole is at fault, while it is.
    faulty: Option<Gauge>,
    /// Every load that it wanted has ended once.
    is_tried: bool,
    /// It has served, under this server or the one before it, and nobody has taken it away since.
    pub(crate) has_served: bool,
    /// Says that something of it that ought to serve cannot, while that is so.
    failing: Option<Gauge>,
    /// What the log was last told of its files.
    told: Option<String>,
}

/// A version that has just become the default.
struct Watched {
    version: u64,
    until: Instant,
    /// How the one before it behaved until then.
    before: Summary,
}

/// What the repository says.
enum Source {
    Sound { versions: BTreeMap<u64, VersionSource>, settings: Arc<ModelSettings> },
    Faulty { reason: String },
    Gone,
}

/// What there is of one version in memory.
#[derive(Default)]
struct Slot {
    ready: Option<Ready>,
    loading: Option<Loading>,
    failure: Option<Failure>,
    keep_until: Option<Instant>,
    gauges: Option<VersionGauges>,
}

struct Ready {
    workers: Workers,
    stamp: Stamp,
}

struct Loading {
    stamp: Stamp,
    load: u64,
    since: Instant,
}

struct Failure {
    stamp: Stamp,
    attempts: u32,
    /// `None` until somebody asks, for contents that fail whenever they are tried.
    retry_at: Option<Instant>,
    error: LoadError,
}

/// A model as operators see it.
#[derive(Clone, Debug)]
pub struct ModelDetails {
    pub name: String,
    /// What a request without a version gets.
    pub default: Option<u64>,
    /// What it was before; the way back leads there.
    pub previous: Option<u64>,
    pub labels: BTreeMap<String, u64>,
    /// For people, such as `the latest 2`.
    pub policy: Option<String>,
    /// What has happened to it, the oldest first.
    pub history: Vec<Event>,
}

// === impl Managed ===

impl Managed {
    pub(crate) fn new(name: String, is_asked_for: bool) -> Managed {
        Managed {
            service_level: ServiceLevel::new(&name, Instant::now()),
            name,
            source: Source::Gone,
            is_asked_for,
            slots: BTreeMap::new(),
            labels: BTreeMap::new(),
            named_by_routes: BTreeSet::new(),
            held_back: BTreeMap::new(),
            default: None,
            previous: None,
            history: VecDeque::new(),
            watched: None,
            faulty: None,
            is_tried: false,
            has_served: false,
            failing: None,
            told: None,
        }
    }

    /// Takes over what the repository says now; `None` when the model is not in it any more.
    pub(crate) fn observe(&mut self, desired: Option<DesiredModel>) {
        self.source = match desired {
            Some(DesiredModel::Sound { versions, settings }) => {
                // Contents that nobody wants any more are not at fault any more.
                for (version, slot) in &mut self.slots {
                    let stamp = versions.get(version).map(|source| source.stamp);
                    slot.failure.take_if(|failure| Some(failure.stamp) != stamp);
                }
                self.service_level.set_objective(settings.slo_objective);
                Source::Sound { versions, settings }
            }
            Some(DesiredModel::Faulty { reason }) => Source::Faulty { reason },
            // Its directory is there: whoever meant to remove the model would have removed that.
            Some(DesiredModel::Vacant { reason }) if self.has_served || self.serves() => {
                Source::Faulty { reason: format!("{reason}; remove the directory if the model is to go") }
            }
            Some(DesiredModel::Vacant { .. }) => Source::Gone,
            None => Source::Gone,
        };
        self.faulty = matches!(self.source, Source::Faulty { .. }).then(|| model_ready(&self.name, 0));
    }

    /// Nothing of it is left: not on disk, not in memory.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.source, Source::Gone) && self.slots.is_empty()
    }

    pub(crate) fn is_in_repository(&self) -> bool {
        !matches!(self.source, Source::Gone)
    }

    /// A load is under way, about to begin, or waits for files to settle.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.slots.values().any(|slot| slot.loading.is_some())
            || self.is_changing()
            || self.plan(now).iter().any(|step| matches!(step, Step::Load { .. }))
    }

    pub(crate) fn serves(&self) -> bool {
        self.default.is_some()
    }

    /// Files of a version may still be written to: worth another look soon.
    pub(crate) fn is_changing(&self) -> bool {
        match &self.source {
            Source::Sound { versions, .. } => {
                versions.values().any(|version| version.state == SourceState::Changing)
            }
            Source::Faulty { .. } | Source::Gone => false,
        }
    }

    /// Each label with its version.
    pub(crate) fn labels(&self) -> BTreeMap<String, u64> {
        let mut labels = match &self.source {
            Source::Sound { settings, .. } => settings.lifecycle.labels.clone(),
            Source::Faulty { .. } | Source::Gone => BTreeMap::new(),
        };
        for (label, version) in &self.labels {
            match version {
                Some(version) => drop(labels.insert(label.clone(), *version)),
                None => drop(labels.remove(label)),
            }
        }
        labels
    }

    /// Whether the repository has the version or the label; `None` where it cannot be told.
    pub(crate) fn has(&self, version: &VersionSelector) -> Option<bool> {
        let Source::Sound { versions, .. } = &self.source else { return None };
        Some(match version {
            VersionSelector::Default => true,
            VersionSelector::Number(version) => versions.contains_key(version),
            VersionSelector::Label(label) => self.labels().contains_key(label),
        })
    }

    /// What serves under the version or the label now.
    pub(crate) fn serving(&self, version: &VersionSelector) -> Option<&Arc<Deployment>> {
        let version = match version {
            VersionSelector::Default => self.default?,
            VersionSelector::Number(version) => *version,
            VersionSelector::Label(label) => *self.labels().get(label)?,
        };
        self.slots.get(&version)?.ready.as_ref().map(|ready| ready.workers.deployment())
    }

    /// The next steps.
    pub(crate) fn plan(&self, now: Instant) -> Vec<Step> {
        let held = |(&version, slot): (&u64, &Slot)| {
            (version, Held { is_default: self.default == Some(version), ..slot.held() })
        };
        let held = self.slots.iter().map(held).collect();
        plan(&self.wanted(), &held, now)
    }

    /// When a plan may say something else without any event.
    pub(crate) fn next_time(&self, now: Instant) -> Option<Instant> {
        let times =
            |slot: &Slot| [slot.keep_until, slot.failure.as_ref().and_then(|failure| failure.retry_at)];
        self.slots.values().flat_map(times).flatten().filter(|time| *time > now).min()
    }

    fn wanted(&self) -> Wanted {
        let (versions, settings) = match &self.source {
            _ if !self.is_asked_for => return Wanted::Nothing,
            Source::Sound { versions, settings } => (versions, settings),
            Source::Faulty { .. } => return Wanted::Unknown,
            Source::Gone => return Wanted::Nothing,
        };
        let usable: BTreeMap<u64, Stamp> = versions
            .iter()
            .filter_map(|(&version, source)| {
                let stamp = match source.state {
                    SourceState::Complete => source.stamp,
                    // Until its new contents can be tried, what serves of a version is what is wanted of it.
                    SourceState::Changing | SourceState::Refused(_) => self.ready_stamp(version)?,
                };
                let is_held_back = self.held_back.get(&version).is_some_and(|(held, _)| *held == stamp);
                (!is_held_back).then_some((version, stamp))
            })
            .collect();
        let labels: BTreeSet<u64> = self.labels().into_values().collect();
        let has_failed = |version: &u64, stamp: Stamp| {
            let slot = self.slots.get(version);
            slot.and_then(|slot| slot.failure.as_ref()).is_some_and(|failure| failure.stamp == stamp)
        };
        let mut wanted = BTreeMap::new();
        let mut sound = 0;
        for (&version, &stamp) in usable.iter().rev() {
            let by_policy = match &settings.lifecycle.policy {
                VersionPolicy::All => true,
                VersionPolicy::Specific(list) => list.contains(&version),
                // One that fails to load does not count: the one before it takes its place.
                VersionPolicy::Latest(count) => sound < *count,
            };
            if by_policy || labels.contains(&version) || self.named_by_routes.contains(&version) {
                wanted.insert(version, stamp);
            }
            if by_policy && (self.is_sound(&version) || !has_failed(&version, stamp)) {
                sound += 1;
            }
        }
        Wanted::Versions(wanted)
    }

    fn ready_stamp(&self, version: u64) -> Option<Stamp> {
        self.slots.get(&version)?.ready.as_ref().map(|ready| ready.stamp)
    }

    /// Whether something of the version is loaded that was not rolled back.
    fn is_sound(&self, version: &u64) -> bool {
        let held_back = self.held_back.get(version).map(|(stamp, _)| *stamp);
        self.ready_stamp(*version).is_some_and(|stamp| held_back != Some(stamp))
    }

    /// Marks a version as being loaded, and says how.
    pub(crate) fn begin_load(&mut self, version: u64, load: u64, now: Instant) -> Option<Order> {
        let Source::Sound { versions, settings } = &self.source else { return None };
        let source = versions.get(&version)?;
        let artifact = Artifact { model: self.name.clone(), version, path: source.path.clone(), threads: 1 };
        let settings = Arc::clone(settings);
        let predecessor = self.default_deployment().map(|deployment| Arc::clone(&deployment.info));
        let slot = self.slots.entry(version).or_default();
        slot.loading = Some(Loading { stamp: source.stamp, load, since: now });
        let service_level = Arc::clone(&self.service_level);
        Some(Order { artifact, settings, predecessor, service_level })
    }

    /// Whether the step loads contents whose load has failed before.
    pub(crate) fn has_failed_at(&self, step: Step) -> bool {
        let Step::Load { version, stamp } = step else { return false };
        let failure = self.slots.get(&version).and_then(|slot| slot.failure.as_ref());
        failure.is_some_and(|failure| failure.stamp == stamp)
    }

    /// Versions whose load has taken longer than `timeout`; they count as failed from now on.
    pub(crate) fn time_out(&mut self, timeout: Duration, now: Instant) -> Vec<(u64, LoadError)> {
        let mut late = Vec::new();
        for (&version, slot) in &mut self.slots {
            if slot.loading.as_ref().is_some_and(|loading| now - loading.since >= timeout) {
                let loading = slot.loading.take().expect("seen above; this is a bug");
                let error = LoadError::transient(format!(
                    "loading has taken longer than {timeout:?} and was given up"
                ));
                slot.fail(loading.stamp, error.clone(), now);
                late.push((version, error));
            }
        }
        for (version, error) in &late {
            self.record(*version, EventKind::LoadFailed, error.to_string());
        }
        late
    }

    /// Versions that are being loaded.
    pub(crate) fn loading(&self) -> usize {
        self.slots.values().filter(|slot| slot.loading.is_some()).count()
    }

    /// Whether this load has not been given up.
    pub(crate) fn awaits(&self, version: u64, load: u64) -> bool {
        let slot = self.slots.get(&version);
        slot.and_then(|slot| slot.loading.as_ref()).is_some_and(|loading| loading.load == load)
    }

    /// Takes over a load's result. Returns what is to be retired: contents that were replaced, or those of a
    /// load that was given up.
    pub(crate) fn finish_load(
        &mut self,
        version: u64,
        load: u64,
        result: Result<Workers, LoadError>,
        took: Duration,
        now: Instant,
    ) -> Option<Workers> {
        let slot = self.slots.entry(version).or_default();
        let Some(loading) = slot.loading.take_if(|loading| loading.load == load) else {
            return result.ok();
        };
        match result {
            Ok(workers) => {
                slot.failure = None;
                self.held_back.remove(&version);
                let replaced = slot.ready.replace(Ready { workers, stamp: loading.stamp });
                self.record(version, EventKind::Loaded, format!("in {took:.1?}"));
                replaced.map(|ready| ready.workers)
            }
            Err(error) => {
                slot.fail(loading.stamp, error.clone(), now);
                self.record(version, EventKind::LoadFailed, error.to_string());
                None
            }
        }
    }

    /// Keeps the gauges of a version that is loaded or failed to be, for as long as it is remembered.
    pub(crate) fn hold(&mut self, version: u64, gauges: VersionGauges) {
        if let Some(slot) = self.slots.get_mut(&version) {
            slot.gauges = Some(gauges);
        }
    }

    pub(crate) fn retire(&mut self, version: u64) -> Option<Workers> {
        let slot = self.slots.get_mut(&version)?;
        let workers = slot.ready.take().map(|ready| ready.workers);
        slot.keep_until = None;
        if slot.loading.is_none() && slot.failure.is_none() {
            self.slots.remove(&version);
        }
        if workers.is_some() {
            self.record(version, EventKind::Retired, String::new());
        }
        workers
    }

    pub(crate) fn forget(&mut self, version: u64) {
        self.slots.remove(&version);
    }

    /// Everything that is loaded.
    pub(crate) fn take_all(&mut self) -> Vec<Workers> {
        self.default = None;
        std::mem::take(&mut self.slots)
            .into_values()
            .filter_map(|slot| slot.ready.map(|ready| ready.workers))
            .collect()
    }

    /// Points a label at a version of the repository, or takes it away.
    pub(crate) fn set_label(&mut self, label: &str, version: Option<u64>) -> Result<(), String> {
        if label.is_empty() || label.bytes().all(|byte| byte.is_ascii_digit()) || label.contains('/') {
            return Err(format!(
                "'{label}' is not a label: expected a name that is not a number, without '/'"
            ));
        }
        if let Some(version) = version {
            let in_repository =
                matches!(&self.source, Source::Sound { versions, .. } if versions.contains_key(&version));
            let is_loaded = self.slots.get(&version).is_some_and(|slot| slot.ready.is_some());
            if !in_repository && !is_loaded {
                return Err(format!("model '{}' has no version {version}", self.name));
            }
            self.held_back.remove(&version);
        }
        self.labels.insert(label.to_owned(), version);
        let detail = match version {
            Some(version) => format!("'{label}' points at {version}"),
            None => format!("'{label}' is taken away"),
        };
        self.record(version.unwrap_or(0), EventKind::Label, detail);
        Ok(())
    }

    /// Asks for what was unloaded, rolled back or failed, from now on and at once.
    pub(crate) fn ask_again(&mut self, now: Instant) {
        self.is_asked_for = true;
        self.held_back.clear();
        self.retry_all(now);
    }

    /// Has what failed tried again, permanent faults included.
    fn retry_all(&mut self, now: Instant) {
        for failure in self.slots.values_mut().filter_map(|slot| slot.failure.as_mut()) {
            failure.retry_at = Some(now);
        }
    }

    fn default_deployment(&self) -> Option<&Arc<Deployment>> {
        self.serving(&VersionSelector::Default)
    }
}

// === impl Slot ===

impl Slot {
    fn held(&self) -> Held {
        let failed = |failure: &Failure| Failed { stamp: failure.stamp, retry_at: failure.retry_at };
        Held {
            ready: self.ready.as_ref().map(|ready| ready.stamp),
            loading: self.loading.as_ref().map(|loading| loading.stamp),
            failed: self.failure.as_ref().map(failed),
            keep_until: self.keep_until,
            is_default: false,
        }
    }

    fn fail(&mut self, stamp: Stamp, error: LoadError, now: Instant) {
        let attempts = match &self.failure {
            Some(failure) if failure.stamp == stamp => failure.attempts + 1,
            _ => 1,
        };
        let pause = RETRY_FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(RETRY_MAX);
        let retry_at = (!error.is_permanent()).then(|| now + pause);
        self.failure = Some(Failure { stamp, attempts, retry_at, error });
    }
}
