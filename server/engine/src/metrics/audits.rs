//! What is counted of the audits of a version's batches.

use metrics::{Counter, SharedString};

use super::{BATCH_AUDITS, OnUse, version_labels};

/// What became of a batch that was chosen to be run again: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    Equal,
    Different,
    Skipped,
}

/// Handles of one version, resolved when a batch of it is first chosen.
pub(crate) type AuditMetrics = OnUse<(String, u64), AuditHandles>;

pub(crate) struct AuditHandles([Counter; AuditOutcome::ALL.len()]);

// === impl AuditOutcome ===

impl AuditOutcome {
    const ALL: [AuditOutcome; 3] = [AuditOutcome::Equal, AuditOutcome::Different, AuditOutcome::Skipped];

    fn label(self) -> &'static str {
        match self {
            AuditOutcome::Equal => "equal",
            AuditOutcome::Different => "different",
            AuditOutcome::Skipped => "skipped",
        }
    }
}

// === impl AuditHandles ===

impl AuditHandles {
    pub(crate) fn resolve((model, version): &(String, u64)) -> AuditHandles {
        AuditHandles(AuditOutcome::ALL.map(|outcome| {
            let [model, version] = version_labels(model, *version);
            let outcome = ("outcome", SharedString::const_str(outcome.label()));
            metrics::counter!(BATCH_AUDITS.name, &[model, version, outcome])
        }))
    }

    pub(crate) fn count(&self, outcome: AuditOutcome) {
        self.0[outcome as usize].increment(1);
    }
}
