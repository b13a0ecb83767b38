//! Who is asked instead of a version that would refuse: found when a catalog is made, so that it is one look-up then.

use std::collections::HashMap;
use std::sync::Arc;

use super::Served;
use crate::compatibility;
use crate::deployment::Deployment;
use crate::request::ModelInfo;
use crate::tuning::Fallback;

/// By model, for each version that has one.
#[derive(Default)]
pub(super) struct Fallbacks(HashMap<String, Vec<(u64, Arc<Deployment>)>>);

// === impl Fallbacks ===

impl Fallbacks {
    pub(super) fn new(models: &HashMap<String, Served>) -> Fallbacks {
        let mut fallbacks = Fallbacks::default();
        for (name, served) in models {
            for deployment in &served.versions {
                let found = deployment.degrade_to().and_then(|wanted| find(models, name, served, wanted));
                let Some(fallback) = found.filter(|fallback| !Arc::ptr_eq(fallback, deployment)) else {
                    continue;
                };
                if let Err(why) = compatibility::check(&deployment.info.signature, &fallback.info.signature) {
                    let ModelInfo { name: other, version, .. } = &*fallback.info;
                    tracing::warn!(
                        model = name,
                        version = deployment.info.version,
                        why,
                        "degrade_to has no effect: clients could not use '{other}' version {version} instead"
                    );
                    continue;
                }
                let versions = fallbacks.0.entry(name.clone()).or_default();
                versions.push((deployment.info.version, Arc::clone(fallback)));
            }
        }
        fallbacks
    }

    pub(super) fn of(&self, info: &ModelInfo) -> Option<&Arc<Deployment>> {
        let mut versions = self.0.get(&info.name)?.iter();
        versions.find(|(version, _)| *version == info.version).map(|(_, fallback)| fallback)
    }
}

/// What serves under `wanted`: nothing while that is still being loaded, or is not there at all.
fn find<'a>(
    models: &'a HashMap<String, Served>,
    name: &str,
    own: &'a Served,
    wanted: &Fallback,
) -> Option<&'a Arc<Deployment>> {
    let (served, version) = match wanted {
        Fallback::Version(version) => (own, *version),
        Fallback::Name(label) if own.labels.contains_key(label) => (own, own.labels[label]),
        Fallback::Name(other) => (models.get(other)?, models.get(other)?.default),
    };
    let found = served.versions.iter().find(|deployment| deployment.info.version == version);
    if found.is_none() {
        tracing::info!(model = name, ?wanted, "degrade_to has no effect until what it names serves");
    }
    found
}
