//! The bandits among the routes in force: what they learn, what they deal, and how far their winners have come.

use std::collections::BTreeMap;

use gristmill_engine::bandit::{Bandit, Rewards, Settings, Standing};
use gristmill_engine::engine::Engine;
use gristmill_engine::journal::Ended;
use gristmill_engine::prediction::ArmName;
use gristmill_engine::routing::canary::{Verdict, Wait};
use gristmill_engine::routing::winner::Rollout;
use gristmill_engine::routing::{Policy, Route, Weight};
use gristmill_proto::admin::WinnerRollout;

use super::store::{Rules, Store, Winner};

#[derive(Default)]
pub(super) struct Bandits {
    /// By the route's name.
    playing: BTreeMap<String, Playing>,
}

/// A bandit as operators see it; by arm.
pub(super) struct Shown {
    pub(super) shares: Vec<f64>,
    pub(super) standings: Vec<Standing>,
    /// The bounds that arms break.
    pub(super) faults: Vec<Option<String>>,
    pub(super) winner: Option<String>,
    pub(super) rollout: Option<WinnerRollout>,
}

struct Playing {
    route: Route,
    settings: Settings,
    bandit: Bandit,
    shares: Vec<f64>,
    won: Option<Won>,
    /// Something has been learned since the shares were computed.
    is_due: bool,
}

/// An arm that has won.
struct Won {
    arm: usize,
    rollout: Rollout,
    /// What it waits for, with the numbers; or why nothing is waited for.
    state: String,
    waits: Option<Wait>,
    looked_s: f64,
}

/// How often it is decided of winners.
const LOOKED_EVERY_S: f64 = 1.0;

// === impl Bandits ===

impl Bandits {
    /// Takes over which routes are in force. One that has changed begins again with what the store knows.
    pub(super) fn follow(&mut self, routes: &[Route], mut store: Option<&mut Store>, now_ms: u64) {
        self.playing.retain(|_, playing| routes.contains(&playing.route));
        for route in routes {
            match route.policy {
                Policy::Bandit(settings) if !self.playing.contains_key(&route.name) => {
                    let mut playing = Playing::new(route.clone(), settings);
                    if let Some(store) = store.as_deref_mut() {
                        playing.learn(store);
                        playing.resume(store, seconds(now_ms));
                    }
                    self.playing.insert(route.name.clone(), playing);
                }
                Policy::Bandit(_) => {}
                // The experiment is over.
                Policy::Split | Policy::Canary | Policy::Fallback => keep(store.as_deref_mut(), route, None),
            }
        }
    }

    /// What rewards of a route must be, and how they fade.
    pub(super) fn rules(&self, route: &str) -> Rules {
        match self.playing.get(route) {
            Some(Playing { settings, .. }) => {
                Rules { rewards: settings.rewards, half_life: settings.half_life }
            }
            None => Rules { rewards: Rewards::Real, half_life: None },
        }
    }

    /// `None` for a route that is no bandit.
    pub(super) fn shown(&self, route: &str, now_ms: u64) -> Option<Shown> {
        let Playing { route, bandit, shares, won, .. } = self.playing.get(route)?;
        let fault = |arm| bandit.health(arm).fault().map(|fault| fault.why.clone());
        Some(Shown {
            shares: shares.clone(),
            standings: bandit.standings(seconds(now_ms)),
            faults: (0..route.arms.len()).map(fault).collect(),
            winner: won.as_ref().map(|won| route.arms[won.arm].name.clone()),
            rollout: won.as_ref().map(Won::shown),
        })
    }

    /// Requests ended.
    pub(super) fn behaved(&mut self, ended: &[Ended], now_ms: u64) {
        for ended in ended {
            let Some(playing) = self.playing.get_mut(&ended.arm.route) else { continue };
            let arm = playing.route.arms.iter().position(|arm| arm.name == ended.arm.arm);
            let tally = playing.settings.guard.tally(ended.took, ended.is_good);
            if let (Some(arm), Some(tally)) = (arm, tally) {
                if let Some(won) = playing.won.as_mut().filter(|won| won.arm == arm) {
                    won.rollout.count(tally.requests);
                }
                let was_broken = playing.bandit.health(arm).is_broken();
                playing.bandit.behaved(arm, tally, seconds(now_ms));
                if playing.bandit.health(arm).is_broken() != was_broken {
                    playing.is_due = true;
                    playing.tell_health(arm);
                }
            }
        }
    }

    /// Rewards came.
    pub(super) fn learn(&mut self, store: &Store) {
        self.playing.values_mut().for_each(|playing| playing.learn(store));
    }

    /// Has requests dealt by what is known now.
    pub(super) fn deal(&mut self, engine: &Engine, mut store: Option<&mut Store>, now_ms: u64) {
        for playing in self.playing.values_mut() {
            playing.roll_out(store.as_deref_mut(), seconds(now_ms));
            if std::mem::take(&mut playing.is_due) {
                playing.share(store.as_deref_mut(), seconds(now_ms));
                engine.deal(&playing.route, &playing.shares);
            }
        }
    }
}

// === impl Playing ===

impl Playing {
    fn new(route: Route, settings: Settings) -> Playing {
        let arms = route.arms.len();
        let bandit = Bandit::new(settings, arms);
        Playing { route, settings, bandit, shares: Vec::new(), won: None, is_due: true }
    }

    fn learn(&mut self, store: &Store) {
        for (index, arm) in self.route.arms.iter().enumerate() {
            let name = ArmName { route: self.route.name.clone(), arm: arm.name.clone() };
            self.bandit.restore(index, store.knowledge(&name).fading);
        }
        self.is_due = true;
    }

    /// Goes on with who had won before the server started or the route was changed, if that is still an arm of it.
    fn resume(&mut self, store: &mut Store, now_s: f64) {
        let Some(Winner { arm: name, target, percent }) = store.winner(&self.route.name).cloned() else {
            return;
        };
        let arm = self.route.arms.iter().position(|arm| arm.name == name && arm.target() == target);
        let had = Weight::from_percent(percent).ok().filter(|_| self.settings.winner_probability.is_some());
        let (Some(arm), Some(had)) = (arm, had) else { return keep(Some(store), &self.route, None) };
        let rollout = Rollout::resume(&self.route.rollout, had, now_s);
        tracing::info!(
            route = self.route.name,
            arm = name,
            percent,
            "a bandit's winner goes on where it was"
        );
        self.grow(arm, rollout, "it had won before".into(), now_s);
    }

    /// Who has won now, or has lost it again, and everybody's share.
    fn share(&mut self, store: Option<&mut Store>, now_s: f64) {
        self.shares = self.bandit.shares(now_s);
        let (before, now) = (self.won.as_ref().map(|won| won.arm), self.bandit.winner());
        if before == now {
            return;
        }
        if let Some(arm) = before {
            let fault = self.bandit.health(arm).fault();
            let why = fault.map_or_else(|| "rewards say so".to_owned(), |fault| fault.why.clone());
            self.tell_lost(arm, &why);
            self.won = None;
        }
        if let Some(arm) = now {
            let rollout = Rollout::begin(&self.route.rollout, now_s);
            let probability = self.bandit.winner_probability(now_s).unwrap_or_default();
            let why = format!("it is the best with a probability of {probability:.4}");
            let (route, percent) = (&self.route.name, rollout.weight().percent());
            tracing::info!(route, arm = self.route.arms[arm].name, percent, why, "a bandit has a winner");
            self.grow(arm, rollout, why, now_s);
            self.shares = self.bandit.shares(now_s);
        }
        keep(store, &self.route, self.won.as_ref());
    }

    /// Has a winner go forward or lose, now and then.
    fn roll_out(&mut self, store: Option<&mut Store>, now_s: f64) {
        let Some(won) = &mut self.won else { return };
        // A clock that was set back is no reason to wait.
        let is_soon = (now_s - won.looked_s).abs() < LOOKED_EVERY_S;
        let (Some(asked_for), false) = (self.settings.winner_probability, is_soon || won.rollout.is_done())
        else {
            return;
        };
        won.looked_s = now_s;
        let Some(probability) = self.bandit.winner_probability(now_s) else { return };
        let (arm, (verdict, why)) = (won.arm, won.rollout.decide(probability, asked_for, now_s));
        match verdict {
            Verdict::Hold(wait) => {
                if won.waits.replace(wait) != Some(wait) {
                    tracing::info!(route = self.route.name, why, "a bandit's winner holds");
                }
                won.state = why;
            }
            Verdict::Forward | Verdict::Done => {
                let rollout = won.rollout.forward(now_s);
                let (route, percent) = (&self.route.name, rollout.weight().percent());
                tracing::info!(
                    route,
                    arm = self.route.arms[arm].name,
                    percent,
                    why,
                    "a bandit's winner grows"
                );
                self.grow(arm, rollout, why, now_s);
                keep(store, &self.route, self.won.as_ref());
            }
            Verdict::Back => {
                self.tell_lost(arm, &why);
                self.won = None;
                self.bandit.settle(None, 1.0);
                self.is_due = true;
                keep(store, &self.route, None);
            }
        }
    }

    fn grow(&mut self, arm: usize, rollout: Rollout, state: String, now_s: f64) {
        self.bandit.settle(Some(arm), rollout.weight().percent() / 100.0);
        self.won = Some(Won { arm, rollout, state, waits: None, looked_s: now_s });
        self.is_due = true;
    }

    fn tell_lost(&self, arm: usize, why: &str) {
        let (route, arm) = (&self.route.name, &self.route.arms[arm].name);
        tracing::warn!(route, arm, why, "a bandit's winner is taken back: rewards deal again");
    }

    fn tell_health(&self, arm: usize) {
        let (route, name) = (&self.route.name, &self.route.arms[arm].name);
        match self.bandit.health(arm).fault() {
            Some(fault) => tracing::warn!(route, arm = name, why = fault.why, "an arm gets probes alone"),
            None => tracing::info!(route, arm = name, "an arm keeps its bounds again"),
        }
    }
}

// === impl Won ===

impl Won {
    fn shown(&self) -> WinnerRollout {
        let (step, steps) = self.rollout.place();
        WinnerRollout {
            step: step as u64,
            steps: steps as u64,
            percent: self.rollout.weight().percent(),
            state: self.state.clone(),
        }
    }
}

/// Who has won, where the store can be written; else it is known until the server ends.
fn keep(store: Option<&mut Store>, route: &Route, won: Option<&Won>) {
    let winner = won.map(|won| Winner {
        arm: route.arms[won.arm].name.clone(),
        target: route.arms[won.arm].target(),
        percent: won.rollout.weight().percent(),
    });
    if let Some(Err(error)) = store.map(|store| store.keep_winner(&route.name, winner)) {
        tracing::error!(route = route.name, %error, "who has won is not kept: a restart will not know it");
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
