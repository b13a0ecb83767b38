//! Where a canary stands, as it is kept over restarts, and what the arms of its route weigh there.

use super::{Looks, Plan, Position};
use crate::request::VersionSelector;
use crate::routing::{Arm, Policy, Route, Weight};

/// The plan of a route's second arm, and how far it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Canary {
    pub plan: Plan,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At this place among the plan's steps, which is not the last.
    Running { step: usize },
    /// The candidate gets nothing, until somebody begins anew.
    RolledBack { why: String },
    /// The candidate gets everything.
    Done,
}

// === impl Stage ===

impl Default for Stage {
    fn default() -> Stage {
        Stage::Running { step: 0 }
    }
}

impl Stage {
    /// `running`, `rolled_back` or `done`.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Running { .. } => "running",
            Stage::RolledBack { .. } => "rolled_back",
            Stage::Done => "done",
        }
    }

    /// Of a name, the number of a step from 1, and why; the first step where nothing is said.
    ///
    /// # Errors
    /// Any other name, or what does not belong to it.
    pub fn read(name: &str, step: Option<u64>, why: Option<String>) -> Result<Stage, String> {
        let misplaced = |what: &str, stage: &str| format!("{what} belongs to stage {stage}, not to {name}");
        match (name, step, why) {
            ("running", step, None) => match step {
                Some(0) => Err("step is 0: expected 1 for the first".into()),
                step => Ok(Stage::Running {
                    step: step.map_or(0, |step| usize::try_from(step - 1).unwrap_or(usize::MAX)),
                }),
            },
            ("running", _, Some(_)) => Err(misplaced("why", "rolled_back")),
            ("rolled_back", None, why) => Ok(Stage::RolledBack { why: why.unwrap_or_default() }),
            ("done", None, None) => Ok(Stage::Done),
            ("rolled_back" | "done", Some(_), _) => Err(misplaced("step", "running")),
            ("done", None, Some(_)) => Err(misplaced("why", "rolled_back")),
            _ => Err(format!("stage is \"{name}\": expected running, rolled_back or done")),
        }
    }
}

// === impl Canary ===

impl Canary {
    /// What the candidate gets.
    pub fn weight(&self) -> Weight {
        match &self.stage {
            Stage::Running { step } => {
                self.plan.steps.get(*step).map_or(Weight::default(), |step| step.weight)
            }
            Stage::RolledBack { .. } => Weight::default(),
            Stage::Done => Weight::ALL,
        }
    }

    /// The next stage of a running canary.
    pub(crate) fn next(&self) -> Stage {
        match self.stage {
            Stage::Running { step } if step + 2 < self.plan.steps.len() => Stage::Running { step: step + 1 },
            _ => Stage::Done,
        }
    }

    /// Where an operator who gives the candidate this weight wants to have it.
    ///
    /// # Errors
    /// No step has this weight.
    fn stage_at(&self, weight: Weight) -> Result<Stage, String> {
        if weight == Weight::default() {
            return Ok(Stage::RolledBack { why: "an operator took it back".into() });
        }
        if weight == Weight::ALL {
            return Ok(Stage::Done);
        }
        let step = self.plan.steps.iter().position(|step| step.weight == weight);
        step.map(|step| Stage::Running { step }).ok_or_else(|| {
            let steps: Vec<String> = self.plan.steps.iter().map(|step| step.weight.to_string()).collect();
            format!("has no step at {weight} percent: its canary has {}", steps.join(", "))
        })
    }
}

// === impl Route ===

impl Route {
    /// The same route with the weights that its canary says; as it is without one.
    #[must_use]
    pub fn weighed_by_canary(self) -> Route {
        match self.canary.as_ref().map(|canary| canary.stage.clone()) {
            Some(stage) => self.with_stage(stage),
            None => self,
        }
    }

    /// The same route with its canary at this stage, and the weights that go with it.
    #[must_use]
    pub fn with_stage(mut self, stage: Stage) -> Route {
        let Some(canary) = &mut self.canary else { return self };
        canary.stage = stage;
        let weight = canary.weight();
        if let [control, candidate] = &mut self.arms[..] {
            control.weight = weight.rest();
            candidate.weight = weight;
        }
        self
    }

    /// The same route with an arm of its canary at `weight`.
    pub(in crate::routing) fn with_canary_weight(&self, arm: usize, weight: Weight) -> Result<Route, String> {
        let canary = self.canary.as_ref().ok_or("has no canary")?;
        let of_candidate = if arm == 0 { weight.rest() } else { weight };
        Ok(self.clone().with_stage(canary.stage_at(of_candidate)?))
    }

    /// The place among the shadows of the one whose mismatches say how the candidate answers: the first that leads to
    /// what the candidate leads to; `None` without any.
    pub(crate) fn shadow_of_candidate(&self) -> Option<usize> {
        let [_, candidate] = &self.arms[..] else { return None };
        self.shadows.iter().position(|shadow| {
            let target = &shadow.target;
            let leads_there = target.model == candidate.model && target.version == candidate.version;
            leads_there && target.weight != Weight::default()
        })
    }

    /// Whether feedback on its predictions decides about its candidate: rewards must be from 0 to 1 then.
    pub fn asks_for_rewards(&self) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.plan.gates.reward.is_some())
    }

    /// The canary, its step, and the position at which that is judged from now on; `None` unless it is running.
    pub(crate) fn running_canary(&self) -> Option<(&Canary, Position)> {
        let canary = self.canary.as_ref()?;
        let Stage::Running { step } = canary.stage else { return None };
        Some((canary, Position { step, elapsed: std::time::Duration::ZERO, looks: Looks::default() }))
    }
}

/// Whether a route can be, as far as its canary goes.
///
/// # Errors
/// The text says what was expected and what came.
pub(in crate::routing) fn check_canary(route: &Route) -> Result<(), String> {
    let canary = match (route.policy, &route.canary) {
        (Policy::Canary, Some(canary)) => canary,
        (Policy::Canary, None) => return Err("has policy canary and no plan: give it a canary".into()),
        (policy, Some(_)) => {
            return Err(format!("has a canary and policy {}: expected policy canary", policy.name()));
        }
        (_, None) => return Ok(()),
    };
    if route.arms.len() != 2 {
        return Err(format!(
            "has {} arms: with policy canary it has two, first the control and then the candidate",
            route.arms.len()
        ));
    }
    canary.plan.check().map_err(|why| format!("its canary: {why}"))?;
    if canary.plan.gates.mismatch_rate_max.is_some() && route.shadow_of_candidate().is_none() {
        return Err(without_shadow(&route.arms[1]));
    }
    if let Stage::Running { step } = canary.stage
        && step + 1 >= canary.plan.steps.len()
    {
        return Err(format!(
            "its canary is running at step {}: expected 1 to {}, at the last it is done",
            step.saturating_add(1),
            canary.plan.steps.len() - 1
        ));
    }
    let weights = [canary.weight().rest(), canary.weight()];
    match route.arms.iter().map(|arm| arm.weight).eq(weights) {
        true => Ok(()),
        false => Err("has weights: with policy canary its steps say them, leave them out".into()),
    }
}

fn without_shadow(candidate: &Arm) -> String {
    let Arm { name, model, version, .. } = candidate;
    let version = match version {
        VersionSelector::Default => String::new(),
        VersionSelector::Number(version) => format!(", version = {version}"),
        VersionSelector::Label(label) => format!(", label = \"{label}\""),
    };
    format!(
        "its canary has mismatch_rate_max, and no shadow leads to {}, which the candidate leads to: add to the route \
         shadows = [{{ name = \"{name}\", model = \"{model}\"{version}, percent = 100 }}], or --shadow {name}={}:100; \
         or leave mismatch_rate_max out",
        candidate.target(),
        candidate.target()
    )
}
