//! The bandits among the routes in force: what they learn, and what they deal.

use std::collections::BTreeMap;

use gristmill_engine::bandit::{Bandit, Rewards, Settings, Standing};
use gristmill_engine::engine::Engine;
use gristmill_engine::journal::Ended;
use gristmill_engine::prediction::ArmName;
use gristmill_engine::routing::{Policy, Route};

use super::store::{Rules, Store};

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
}

struct Playing {
    route: Route,
    settings: Settings,
    bandit: Bandit,
    shares: Vec<f64>,
    winner: Option<usize>,
    /// Something has been learned since the shares were computed.
    is_due: bool,
}

// === impl Bandits ===

impl Bandits {
    /// Takes over which routes are in force. One that has changed begins again with what the store knows.
    pub(super) fn follow(&mut self, routes: &[Route], store: Option<&Store>) {
        self.playing.retain(|_, playing| routes.contains(&playing.route));
        for route in routes {
            if let Policy::Bandit(settings) = route.policy
                && !self.playing.contains_key(&route.name)
            {
                let mut playing = Playing::new(route.clone(), settings);
                store.into_iter().for_each(|store| playing.learn(store));
                self.playing.insert(route.name.clone(), playing);
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
        let Playing { route, bandit, shares, winner, .. } = self.playing.get(route)?;
        let fault = |arm| bandit.health(arm).fault().map(|fault| fault.why.clone());
        Some(Shown {
            shares: shares.clone(),
            standings: bandit.standings(now_ms as f64 / 1000.0),
            faults: (0..route.arms.len()).map(fault).collect(),
            winner: winner.map(|arm| route.arms[arm].name.clone()),
        })
    }

    /// Requests ended.
    pub(super) fn behaved(&mut self, ended: &[Ended], now_ms: u64) {
        for ended in ended {
            let Some(playing) = self.playing.get_mut(&ended.arm.route) else { continue };
            let arm = playing.route.arms.iter().position(|arm| arm.name == ended.arm.arm);
            let tally = playing.settings.guard.tally(ended.took, ended.is_good);
            if let (Some(arm), Some(tally)) = (arm, tally) {
                let was_broken = playing.bandit.health(arm).is_broken();
                playing.bandit.behaved(arm, tally, now_ms as f64 / 1000.0);
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
    pub(super) fn deal(&mut self, engine: &Engine, now_ms: u64) {
        for playing in self.playing.values_mut().filter(|playing| playing.is_due) {
            playing.shares = playing.bandit.shares(now_ms as f64 / 1000.0);
            playing.is_due = false;
            engine.deal(&playing.route, &playing.shares);
            let winner = playing.bandit.winner();
            if playing.winner != winner {
                playing.winner = winner;
                let arm = winner.map(|arm| playing.route.arms[arm].name.as_str());
                let standings = playing.bandit.standings(now_ms as f64 / 1000.0);
                let probability = winner.map(|arm| standings[arm].probability_best);
                tracing::info!(route = playing.route.name, arm, probability, "a bandit's winner has changed");
            }
        }
    }
}

// === impl Playing ===

impl Playing {
    fn new(route: Route, settings: Settings) -> Playing {
        let arms = route.arms.len();
        let bandit = Bandit::new(settings, arms);
        Playing { route, settings, bandit, shares: Vec::new(), winner: None, is_due: true }
    }

    fn learn(&mut self, store: &Store) {
        for (index, arm) in self.route.arms.iter().enumerate() {
            let name = ArmName { route: self.route.name.clone(), arm: arm.name.clone() };
            self.bandit.restore(index, store.knowledge(&name).fading);
        }
        self.is_due = true;
    }

    fn tell_health(&self, arm: usize) {
        let (route, name) = (&self.route.name, &self.route.arms[arm].name);
        match self.bandit.health(arm).fault() {
            Some(fault) => tracing::warn!(route, arm = name, why = fault.why, "an arm gets probes alone"),
            None => tracing::info!(route, arm = name, "an arm keeps its bounds again"),
        }
    }
}
