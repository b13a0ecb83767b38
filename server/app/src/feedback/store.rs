//! Outstanding predictions, and what was told of them: in tables that change together or not at all.

use std::collections::HashMap;
use std::time::Duration;

use gristmill_engine::bandit::{Evidence, Rewards};
use gristmill_engine::journal::Ended;
use gristmill_engine::prediction::ArmName;
use redb::{
    Database, Durability, Error, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    Table, TableDefinition,
};

use super::place::Opened;
use super::{Fate, Item, Told};

/// By their ids: the arm, the time in milliseconds since the Unix epoch, and the version.
const PREDICTIONS: TableDefinition<'_, u128, (u32, u64, u64)> = TableDefinition::new("predictions");
/// The same ids in the order in which they came.
const ORDER: TableDefinition<'_, u64, u128> = TableDefinition::new("order");
/// Route and arm.
const ARMS: TableDefinition<'_, u32, (&str, &str)> = TableDefinition::new("arms");
const REWARDS: TableDefinition<'_, u128, f64> = TableDefinition::new("rewards");
const TRUTHS: TableDefinition<'_, u128, &str> = TableDefinition::new("truths");
/// By arm: the evidence that fades and all there ever was, each as count, mean, deviations and time.
const KNOWLEDGE: TableDefinition<'_, u32, (Sums, Sums)> = TableDefinition::new("knowledge");

/// By route: the arm that has won, what it led to, and its share in percent.
const WINNERS: TableDefinition<'_, &str, (&str, &str, f64)> = TableDefinition::new("winners");

type Sums = (f64, f64, f64, f64);

pub(super) struct Store {
    database: Database,
    is_durable: bool,
    predictions_max: u64,
    arms: HashMap<ArmName, u32>,
    knowledge: HashMap<u32, Knowledge>,
    /// By route.
    winners: HashMap<String, Winner>,
    /// That the last commit has accepted.
    rewarded: Vec<Rewarded>,
}

/// The arm of a bandit that has won, as it is kept over restarts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Winner {
    pub(super) arm: String,
    /// What the arm led to: a version under its name that is another one has not won.
    pub(super) target: String,
    pub(super) percent: f64,
}

/// A prediction that was rewarded.
pub(super) struct Rewarded {
    pub(super) arm: ArmName,
    pub(super) version: u64,
    /// When it was made.
    pub(super) at_ms: u64,
    pub(super) reward: f64,
}

/// What the rewards of one arm add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Knowledge {
    /// By the route's half-life.
    pub(super) fading: Evidence,
    pub(super) all: Evidence,
}

/// What a route says of rewards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) rewards: Rewards,
    pub(super) half_life: Option<Duration>,
}

/// An item, and the route that it is told of.
pub(super) type OfRoute<'a> = (&'a str, &'a Item);

// === impl Store ===

impl Store {
    pub(super) fn new(opened: Opened, predictions_max: u64) -> Result<Store, Error> {
        let Opened { database, is_durable } = opened;
        let transaction = database.begin_write()?;
        transaction.open_table(PREDICTIONS)?;
        transaction.open_table(ORDER)?;
        transaction.open_table(REWARDS)?;
        transaction.open_table(TRUTHS)?;
        let mut arms = HashMap::new();
        for row in transaction.open_table(ARMS)?.iter()? {
            let (number, name) = row?;
            let (route, arm) = name.value();
            arms.insert(ArmName { route: route.to_owned(), arm: arm.to_owned() }, number.value());
        }
        let mut knowledge = HashMap::new();
        for row in transaction.open_table(KNOWLEDGE)?.iter()? {
            let (arm, sums) = row?;
            let (fading, all) = sums.value();
            knowledge.insert(arm.value(), Knowledge { fading: evidence(fading), all: evidence(all) });
        }
        let mut winners = HashMap::new();
        for row in transaction.open_table(WINNERS)?.iter()? {
            let (route, winner) = row?;
            let (arm, target, percent) = winner.value();
            let winner = Winner { arm: arm.to_owned(), target: target.to_owned(), percent };
            winners.insert(route.value().to_owned(), winner);
        }
        transaction.commit()?;
        let rewarded = Vec::new();
        Ok(Store { database, is_durable, predictions_max, arms, knowledge, winners, rewarded })
    }

    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    pub(super) fn knowledge(&self, arm: &ArmName) -> Knowledge {
        let number = self.arms.get(arm);
        number.and_then(|number| self.knowledge.get(number)).copied().unwrap_or_default()
    }

    pub(super) fn winner(&self, route: &str) -> Option<&Winner> {
        self.winners.get(route)
    }

    /// Keeps who has won, or that nobody has; it is on the disk when this returns.
    pub(super) fn keep_winner(&mut self, route: &str, winner: Option<Winner>) -> Result<(), Error> {
        if self.winners.get(route) == winner.as_ref() {
            return Ok(());
        }
        let transaction = self.database.begin_write()?;
        {
            let mut winners = transaction.open_table(WINNERS)?;
            match &winner {
                Some(Winner { arm, target, percent }) => {
                    winners.insert(route, (arm.as_str(), target.as_str(), *percent))?
                }
                None => winners.remove(route)?,
            };
        }
        transaction.commit()?;
        match winner {
            Some(winner) => self.winners.insert(route.to_owned(), winner),
            None => self.winners.remove(route),
        };
        Ok(())
    }

    /// What was rewarded by the last [`Store::write`].
    pub(super) fn rewarded(&mut self) -> Vec<Rewarded> {
        std::mem::take(&mut self.rewarded)
    }

    /// Outstanding predictions.
    pub(super) fn held(&self) -> Result<u64, Error> {
        Ok(self.database.begin_read()?.open_table(PREDICTIONS)?.len()?)
    }

    /// Takes over predictions that were made, and what was told, and returns when both are on the disk; without
    /// `is_urgent` they may reach it later. Where it fails nothing has changed.
    pub(super) fn write(
        &mut self,
        ended: &[Ended],
        told: &[OfRoute<'_>],
        rules: &dyn Fn(&str) -> Rules,
        now_ms: u64,
        is_urgent: bool,
    ) -> Result<Vec<Fate>, Error> {
        let mut answered = Vec::with_capacity(ended.len());
        for ended in ended.iter().filter(|ended| ended.is_good == Some(true)) {
            answered.push((ended, self.number(&ended.arm)?));
        }
        let names: HashMap<u32, &ArmName> = self.arms.iter().map(|(name, number)| (*number, name)).collect();
        let mut learned: HashMap<u32, Knowledge> = HashMap::new();
        let mut fates = Vec::with_capacity(told.len());
        let mut rewarded = Vec::new();
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(if is_urgent { Durability::Immediate } else { Durability::None })?;
        {
            let mut predictions = transaction.open_table(PREDICTIONS)?;
            let mut order = transaction.open_table(ORDER)?;
            let mut rewards = transaction.open_table(REWARDS)?;
            let mut truths = transaction.open_table(TRUTHS)?;
            let places = order.last()?.map_or(0, |(place, _)| place.value() + 1)..;
            for (place, (ended, arm)) in places.zip(answered) {
                let id = ended.prediction_id.number();
                predictions.insert(id, (arm, now_ms, ended.version))?;
                order.insert(place, id)?;
            }
            for _ in self.predictions_max..order.len()? {
                let oldest = order.pop_first()?.map(|(_, id)| id.value());
                if let Some(id) = oldest {
                    predictions.remove(id)?;
                    rewards.remove(id)?;
                    truths.remove(id)?;
                }
            }
            for (route, item) in told {
                let id = item.prediction_id.number();
                let prediction = predictions.get(id)?.map(|row| row.value());
                let of_route = prediction.filter(|(arm, ..)| names[arm].route == *route);
                let Some((arm, at_ms, version)) = of_route else {
                    fates.push(Fate::Unknown);
                    continue;
                };
                let rules = rules(route);
                let fate = match &item.told {
                    Told::Truth(truth) => keep_truth(&mut truths, id, truth)?,
                    Told::Reward(reward) => match rules.rewards.check(*reward) {
                        Err(why) => Fate::Invalid(why),
                        Ok(()) => keep_reward(&mut rewards, id, *reward)?,
                    },
                };
                if let (Fate::Accepted, Told::Reward(reward)) = (&fate, &item.told) {
                    let known = || self.knowledge.get(&arm).copied().unwrap_or_default();
                    let knowledge = learned.entry(arm).or_insert_with(known);
                    let at_s = at_ms as f64 / 1000.0;
                    knowledge.fading.add(*reward, at_s, rules.half_life);
                    knowledge.all.add(*reward, at_s, None);
                    rewarded.push(Rewarded { arm: names[&arm].clone(), version, at_ms, reward: *reward });
                }
                fates.push(fate);
            }
            let mut knowledge = transaction.open_table(KNOWLEDGE)?;
            for (arm, Knowledge { fading, all }) in &learned {
                knowledge.insert(*arm, (sums(fading), sums(all)))?;
            }
        }
        transaction.commit()?;
        self.knowledge.extend(learned);
        self.rewarded = rewarded;
        Ok(fates)
    }

    /// The number that stands for an arm's name.
    fn number(&mut self, name: &ArmName) -> Result<u32, Error> {
        if let Some(number) = self.arms.get(name) {
            return Ok(*number);
        }
        let transaction = self.database.begin_write()?;
        let number = {
            let mut arms = transaction.open_table(ARMS)?;
            let number = arms.last()?.map_or(0, |(number, _)| number.value() + 1);
            arms.insert(number, (name.route.as_str(), name.arm.as_str()))?;
            number
        };
        transaction.commit()?;
        self.arms.insert(name.clone(), number);
        Ok(number)
    }
}

fn keep_reward(rewards: &mut Table<'_, u128, f64>, id: u128, reward: f64) -> Result<Fate, Error> {
    if let Some(kept) = rewards.get(id)?.map(|row| row.value()) {
        // Bit by bit: what was told again comes from the same text.
        let is_same = kept.to_bits() == reward.to_bits();
        return Ok(if is_same { Fate::Duplicate } else { Fate::Conflict { kept: kept.to_string() } });
    }
    rewards.insert(id, reward)?;
    Ok(Fate::Accepted)
}

fn keep_truth(truths: &mut Table<'_, u128, &str>, id: u128, truth: &str) -> Result<Fate, Error> {
    if let Some(kept) = truths.get(id)?.map(|row| row.value().to_owned()) {
        return Ok(if kept == truth { Fate::Duplicate } else { Fate::Conflict { kept } });
    }
    truths.insert(id, truth)?;
    Ok(Fate::Accepted)
}

fn sums(evidence: &Evidence) -> Sums {
    let Evidence { count, mean, deviations, as_of_s } = *evidence;
    (count, mean, deviations, as_of_s)
}

fn evidence((count, mean, deviations, as_of_s): Sums) -> Evidence {
    Evidence { count, mean, deviations, as_of_s }
}

#[cfg(test)]
mod tests;
