//! Which version of a model a request without one gets, how a new one is watched, and the way back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{EventKind, Managed, STABLE, Source, Watched};
use crate::plan::Wanted;

impl Managed {
    /// Chooses anew what a request without a version gets. True when that is another version now.
    pub(crate) fn choose_default(&mut self, now: Instant) -> bool {
        let is_ready = |version: &u64| self.slots.get(version).is_some_and(|slot| slot.ready.is_some());
        let wanted = match self.wanted() {
            Wanted::Versions(wanted) => wanted,
            Wanted::Unknown | Wanted::Nothing => BTreeMap::new(),
        };
        let stable = self.labels().get(STABLE).copied().filter(is_ready);
        let is_sound = |version: &u64| self.is_sound(version);
        let newest_wanted = wanted.keys().rev().copied().find(is_sound);
        // Where nothing that is wanted serves, what serves goes on; what was rolled back is the last resort.
        let current = self.default.filter(is_sound);
        let newest = || self.slots.keys().rev().copied().find(is_sound);
        let any = || self.slots.keys().rev().copied().find(is_ready);
        let chosen = stable.or(newest_wanted).or(current).or_else(newest).or_else(any);
        if chosen == self.default {
            return false;
        }
        let keep = match &self.source {
            Source::Sound { settings, .. } => settings.lifecycle.keep_previous,
            Source::Faulty { .. } | Source::Gone => Duration::ZERO,
        };
        // Of those before, only the last is kept: a quick series of versions would fill the memory.
        for slot in self.slots.values_mut() {
            slot.keep_until = None;
        }
        self.previous = self.default.filter(|previous| chosen.is_some_and(|chosen| chosen != *previous));
        // The way back leads to an older version, whose files may be gone. A newer one that is gone was taken away.
        let is_listed = |version: &u64| matches!(&self.source, Source::Sound { versions, .. } if versions.contains_key(version));
        let kept = self.previous.filter(|previous| chosen > Some(*previous) || is_listed(previous));
        if let Some(slot) = kept.and_then(|version| self.slots.get_mut(&version)) {
            slot.keep_until = Some(now + keep);
        }
        self.watch(chosen, now);
        self.default = chosen;
        if self.previous.is_some() {
            // What was refused may have been refused beside that version.
            self.retry_all(now);
        }
        if let Some(version) = chosen {
            let before = match self.previous {
                Some(previous) => format!("before it was {previous}"),
                None => String::new(),
            };
            self.record(version, EventKind::Default, before);
        }
        true
    }

    /// Watches a newer version that takes the default's place.
    fn watch(&mut self, chosen: Option<u64>, now: Instant) {
        self.watched = None;
        let (Some(version), Some(before)) = (chosen, self.default_deployment()) else { return };
        let Source::Sound { settings, .. } = &self.source else { return };
        if let Some(watch) = &settings.lifecycle.watch
            && version > before.info.version
        {
            let before = before.conduct();
            self.watched = Some(Watched { version, until: now + watch.period, before });
        }
    }

    /// Why the default is worse than what was before it, if it is watched and breaks a bound.
    fn judge(&mut self, now: Instant) -> Option<String> {
        let watched = self.watched.as_ref()?;
        if now >= watched.until || self.default != Some(watched.version) {
            self.watched = None;
            return None;
        }
        let Source::Sound { settings, .. } = &self.source else { return None };
        let watch = settings.lifecycle.watch.as_ref()?;
        watch.judge(self.default_deployment()?.conduct(), watched.before)
    }

    /// Goes back by itself when the default breaks a bound.
    pub(crate) fn keep_watch(&mut self, now: Instant) {
        let Some(why) = self.judge(now) else { return };
        self.watched = None;
        if let Err(error) = self.roll_back(&why, now) {
            tracing::error!(model = self.name, why, error, "the default is worse than the version before it");
        }
    }

    /// Goes back to what was the default before, which must still be loaded. Returns both versions.
    pub(crate) fn roll_back(&mut self, why: &str, now: Instant) -> Result<(u64, u64), String> {
        let name = &self.name;
        let Some(from) = self.default else {
            return Err(format!("model '{name}' serves no version: there is nothing to go back from"));
        };
        let is_sound = |version: &u64| self.is_sound(version);
        let older = || self.slots.keys().rev().copied().find(|version| *version < from && is_sound(version));
        let Some(to) = self.previous.filter(is_sound).or_else(older) else {
            return Err(format!(
                "model '{name}' has no version loaded to go back to from {from}: the one before is not in memory \
                 any more; load it, or raise keep_previous in its model.toml"
            ));
        };
        let stamp = self.slots[&from].ready.as_ref().expect("the default is ready; this is a bug").stamp;
        self.held_back.insert(from, (stamp, why.to_owned()));
        if self.labels().contains_key(STABLE) {
            self.labels.insert(STABLE.into(), Some(to));
        }
        self.record(from, EventKind::RolledBack, format!("to {to}: {why}"));
        self.choose_default(now);
        Ok((from, to))
    }
}
