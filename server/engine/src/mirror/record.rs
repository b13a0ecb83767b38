//! What came of mirrored requests: counts, and the worst mismatches of those that were compared.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::comparison::Difference;
use crate::metrics::{Fate, ShadowMetrics};
use crate::prediction::PredictionId;
use crate::request::NamedTensor;
use crate::tensor::Tensor;

/// Mismatches that are kept.
const WORST_MAX: usize = 32;
/// Inputs of a mismatch are kept if all of them together have no more bytes.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// Requests of a route that one of its shadows was to answer too, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Both answers are within the tolerance.
    pub matched: u64,
    pub mismatched: u64,
    /// The shadow alone failed.
    pub shadow_failed: u64,
    /// The primary alone failed.
    pub primary_failed: u64,
    pub both_failed: u64,
    /// Shed: too much waited already.
    pub no_room: u64,
    /// Shed: no core was left over soon enough.
    pub no_core: u64,
    /// The shadow's version does not serve.
    pub not_serving: u64,
    /// The primary gave nothing that could be compared.
    pub unanswered: u64,
    /// What the last failure on one side or on both was; empty where there was none.
    pub last_error: String,
}

/// One request whose answers were compared.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub at: SystemTime,
    pub prediction_id: PredictionId,
    /// Model and version.
    pub primary: (String, u64),
    pub shadow: (String, u64),
    /// Of the batch that the request was in.
    pub primary_run: Duration,
    /// Of the request alone, on one thread that gives way to all others.
    pub shadow_run: Duration,
    /// All that were compared.
    pub tensors: Vec<TensorMismatch>,
    /// Where they are kept.
    pub inputs: Option<Vec<NamedTensor>>,
}

/// How one output differs; why it could not be compared if it could not.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorMismatch {
    pub name: String,
    pub difference: Result<Difference, String>,
}

pub(super) struct Record {
    metrics: ShadowMetrics,
    counts: [AtomicU64; Fate::ALL.len()],
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    last_error: String,
    worst: Vec<Mismatch>,
}

// === impl ShadowCounts ===

impl ShadowCounts {
    /// Requests that both sides answered.
    pub fn compared(&self) -> u64 {
        self.matched + self.mismatched
    }

    /// Of those that were compared; `None` where none was.
    pub fn mismatch_rate(&self) -> Option<f64> {
        (self.compared() > 0).then(|| self.mismatched as f64 / self.compared() as f64)
    }

    /// Mirrors that were dropped so that others have their cores.
    pub fn shed(&self) -> u64 {
        self.no_room + self.no_core
    }
}

// === impl Mismatch ===

impl Mismatch {
    fn is_mismatch(&self) -> bool {
        self.tensors.iter().any(|tensor| match &tensor.difference {
            Ok(difference) => difference.differing > 0,
            Err(_) => true,
        })
    }

    /// By how much its worst element is beyond the tolerance; infinite where tensors cannot be compared.
    fn severity(&self) -> f64 {
        let of = |tensor: &TensorMismatch| match &tensor.difference {
            Ok(difference) => difference.excess,
            Err(_) => f64::INFINITY,
        };
        self.tensors.iter().map(of).fold(0.0, f64::max)
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(metrics: ShadowMetrics) -> Record {
        Record { metrics, counts: Default::default(), kept: Mutex::default() }
    }

    pub(super) fn count(&self, fate: Fate) {
        self.counts[fate as usize].fetch_add(1, Ordering::Relaxed);
        self.metrics.count(fate);
    }

    pub(super) fn failed(&self, fate: Fate, why: String) {
        self.lock().last_error = why;
        self.count(fate);
    }

    /// Both sides have answered; keeps a mismatch if it is one of the worst, with these inputs if there are any.
    pub(super) fn compared(&self, mut found: Mismatch, inputs: Option<&[NamedTensor]>) {
        for difference in found.tensors.iter().filter_map(|tensor| tensor.difference.as_ref().ok()) {
            self.metrics.record_difference(difference);
        }
        self.metrics.record_runs(found.primary_run, found.shadow_run);
        if !found.is_mismatch() {
            return self.count(Fate::Matched);
        }
        let mut kept = self.lock();
        if let Some(place) = place(&kept.worst, found.severity()) {
            found.inputs = inputs.and_then(own);
            match place < kept.worst.len() {
                true => kept.worst[place] = found,
                false => kept.worst.push(found),
            }
        }
        drop(kept);
        self.count(Fate::Mismatched);
    }

    pub(super) fn counts(&self) -> ShadowCounts {
        let of = |fate: Fate| self.counts[fate as usize].load(Ordering::Relaxed);
        ShadowCounts {
            matched: of(Fate::Matched),
            mismatched: of(Fate::Mismatched),
            shadow_failed: of(Fate::ShadowFailed),
            primary_failed: of(Fate::PrimaryFailed),
            both_failed: of(Fate::BothFailed),
            no_room: of(Fate::NoRoom),
            no_core: of(Fate::NoCore),
            not_serving: of(Fate::NotServing),
            unanswered: of(Fate::Unanswered),
            last_error: self.lock().last_error.clone(),
        }
    }

    /// The worst first.
    pub(super) fn worst(&self) -> Vec<Mismatch> {
        let mut worst = self.lock().worst.clone();
        worst.sort_by(|one, other| other.severity().total_cmp(&one.severity()));
        worst
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a mismatch of this severity is kept: behind the others, or in place of the mildest, which it may equal.
fn place(worst: &[Mismatch], severity: f64) -> Option<usize> {
    if worst.len() < WORST_MAX {
        return Some(worst.len());
    }
    let severities = worst.iter().map(Mismatch::severity).enumerate();
    let (mildest, least) = severities.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (severity >= least).then_some(mildest)
}

/// Copies, so that they do not keep the messages that they came in.
fn own(inputs: &[NamedTensor]) -> Option<Vec<NamedTensor>> {
    let bytes: usize = inputs.iter().map(|input| input.tensor.data().len()).sum();
    let copy = |NamedTensor { name, tensor }: &NamedTensor| {
        let data = Bytes::copy_from_slice(tensor.data());
        let tensor = Tensor::new(tensor.dtype(), tensor.shape(), data);
        NamedTensor { name: name.clone(), tensor: tensor.expect("a copy is as sound; this is a bug") }
    };
    (bytes <= INPUT_BYTES_MAX).then(|| inputs.iter().map(copy).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch(excess: f64) -> Mismatch {
        let difference = Ok(Difference { elements: 1, differing: 1, excess, ..Difference::default() });
        Mismatch {
            at: SystemTime::UNIX_EPOCH,
            prediction_id: PredictionId::next(),
            primary: ("m".into(), 1),
            shadow: ("m".into(), 2),
            primary_run: Duration::ZERO,
            shadow_run: Duration::ZERO,
            tensors: vec![TensorMismatch { name: "y".into(), difference }],
            inputs: None,
        }
    }

    #[test]
    fn the_worst_are_kept_whatever_comes_later() {
        let record = Record::new(ShadowMetrics::new("route", "shadow"));
        for excess in [9.0, 1.0, 8.0] {
            record.compared(mismatch(excess), None);
        }
        for _ in 0..100 {
            record.compared(mismatch(2.0), None);
        }
        record.compared(Mismatch { tensors: Vec::new(), ..mismatch(0.0) }, None);
        let worst: Vec<f64> = record.worst().iter().map(Mismatch::severity).collect();
        assert_eq!((worst.len(), &worst[..3], worst[WORST_MAX - 1]), (WORST_MAX, &[9.0, 8.0, 2.0][..], 2.0));
        let counts = record.counts();
        assert_eq!((counts.mismatched, counts.matched), (103, 1));
        assert_eq!(counts.mismatch_rate(), Some(103.0 / 104.0));
    }

    #[test]
    fn inputs_are_kept_unless_they_are_large() {
        let record = Record::new(ShadowMetrics::new("route", "shadow"));
        let input = |bytes: usize| {
            let tensor = Tensor::new(crate::tensor::DType::Uint8, [bytes].as_slice(), vec![7; bytes].into());
            [NamedTensor { name: "x".into(), tensor: tensor.unwrap() }]
        };
        record.compared(mismatch(2.0), Some(&input(INPUT_BYTES_MAX)));
        record.compared(mismatch(1.0), Some(&input(INPUT_BYTES_MAX + 1)));
        let kept: Vec<bool> = record.worst().iter().map(|found| found.inputs.is_some()).collect();
        assert_eq!(kept, [true, false]);
    }
}
