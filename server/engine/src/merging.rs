//! Whether the requests of a version share runs now, and what decides it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::RowIndependence;
use crate::proof::{Rigour, Verdict};
use crate::rows_apart::RowTolerance;
use crate::tensor::Signature;

/// What an owner says about stacking the rows of a model, the weakest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// Nothing: it has to be shown.
    #[default]
    None,
    /// A largest batch was declared for another server: it counts where only rounding differs.
    Declared,
    /// They may be stacked, whatever structure leaves open.
    Trusted,
}

/// What decides whether the requests of a version share runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// The structure of the model, for good.
    Structure,
    /// The owner's word, for good unless an audit finds otherwise. Why the structure leaves it open.
    Word { open: String, is_random: bool },
    /// Samples that are still to run. Why the structure leaves it open.
    Samples { open: String, rigour: Rigour },
    /// Nothing but the owner's word could. Why.
    Nothing { why: String },
}

/// Whether requests share runs now.
pub(crate) struct Merging {
    is_on: AtomicBool,
    basis: Basis,
    /// Of live batches, which are run again row by row; 0 where that would show nothing.
    audit_share: f64,
    /// What was found out, for people.
    finding: Mutex<Finding>,
}

#[derive(Clone, Debug, Default)]
struct Finding {
    text: String,
    /// It stands against merging.
    is_obstacle: bool,
    /// Requests of callers showed it, which shared runs until then.
    is_live: bool,
}

// === impl Basis ===

impl Basis {
    pub(crate) fn new(signature: &Signature, independence: RowIndependence, word: Word) -> Basis {
        if !signature.is_batched() {
            return Basis::Structure;
        }
        match (independence, word) {
            (RowIndependence::Proved, _) => Basis::Structure,
            (RowIndependence::Undecided { reason }, Word::Trusted) => {
                Basis::Word { open: reason, is_random: false }
            }
            (RowIndependence::Random { reason }, Word::Trusted) => {
                Basis::Word { open: reason, is_random: true }
            }
            (RowIndependence::Undecided { reason }, Word::Declared) => {
                Basis::Samples { open: reason, rigour: Rigour::RoundingOnly }
            }
            (RowIndependence::Undecided { reason }, Word::None) => {
                Basis::Samples { open: reason, rigour: Rigour::Any }
            }
            (RowIndependence::Random { reason }, Word::Declared | Word::None) => Basis::Nothing {
                why: format!(
                    "outputs are random ({reason}), so that samples show nothing: set batching.trusted = true in \
                     model.toml if rows may share a run nevertheless"
                ),
            },
        }
    }
}

/// For people, at load. Empty where the signature has no batch axis, which has a reason of its own.
impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Basis::Structure => f.write_str("batch axis 0, proved by the model's structure"),
            Basis::Word { open, .. } => {
                write!(f, "batch axis 0, by the owner's word (batching.trusted): {open}")
            }
            Basis::Samples { open, .. } => {
                write!(
                    f,
                    "batch axis 0; each request runs alone until samples have shown that rows stay apart: {open}"
                )
            }
            Basis::Nothing { why } => write!(f, "each request runs alone: {why}"),
        }
    }
}

// === impl Merging ===

impl Merging {
    /// `audit_share` is what the owner wants.
    pub(crate) fn new(basis: Basis, audit_share: f64) -> Merging {
        let is_audited = matches!(basis, Basis::Samples { .. } | Basis::Word { is_random: false, .. });
        let is_on = matches!(basis, Basis::Structure | Basis::Word { .. });
        let finding = match &basis {
            Basis::Nothing { why } => Finding { text: why.clone(), is_obstacle: true, is_live: false },
            _ => Finding::default(),
        };
        Merging {
            is_on: AtomicBool::new(is_on),
            basis,
            audit_share: if is_audited { audit_share } else { 0.0 },
            finding: Mutex::new(finding),
        }
    }

    pub(crate) fn basis(&self) -> &Basis {
        &self.basis
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Samples are still to run.
    pub(crate) fn awaits_samples(&self) -> bool {
        matches!(self.basis, Basis::Samples { .. }) && self.lock().text.is_empty()
    }

    /// Nothing that happens can change it.
    pub(crate) fn is_settled(&self) -> bool {
        self.basis == Basis::Structure
    }

    /// Notes what was found out, and has it count from now on; `apply` tells the queue. What two threads find out at
    /// the same time is applied in one order everywhere.
    pub(crate) fn find(&self, is_on: bool, text: String, apply: impl FnOnce()) {
        self.set(is_on, Finding { text, is_obstacle: !is_on, is_live: false }, apply);
    }

    /// The same of what requests of callers have shown: rows are not kept apart. True for whoever says so first.
    pub(crate) fn refute(&self, text: String, apply: impl FnOnce()) -> bool {
        self.set(false, Finding { text, is_obstacle: true, is_live: true }, apply)
    }

    /// True where that changes something. What requests have shown stands.
    fn set(&self, is_on: bool, found: Finding, apply: impl FnOnce()) -> bool {
        let mut finding = self.lock();
        if finding.is_live {
            return false;
        }
        *finding = found;
        self.is_on.store(is_on, Ordering::Release);
        apply();
        true
    }

    /// What the structure leaves open; empty where it decides.
    pub(crate) fn open(&self) -> &str {
        match &self.basis {
            Basis::Word { open, .. } | Basis::Samples { open, .. } => open,
            Basis::Structure | Basis::Nothing { .. } => "",
        }
    }

    /// Which share of live batches is run again; 0 for none.
    pub(crate) fn audit_share(&self) -> f64 {
        self.audit_share
    }

    /// How far a row of a live batch may be from what it gives alone.
    pub(crate) fn audit_tolerance(&self, signature: &Signature) -> RowTolerance {
        match self.basis {
            Basis::Samples { rigour: Rigour::Any, .. } => RowTolerance::of(signature),
            _ => RowTolerance::of_rounding_live(),
        }
    }

    /// Why requests run alone, if requests of callers have shown it.
    pub(crate) fn refutation(&self) -> Option<String> {
        let finding = self.lock();
        finding.is_live.then(|| format!("each request runs alone: {}", finding.text))
    }

    /// Why requests run alone though the signature has a batch axis, once it is known.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let finding = self.lock();
        finding.is_obstacle.then(|| format!("each request runs alone: {}", finding.text))
    }

    fn lock(&self) -> MutexGuard<'_, Finding> {
        self.finding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a verdict says for people, after what the structure left open; and whether requests may share runs by it.
pub(crate) fn conclude(open: &str, verdict: &Verdict) -> (bool, String) {
    match verdict {
        Verdict::Apart(shown) => (true, format!("batch axis 0, shown by samples ({open}): {shown}")),
        Verdict::Mixed(why) => (false, format!("{why} ({open})")),
        Verdict::Nothing(why) => (false, format!("samples cannot show that rows stay apart: {why} ({open})")),
    }
}
