//! The canaries in force: gathers what their arms did, has it judged, and remembers what was decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Models, RouteTable};
use crate::managed::Managed;
use crate::metrics::CanaryMetrics;
use crate::mirror::Mirror;
use crate::request::ModelInfo;
use crate::routing::canary::{
    Canary, Decision, Evidence, Looks, MirrorEvidence, Position, Stage, Verdict, Wait, decide,
};
use crate::routing::tally::{ArmEvidence, Tally};
use crate::routing::{Route, Router};

/// Of each route with a canary.
#[derive(Default)]
pub(super) struct Rollouts(BTreeMap<String, Rollout>);

struct Rollout {
    /// Another router means other weights, and evidence from the beginning.
    router: Arc<Router>,
    /// What the arms led to when the step began.
    targets: [Option<Arc<ModelInfo>>; 2],
    began: Instant,
    /// What the candidate's shadow had compared when the step was looked at for the first time.
    mirrored_before: Option<MirrorEvidence>,
    looks: Looks,
    /// What is waited for, with the numbers; or why nothing is.
    state: String,
    waits: Option<Wait>,
    /// The latest last.
    events: VecDeque<Event>,
    metrics: CanaryMetrics,
}

#[derive(Clone)]
struct Event {
    at: Instant,
    what: String,
    why: String,
}

/// What a canary is to become.
pub(crate) struct Turn {
    pub(crate) route: Route,
    pub(crate) verdict: Verdict,
    pub(crate) why: String,
    router: Arc<Router>,
}

/// A canary as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryDetails {
    /// What it waits for, with the numbers; or why nothing is waited for any more.
    pub state: String,
    /// Since the step began, in this process.
    pub elapsed: Duration,
    /// Of control and candidate since then; `None` where nothing is judged.
    pub evidence: Option<[ArmEvidence; 2]>,
    /// Of the candidate's shadow since then; `None` where nothing is asked of one.
    pub mirrored: Option<MirrorEvidence>,
    /// What was decided in this process, the latest last.
    pub events: Vec<CanaryEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryEvent {
    /// How long ago.
    pub age: Duration,
    pub what: String,
    pub why: String,
}

/// How often running canaries are judged.
pub(crate) const JUDGED_EVERY: Duration = Duration::from_secs(1);
/// Older events are forgotten.
const EVENTS_MAX: usize = 32;

// === impl RouteTable ===

impl RouteTable {
    pub(crate) fn has_running_canary(&self) -> bool {
        self.routers.values().any(|router| router.route.running_canary().is_some())
    }

    /// Judges every running canary, and returns those that are to become something else.
    pub(crate) fn judge(&mut self, models: &Models, now: Instant) -> Vec<Turn> {
        self.rollouts
            .0
            .retain(|name, _| self.routers.get(name).is_some_and(|router| router.route.canary.is_some()));
        let mut turns = Vec::new();
        for (name, router) in &mut self.routers {
            if router.route.canary.is_none() {
                continue;
            }
            let rollout = match self.rollouts.0.get_mut(name) {
                Some(rollout) => rollout,
                None => {
                    let event =
                        Event::new(&router.route, "this process has it in force from now on".into(), now);
                    event.log(&router.route);
                    let rollout = Rollout::new(router, event, now);
                    self.rollouts.0.entry(name.clone()).or_insert(rollout)
                }
            };
            rollout.follow(router, now);
            let mirrors = self.mirrors.get(name).map_or(&[][..], Vec::as_slice);
            turns.extend(rollout.judge(router, models, mirrors, now));
        }
        turns
    }

    /// Whether nothing has happened to the route since it was judged.
    pub(crate) fn is_current(&self, turn: &Turn) -> bool {
        self.routers.get(&turn.route.name).is_some_and(|router| Arc::ptr_eq(router, &turn.router))
    }

    /// Remembers that a canary has become what was decided.
    pub(crate) fn turned(&mut self, turn: Turn, now: Instant) {
        let Turn { route, verdict, why, .. } = turn;
        let (Some(rollout), Some(router)) =
            (self.rollouts.0.get_mut(&route.name), self.routers.get(&route.name))
        else {
            return;
        };
        match verdict {
            Verdict::Hold(_) => {}
            Verdict::Forward => rollout.metrics.forward.increment(1),
            Verdict::Back => rollout.metrics.back.increment(1),
            Verdict::Done => rollout.metrics.done.increment(1),
        }
        rollout.begin(router, why, now);
    }

    /// Remembers why a canary could not become what was decided.
    pub(crate) fn stuck(&mut self, turn: &Turn, error: String) {
        if let Some(rollout) = self.rollouts.0.get_mut(&turn.route.name) {
            tracing::error!(route = turn.route.name, error, "a canary cannot go on");
            rollout.state = error;
        }
    }

    pub(super) fn canary_details(&self, router: &Router, now: Instant) -> Option<CanaryDetails> {
        let stage = &router.route.canary.as_ref()?.stage;
        let not_yet = match stage {
            Stage::RolledBack { why } if !why.is_empty() => why.clone(),
            _ => "not looked at yet".to_owned(),
        };
        let Some(rollout) = self.rollouts.0.get(&router.route.name) else {
            let (elapsed, events) = (Duration::ZERO, Vec::new());
            return Some(CanaryDetails { state: not_yet, elapsed, evidence: None, mirrored: None, events });
        };
        // What was changed a moment ago is followed when canaries are judged next.
        let is_followed = std::ptr::eq(&*rollout.router, router);
        let age = |at: Instant| now.saturating_duration_since(at);
        let event = |event: &Event| CanaryEvent {
            age: age(event.at),
            what: event.what.clone(),
            why: event.why.clone(),
        };
        Some(CanaryDetails {
            state: if is_followed { rollout.state.clone() } else { not_yet },
            elapsed: if is_followed { age(rollout.began) } else { Duration::ZERO },
            evidence: tallies(router).map(|tallies| tallies.map(Tally::read)),
            mirrored: is_followed.then(|| rollout.mirrored(self.mirrors.get(&router.route.name)?)).flatten(),
            events: rollout.events.iter().map(event).collect(),
        })
    }
}

// === impl Rollout ===

impl Rollout {
    fn new(router: &Arc<Router>, event: Event, now: Instant) -> Rollout {
        let rollout = Rollout {
            router: Arc::clone(router),
            targets: [None, None],
            began: now,
            mirrored_before: None,
            looks: Looks::default(),
            state: event.why.clone(),
            waits: None,
            metrics: CanaryMetrics::new(&router.route.name),
            events: VecDeque::from([event]),
        };
        rollout.metrics.step.set(rollout.step());
        rollout
    }

    /// Takes note of a stage that was not decided here.
    fn follow(&mut self, router: &Arc<Router>, now: Instant) {
        if !Arc::ptr_eq(&self.router, router) {
            self.begin(router, "an operator or routes.toml says so".into(), now);
        }
    }

    fn begin(&mut self, router: &Arc<Router>, why: String, now: Instant) {
        let event = Event::new(&router.route, why, now);
        event.log(&router.route);
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.state.clone_from(&event.why);
        self.events.push_back(event);
        self.router = Arc::clone(router);
        self.targets = [None, None];
        (self.began, self.looks, self.waits) = (now, Looks::default(), None);
        self.mirrored_before = None;
        self.metrics.step.set(self.step());
    }

    /// From 1; 0 for a candidate that was taken back.
    fn step(&self) -> f64 {
        let Some(canary) = &self.router.route.canary else { return 0.0 };
        match canary.stage {
            Stage::Running { step } => step as f64 + 1.0,
            Stage::RolledBack { .. } => 0.0,
            Stage::Done => canary.plan.steps.len() as f64,
        }
    }

    /// Evidence of other versions says nothing of these: the step begins anew when an arm leads elsewhere.
    fn judge(
        &mut self,
        router: &mut Arc<Router>,
        models: &Models,
        mirrors: &[Arc<Mirror>],
        now: Instant,
    ) -> Option<Turn> {
        let (canary, _) = router.route.running_canary()?;
        let (plan, next) = (canary.plan.clone(), canary.next());
        let mut targets = [None, None];
        for (target, arm) in targets.iter_mut().zip(&router.route.arms) {
            let serving = models.get(&arm.model).and_then(|managed: &Managed| managed.serving(&arm.version));
            let Some(deployment) = serving else {
                let why = format!("arm '{}' ({}) does not serve", arm.name, arm.target());
                self.hold(Wait::Version, why);
                return None;
            };
            *target = Some(Arc::clone(&deployment.info));
        }
        let is_same = |(one, other): (&Option<Arc<ModelInfo>>, &Option<Arc<ModelInfo>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if !self.targets.iter().zip(&targets).all(is_same) {
            let is_first = self.targets[0].is_none();
            if !is_first {
                *router = Arc::new(router.anew());
                let say = |info: &Option<Arc<ModelInfo>>| {
                    info.as_ref()
                        .map_or(String::new(), |info| format!("{} version {}", info.name, info.version))
                };
                let why = format!("the arms lead to {} and {} now", say(&targets[0]), say(&targets[1]));
                self.begin(router, why, now);
            }
            self.targets = targets;
        }
        let [control, candidate] = tallies(router)?.map(Tally::read);
        let (_, position) = router.route.running_canary()?;
        let elapsed = now.saturating_duration_since(self.began);
        let position = Position { elapsed, looks: self.looks, ..position };
        if self.mirrored_before.is_none() {
            self.mirrored_before = compared(&router.route, mirrors);
        }
        let mirrored = self.mirrored(mirrors).unwrap_or_default();
        let Decision { verdict, why, looks } =
            decide(&plan, position, &Evidence { control, candidate, mirrored });
        self.looks = looks;
        let stage = match verdict {
            Verdict::Hold(wait) => {
                self.hold(wait, why);
                return None;
            }
            Verdict::Forward | Verdict::Done => next,
            Verdict::Back => Stage::RolledBack { why: why.clone() },
        };
        let route = router.route.clone().with_stage(stage);
        Some(Turn { route, verdict, why, router: Arc::clone(router) })
    }

    fn mirrored(&self, mirrors: &[Arc<Mirror>]) -> Option<MirrorEvidence> {
        let before = self.mirrored_before.as_ref()?;
        Some(compared(&self.router.route, mirrors)?.since(before))
    }

    fn hold(&mut self, wait: Wait, why: String) {
        if self.waits != Some(wait) {
            tracing::info!(route = self.router.route.name, why, "a canary holds");
        }
        self.waits = Some(wait);
        self.state = why;
    }
}

// === impl Event ===

impl Event {
    /// That the canary is at its stage now.
    fn new(route: &Route, why: String, at: Instant) -> Event {
        let Some(canary) = &route.canary else { return Event { at, what: String::new(), why } };
        let what = match &canary.stage {
            Stage::Running { step } => {
                format!("step {} of {}, {} %", step + 1, canary.plan.steps.len(), canary.weight())
            }
            Stage::RolledBack { .. } => "taken back".to_owned(),
            Stage::Done => "done, 100 %".to_owned(),
        };
        // What is kept over restarts says more than that there was one.
        let why = match &canary.stage {
            Stage::RolledBack { why } if !why.is_empty() => why.clone(),
            _ => why,
        };
        Event { at, what, why }
    }

    fn log(&self, route: &Route) {
        let (route, stage, Event { what, why, .. }) =
            (&route.name, route.canary.as_ref().map(|canary| &canary.stage), self);
        match stage {
            Some(Stage::RolledBack { .. }) => {
                tracing::warn!(route, why, "the candidate of a canary is taken back")
            }
            _ => tracing::info!(route, now = what, why, "a canary"),
        }
    }
}

/// Of control and candidate, where the canary runs.
fn tallies(router: &Router) -> Option<[&Tally; 2]> {
    let tally = |index: usize| router.arm(index).tally.as_ref();
    Some([tally(0)?, tally(1)?])
}

/// By the shadow of a running canary's candidate, since there is this shadow; `None` where nothing is asked of one.
fn compared(route: &Route, mirrors: &[Arc<Mirror>]) -> Option<MirrorEvidence> {
    let (Canary { plan, .. }, _) = route.running_canary()?;
    plan.gates.mismatch_rate_max?;
    let counts = mirrors.get(route.shadow_of_candidate()?)?.counts();
    // To fail where the control does not is another answer too.
    let differing = counts.mismatched + counts.shadow_failed;
    Some(MirrorEvidence { compared: counts.matched + differing, differing })
}
