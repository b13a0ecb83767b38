//! Runs the rows of a live batch alone, and takes batches off a version whose rows give something else then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use crate::audit::{AuditedBatch, Finding};
use crate::backend::{Device, InputView};
use crate::cores::thread_cpu_time;
use crate::deployment::Deployment;
use crate::gather::Gather;
use crate::metrics::AuditOutcome;
use crate::request::Inputs;

/// A batch that is to be run again.
pub(super) struct Audit {
    deployment: Weak<Deployment>,
    batch: AuditedBatch,
}

/// What an audit takes of the device: the time of a core, which others mostly have meanwhile, or of a GPU.
struct Taken {
    device: Device,
    began: Instant,
    cpu: Duration,
}

/// No further row is run when an audit has taken so long.
const AUDIT_TIME_MAX: Duration = Duration::from_millis(100);

// === impl Audit ===

impl Audit {
    pub(super) fn new(deployment: &Arc<Deployment>, batch: AuditedBatch) -> Audit {
        Audit { deployment: Arc::downgrade(deployment), batch }
    }

    pub(super) fn is_of(&self, deployment: &Arc<Deployment>) -> bool {
        self.deployment.as_ptr() == Arc::as_ptr(deployment)
    }

    pub(super) fn deployment(&self) -> Weak<Deployment> {
        Weak::clone(&self.deployment)
    }
}

// === impl Taken ===

impl Taken {
    fn begin(device: Device) -> Taken {
        Taken { device, began: Instant::now(), cpu: thread_cpu_time() }
    }

    fn time(&self) -> Duration {
        match self.device {
            Device::Socket(_) => thread_cpu_time().saturating_sub(self.cpu),
            Device::Gpu(_) => self.began.elapsed(),
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn audit(&self, audit: Audit) {
        let Some(deployment) = audit.deployment.upgrade() else { return };
        let taken = Taken::begin(deployment.origin.device());
        let judge = || self.judge_batch(&deployment, &audit.batch, &taken);
        // A panic says nothing of rows, and the session goes with it.
        let finding = catch_unwind(AssertUnwindSafe(judge)).unwrap_or(Finding::Nothing);
        self.lock().allowance.take(taken.began, taken.time());
        deployment.audits.count(match &finding {
            Finding::Equal => AuditOutcome::Equal,
            Finding::Nothing => AuditOutcome::Skipped,
            Finding::Different(_) => AuditOutcome::Different,
        });
        let Finding::Different(difference) = finding else { return };
        if deployment.refute_merging(format!("{difference} ({})", deployment.merging.open())) {
            let info = &deployment.info;
            tracing::error!(
                model = info.name,
                version = info.version,
                row = difference.row,
                rows = difference.rows_in_batch,
                output = difference.apart.output,
                difference = %difference.apart,
                allowed = %difference.tolerance,
                "a row gave something else in a batch than alone; each request runs alone from now on"
            );
        }
    }

    fn judge_batch(&self, deployment: &Arc<Deployment>, batch: &AuditedBatch, taken: &Taken) -> Finding {
        if self.is_over(deployment) || !deployment.merging.is_on() {
            return Finding::Nothing;
        }
        let signature = &deployment.info.signature;
        let Ok(mut instance) = self.instance(deployment) else { return Finding::Nothing };
        let mut gather = Gather::default();
        let mut has_run = false;
        let mut run = |inputs: &Inputs| {
            // As for samples: where all cores are busy it takes what time the others leave.
            let _slot = deployment.origin.background();
            let has_time = !has_run || taken.time() < AUDIT_TIME_MAX;
            if self.is_over(deployment) || !has_time {
                return None;
            }
            has_run = true;
            gather.fill(std::iter::once(inputs), Some(1));
            let views: Vec<Option<InputView<'_>>> = gather.views(inputs).collect();
            Some(instance.run(&views))
        };
        batch.judge(signature, deployment.merging.audit_tolerance(signature), &mut run)
    }
}
