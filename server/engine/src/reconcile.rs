//! Makes what is served agree with what ought to be: loads, proves and publishes versions, and retires them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;

use crate::backend::Artifact;
use crate::catalog::{Catalog, Published, VersionState};
use crate::cores;
use crate::error::LoadError;
use crate::metrics::VersionGauges;
use crate::registry::{Desired, DesiredModel, ModelSettings};
use crate::workers::Workers;

/// The only writer of the catalog, and the owner of every worker.
pub struct Reconciler {
    published: Arc<Published>,
    serving: Vec<Workers>,
}

/// How one version's load went.
#[derive(Clone, Debug)]
pub struct LoadReport {
    pub model: String,
    pub version: u64,
    pub took: Duration,
    pub result: Result<(), LoadError>,
}

/// A version to load.
struct Task {
    artifact: Artifact,
    settings: ModelSettings,
}

impl Reconciler {
    pub(crate) fn new(published: Arc<Published>) -> Reconciler {
        Reconciler { published, serving: Vec::new() }
    }

    /// Loads every version of `desired`, as many side by side as there are cores, and publishes each
    /// as soon as it is proved and warm. A version that fails is left out, with its reason in the index.
    ///
    /// Reports in the order of the repository.
    pub fn load(&mut self, desired: Desired) -> Vec<LoadReport> {
        let mut reports = Vec::new();
        let mut tasks = Vec::new();
        let mut catalog = Catalog::clone(&self.published.catalog.load());
        for (name, model) in desired.models {
            match model {
                DesiredModel::Faulty { reason } => {
                    VersionGauges::new(&name, 0).ready.set(0.0);
                    catalog = catalog.with_state(&name, 0, VersionState::Unavailable, reason.clone());
                    let result = Err(LoadError(reason));
                    reports.push(LoadReport { model: name, version: 0, took: Duration::ZERO, result });
                }
                DesiredModel::Sound { versions, settings } => {
                    for (version, path) in versions {
                        let reason = "it is being loaded".to_owned();
                        catalog = catalog.with_state(&name, version, VersionState::Loading, reason);
                        let artifact = Artifact { model: name.clone(), version, path, threads: 1 };
                        tasks.push(Task { artifact, settings: settings.clone() });
                    }
                }
            }
        }
        self.published.publish(catalog);
        self.published.listed.store(true, Ordering::Release);
        reports.extend(self.run(tasks));
        reports.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        reports
    }

    fn run(&mut self, tasks: Vec<Task>) -> Vec<LoadReport> {
        let loaders = cores::granted().min(tasks.len());
        let (task_sender, task_receiver) = unbounded();
        let (done_sender, done_receiver) = unbounded();
        for task in tasks {
            task_sender.send(task).expect("the receiver is held below; this is a bug");
        }
        drop(task_sender);
        let mut reports = Vec::new();
        std::thread::scope(|scope| {
            for _ in 0..loaders {
                let (tasks, done) = (task_receiver.clone(), done_sender.clone());
                scope.spawn(move || {
                    for task in tasks {
                        let start = Instant::now();
                        let resident_before = resident_bytes();
                        let result =
                            Workers::start(&task.artifact, &*task.settings.backend, &task.settings.tuning);
                        let grown = resident_bytes().saturating_sub(resident_before);
                        let sent = done.send((task.artifact, result, start.elapsed(), grown));
                        sent.expect("the receiver outlives the loaders; this is a bug");
                    }
                });
            }
            drop(done_sender);
            for (artifact, result, took, grown_bytes) in done_receiver {
                let gauges = VersionGauges::new(&artifact.model, artifact.version);
                gauges.load_seconds.set(took.as_secs_f64());
                let result = match result {
                    Ok(workers) => {
                        gauges.ready.set(1.0);
                        gauges.load_resident_bytes.set(grown_bytes as f64);
                        let deployment = Arc::clone(workers.deployment());
                        self.serving.push(workers);
                        self.published.publish(self.published.catalog.load().with(deployment));
                        Ok(())
                    }
                    Err(error) => {
                        gauges.ready.set(0.0);
                        let (model, version) = (&artifact.model, artifact.version);
                        let state = VersionState::Unavailable;
                        let reason = error.to_string();
                        self.published
                            .publish(self.published.catalog.load().with_state(model, version, state, reason));
                        Err(error)
                    }
                };
                reports.push(LoadReport { model: artifact.model, version: artifact.version, took, result });
            }
        });
        reports
    }

    /// Stops admission everywhere, lets the workers finish what was admitted, and frees every session.
    pub fn shut_down(mut self) {
        self.published.begin_shutdown();
        for workers in &self.serving {
            workers.deployment().queue.close();
        }
        for workers in self.serving.drain(..) {
            workers.retire();
        }
    }
}

/// Resident memory of this process, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    // The second field of statm counts pages; Linux's base page is 4 KiB on every machine served here.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
