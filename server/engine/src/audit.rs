//! Which live batches are run again row by row, how much time that may take, and what it shows: pure.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::RunError;
use crate::random::Random;
use crate::request::Inputs;
use crate::rows_apart::{self, Apart, RowTolerance, SCALE_MIN};
use crate::tensor::{Signature, Tensor};

/// Chooses batches of one worker at random.
#[derive(Debug)]
pub(crate) struct Sampling {
    share: f64,
    /// Batches to be passed over until the next one.
    passed_over: u64,
    random: Random,
}

/// The time that the audits of all versions may take together.
#[derive(Debug)]
pub(crate) struct Allowance {
    cores: f64,
    /// What has been taken is made up for until then.
    rests_until: Option<Instant>,
}

/// Rows of a live batch, and what they gave in it.
pub(crate) struct AuditedBatch {
    rows: Vec<AuditedRow>,
    rows_in_batch: usize,
    /// Of the whole batch, in the order of the signature.
    outputs: Vec<Tensor>,
}

struct AuditedRow {
    /// Its place in the batch.
    place: usize,
    inputs: Inputs,
}

/// The outputs of a row alone.
type RanAlone = Result<Vec<Tensor>, RunError>;

/// What an audit has shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    /// Every row that was run again gave the same.
    Equal,
    Different(Difference),
    /// Nothing: no row could be run, or only some before it was told to end.
    Nothing,
}

/// A row that gave something else alone. It has no values, which are callers' own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) row: usize,
    pub(crate) rows_in_batch: usize,
    pub(crate) apart: Apart,
    pub(crate) tolerance: RowTolerance,
}

/// Rows of one batch that are run again.
const AUDITED_ROWS_MAX: usize = 16;
/// Bytes of tensors that belong to an audited batch: a larger one is left out.
const BYTES_MAX: usize = 64 << 20;
/// What part of the cores' time audits may take.
const TIME_PART_MAX: f64 = 0.005;

// === impl Sampling ===

impl Sampling {
    /// `share` is above 0 and at most 1.
    pub(crate) fn new(share: f64, seed: u64) -> Sampling {
        let mut sampling = Sampling { share, passed_over: 0, random: Random::new(seed) };
        sampling.passed_over = sampling.gap();
        sampling
    }

    /// Whether the next batch is run again. Mostly this only counts.
    pub(crate) fn takes(&mut self) -> bool {
        if self.passed_over > 0 {
            self.passed_over -= 1;
            return false;
        }
        self.passed_over = self.gap();
        true
    }

    /// Where in a batch the rows begin that are run again.
    pub(crate) fn place(&mut self) -> usize {
        (self.random.uniform() * f64::from(u32::MAX)) as usize
    }

    /// Each batch has the same chance, so gaps have a geometric distribution.
    fn gap(&mut self) -> u64 {
        self.random.exponential(-1.0 / (1.0 - self.share).ln()) as u64
    }
}

// === impl Allowance ===

impl Allowance {
    pub(crate) fn new(cores: usize) -> Allowance {
        Allowance { cores: cores as f64, rests_until: None }
    }

    /// Whether another audit may begin.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|end| end <= now)
    }

    /// An audit that began then has taken so much time of a core.
    pub(crate) fn take(&mut self, began: Instant, time: Duration) {
        self.rests_until = Some(began + time.div_f64(TIME_PART_MAX * self.cores));
    }
}

// === impl AuditedBatch ===

impl AuditedBatch {
    /// Some rows of the batch of these requests, from the `first`th on, without copying them. `None` where there is
    /// nothing to compare, or where it is too large to be held.
    pub(crate) fn new<'a>(
        requests: impl Iterator<Item = (&'a Inputs, usize)> + Clone,
        outputs: &[Tensor],
        first: usize,
    ) -> Option<AuditedBatch> {
        let rows_in_batch = requests.clone().map(|(_, rows)| rows).sum();
        let bytes = |tensors: &mut dyn Iterator<Item = &Tensor>| -> usize {
            tensors.map(|tensor| tensor.data().len()).sum()
        };
        let held: usize = requests.clone().map(|(inputs, _)| bytes(&mut inputs.iter().flatten())).sum();
        let has_rows = |tensor: &Tensor, rows: usize| tensor.shape().first() == Some(&rows);
        let is_whole = outputs.iter().all(|output| has_rows(output, rows_in_batch))
            && requests
                .clone()
                .all(|(inputs, rows)| inputs.iter().flatten().all(|input| has_rows(input, rows)));
        if rows_in_batch < 2 || !is_whole || held + bytes(&mut outputs.iter()) > BYTES_MAX {
            return None;
        }
        let first = first % rows_in_batch;
        let is_chosen = |place: usize| (place + rows_in_batch - first) % rows_in_batch < AUDITED_ROWS_MAX;
        let mut rows = Vec::with_capacity(AUDITED_ROWS_MAX.min(rows_in_batch));
        let mut places = 0..rows_in_batch;
        for (inputs, count) in requests {
            for (row, place) in (0..count).zip(places.by_ref()).filter(|(_, place)| is_chosen(*place)) {
                let own = inputs.iter().map(|input| input.as_ref().map(|input| input.rows(row..row + 1)));
                rows.push(AuditedRow { place, inputs: own.collect() });
            }
        }
        Some(AuditedBatch { rows, rows_in_batch, outputs: outputs.to_vec() })
    }

    /// Runs the rows alone by `run`, which gives `None` when it is told to end or has no time left, and compares.
    pub(crate) fn judge(
        &self,
        signature: &Signature,
        tolerance: RowTolerance,
        run: &mut dyn FnMut(&Inputs) -> Option<RanAlone>,
    ) -> Finding {
        let scales: Vec<f64> = self.outputs.iter().map(typical_scale).collect();
        let mut is_any_equal = false;
        for row in &self.rows {
            let Some(ran) = run(&row.inputs) else { break };
            // A run that fails says nothing of the others.
            let Ok(alone) = ran else { continue };
            for (index, together) in self.outputs.iter().enumerate() {
                let (name, Some(alone)) = (&signature.outputs[index].name, alone.get(index)) else {
                    continue;
                };
                let together = together.rows(row.place..row.place + 1);
                let compared = rows_apart::compare(name, alone, &together, scales[index], tolerance);
                if let Err(apart) = compared {
                    let (row, rows_in_batch) = (row.place, self.rows_in_batch);
                    return Finding::Different(Difference { row, rows_in_batch, apart, tolerance });
                }
            }
            is_any_equal = true;
        }
        if is_any_equal { Finding::Equal } else { Finding::Nothing }
    }
}

/// The largest magnitude of a typical row: beside that of the most extreme one differences of the others would vanish,
/// and beside that of the least one rounding would show.
fn typical_scale(output: &Tensor) -> f64 {
    let ones = vec![1; output.shape().first().copied().unwrap_or(0)];
    let scale = |row: Tensor| rows_apart::scale(std::iter::once(&row));
    let mut scales: Vec<f64> =
        output.split_rows(&ones).map(scale).filter(|scale| *scale > SCALE_MIN).collect();
    scales.sort_by(f64::total_cmp);
    scales.get(scales.len() / 2).copied().unwrap_or(SCALE_MIN)
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { row, rows_in_batch, apart, tolerance } = self;
        write!(
            f,
            "output '{}' of row {row} of a batch of {rows_in_batch} rows was not what the row gives alone: {apart}, and \
             {tolerance} is allowed",
            apart.output
        )
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
