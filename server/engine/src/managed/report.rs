//! A managed model as the catalog and as operators see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Failure, Managed, ModelDetails, Slot, Source};
use crate::catalog::{ModelReport, Served, VersionState};
use crate::metrics::model_failing;
use crate::readiness::Standing;
use crate::registry::{SourceState, VersionPolicy};

impl Managed {
    pub(crate) fn details(&self) -> ModelDetails {
        let policy = match &self.source {
            Source::Sound { settings, .. } => Some(settings.lifecycle.policy.to_string()),
            Source::Faulty { .. } | Source::Gone => None,
        };
        ModelDetails {
            name: self.name.clone(),
            default: self.default,
            previous: self.previous,
            labels: self.labels(),
            policy,
            history: self.history.iter().cloned().collect(),
        }
    }

    /// Why nothing of it serves, or why its newest version does not; `None` when all is well.
    pub(crate) fn fault(&self) -> Option<String> {
        let failed = |(version, slot): (&u64, &Slot)| {
            slot.failure.as_ref().map(|failure| format!("version {version}: {}", failure.error))
        };
        let of_model = || self.slots.iter().rev().find_map(failed);
        match &self.source {
            Source::Faulty { reason } => Some(reason.clone()),
            Source::Sound { .. } | Source::Gone => of_model().or_else(|| self.fault_of_files()),
        }
    }

    /// The part of it that the log has not been told by a load.
    pub(super) fn fault_of_files(&self) -> Option<String> {
        if let Source::Faulty { reason } = &self.source {
            return Some(reason.clone());
        }
        let refused = |version: u64| Some(format!("version {version}: {}", self.refusal(version)?));
        self.ought_to_serve().rev().find_map(refused)
    }

    /// What must not be loaded, and why: version 0 is the model as a whole.
    pub(crate) fn faults_of_files(&self) -> Vec<(u64, String)> {
        match &self.source {
            _ if !self.is_asked_for => Vec::new(),
            Source::Faulty { reason } => vec![(0, reason.clone())],
            Source::Sound { .. } => {
                let refused = |version| Some((version, self.refusal(version)?.to_owned()));
                self.ought_to_serve().filter_map(refused).collect()
            }
            Source::Gone => Vec::new(),
        }
    }

    /// Why the files of a version must not be loaded.
    fn refusal(&self, version: u64) -> Option<&str> {
        let Source::Sound { versions, .. } = &self.source else { return None };
        match &versions.get(&version)?.state {
            SourceState::Refused(reason) => Some(reason),
            SourceState::Complete | SourceState::Changing => None,
        }
    }

    /// Versions that would serve if they could.
    fn ought_to_serve(&self) -> impl DoubleEndedIterator<Item = u64> {
        let sources = match &self.source {
            Source::Sound { versions, settings } if self.is_asked_for => Some((versions, settings)),
            _ => None,
        };
        sources.into_iter().flat_map(|(versions, settings)| {
            let is_meant = |version: &u64| match &settings.lifecycle.policy {
                VersionPolicy::All => true,
                VersionPolicy::Specific(list) => list.contains(version),
                VersionPolicy::Latest(_) => self.default.is_none_or(|default| *version >= default),
            };
            versions.keys().copied().filter(is_meant)
        })
    }

    /// It ought to serve.
    pub(crate) fn is_expected(&self) -> bool {
        self.is_asked_for && self.is_in_repository()
    }

    /// Takes note of what has become of it, after a step, and says what is new of that.
    pub(crate) fn take_stock(&mut self, now: Instant) {
        if self.is_expected() {
            self.has_served |= self.serves();
            self.is_tried = self.is_tried || self.serves() || !self.is_busy(now);
        } else {
            (self.has_served, self.is_tried) = (false, false);
        }
        let told = self.is_expected().then(|| self.fault_of_files()).flatten();
        if told != self.told {
            if let Some(why) = &told {
                tracing::error!(model = self.name, why, "at fault");
            }
            self.told = told;
        }
        let is_failing = self.is_expected() && (self.fault().is_some() || self.is_tried && !self.serves());
        match (&self.failing, is_failing) {
            (None, true) => {
                let gauge = model_failing(&self.name);
                gauge.set(1.0);
                self.failing = Some(gauge);
            }
            (Some(gauge), false) => {
                gauge.set(0.0);
                self.failing = None;
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    /// What the catalog shows of it.
    pub(crate) fn report(&self) -> ModelReport {
        let mut versions: BTreeMap<u64, (VersionState, String)> = BTreeMap::new();
        let unavailable = |reason: String| (VersionState::Unavailable, reason);
        if let Source::Sound { versions: sources, settings } = &self.source {
            let wanted = self.wanted();
            for (&version, source) in sources {
                let entry = match &source.state {
                    SourceState::Refused(reason) => unavailable(reason.clone()),
                    SourceState::Changing => unavailable("its files are still being written".into()),
                    SourceState::Complete if !self.is_asked_for => {
                        unavailable("it is not loaded: load it to serve it".into())
                    }
                    SourceState::Complete if wanted.includes(version) => {
                        (VersionState::Loading, "it waits until other versions are loaded".into())
                    }
                    SourceState::Complete => unavailable(format!(
                        "it is not among the versions that the policy serves ({})",
                        settings.lifecycle.policy
                    )),
                };
                versions.insert(version, entry);
            }
        }
        for (&version, slot) in &self.slots {
            let failed = |failure: &Failure| match failure.attempts {
                1 => failure.error.to_string(),
                attempts => format!("{} ({attempts} attempts)", failure.error),
            };
            let entry = match (&slot.ready, &slot.loading, &slot.failure) {
                (Some(_), _, None) => {
                    let refused = |reason| format!("newer contents are not served: {reason}");
                    (VersionState::Ready, self.refusal(version).map(refused).unwrap_or_default())
                }
                (Some(_), _, Some(failure)) => {
                    (VersionState::Ready, format!("newer contents are not served: {}", failed(failure)))
                }
                (None, Some(_), _) => (VersionState::Loading, "it is being loaded".into()),
                (None, None, Some(failure)) => unavailable(failed(failure)),
                (None, None, None) => continue,
            };
            versions.insert(version, entry);
        }
        for (version, (_, why)) in &self.held_back {
            let has_failed = self.slots.get(version).is_some_and(|slot| slot.failure.is_some());
            let (_, reason) = versions.entry(*version).or_insert_with(|| unavailable(String::new()));
            if !has_failed {
                *reason = format!("rolled back: {why}");
            }
        }
        if let Source::Faulty { reason } = &self.source {
            versions.insert(0, unavailable(reason.clone()));
        }
        let ready: Vec<_> = self
            .slots
            .values()
            .filter_map(|slot| Some(Arc::clone(slot.ready.as_ref()?.workers.deployment())))
            .collect();
        let served = self.default.filter(|_| !ready.is_empty()).map(|default| Served {
            versions: ready,
            default,
            labels: self.labels(),
        });
        let standing = self.standing(&versions, served.is_some());
        ModelReport {
            name: self.name.clone(),
            service_level: Arc::clone(&self.service_level),
            versions,
            served,
            standing,
        }
    }

    fn standing(&self, versions: &BTreeMap<u64, (VersionState, String)>, serves: bool) -> Standing {
        let fault = self.fault();
        // What waits for its turn, or for its files, is not at fault.
        let is_underway =
            self.is_changing() || versions.values().any(|(state, _)| *state == VersionState::Loading);
        let is_at_fault = fault.is_some() || !serves && !is_underway;
        let newest = || {
            let (version, (state, reason)) = versions.last_key_value()?;
            Some(format!("version {version} is {}: {reason}", state.name().to_lowercase()))
        };
        let why = fault.or_else(newest).unwrap_or_else(|| "it has no version".into());
        Standing {
            serves,
            is_expected: self.is_expected(),
            is_tried: self.is_tried,
            has_served: self.has_served,
            is_at_fault,
            why,
        }
    }
}
