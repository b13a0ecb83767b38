//! Whether rows may be stacked, by sample runs: alone and together, in several sizes and orders, beside hostile rows.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::backend::Instance;
use crate::error::RunError;
use crate::rows_apart::{self, RowTolerance};
use crate::samples::{LEVELS, Manner, Recipe, Sample, SampleRow, is_narrowable};
use crate::tensor::{BatchAxis, ShapeText, Signature, Tensor};

/// What a first look at a model found, which is short enough for a load.
pub(crate) struct FirstLook {
    /// Whether the outputs of two rows have two rows, where the signature has a batch axis.
    pub(crate) batch: BatchAxis,
    /// Samples made in this way run; `None` when none did.
    pub(crate) recipe: Option<Recipe>,
    /// What prevented them, where none ran.
    pub(crate) failure: Option<String>,
    /// How long one row took.
    pub(crate) one_row: Option<Duration>,
}

/// What samples say of a model's rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The outputs of a row never depended on the others.
    Apart(Shown),
    /// They did; a clause that names the output.
    Mixed(String),
    /// No sample could have shown it; a clause that says why.
    Nothing(String),
}

/// What was run to see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    runs: usize,
    /// As a part of the scale of the output.
    largest: f64,
    tolerance: RowTolerance,
    /// Kinds of rows that the model refuses.
    refused: Vec<&'static str>,
}

/// How strict a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Whatever else a batch holds.
    Any,
    /// An owner says that rows may be stacked: ordinary rows may differ by rounding.
    RoundingOnly,
}

/// How a proof has a sample run: it may have to wait, and be told to end.
pub(crate) trait Runs {
    /// # Errors
    /// What the runtime reports, or [`RunError::Stopped`] when the proof is to end.
    fn run(&mut self, sample: &Sample) -> Result<Vec<Tensor>, RunError>;
}

/// How many runs of one row a proof takes about as long as, if longer batches save nothing.
pub(crate) const ROW_RUNS: u32 = 130;
/// Ordinary rows that are run alone.
const ROWS: usize = 8;
/// Rows of each hostile kind that are run alone.
const HOSTILE_ROWS: usize = 2;
/// Batches of ordinary rows: of several sizes, and in other orders.
const ORDERS: [&[usize]; 7] = [
    &[0, 1],
    &[2, 3, 4],
    &[0, 1, 2, 3, 4],
    &[0, 1, 2, 3, 4, 5, 6, 7],
    &[2, 0, 1],
    &[7, 3, 5, 1, 6, 0, 4, 2],
    &[5, 5, 0],
];

/// Runs at most a few samples on `instance`: finds how they are to be made, and whether outputs have rows. Two rows are
/// run together only where there is `time`: else it is left to what decides about batches.
pub(crate) fn look(signature: &Signature, time: Duration, instance: &mut dyn Instance) -> FirstLook {
    let start = Instant::now();
    let plain = Recipe::all(signature).map(|recipe| Recipe::plain(recipe.dynamic_size));
    let mut recipes: Vec<Recipe> = Recipe::all(signature).collect();
    if !signature.is_batched() {
        // Nothing is compared, and what holds no rows may hold sizes: four of up to 1000 would be all memory.
        recipes.sort_by_key(|recipe| Reverse(recipe.level(0)));
    }
    let mut failure = None;
    let mut alone = None;
    for recipe in recipes.into_iter().chain(plain) {
        let began = Instant::now();
        let one = match Sample::new(signature, 0..1, recipe).run(instance) {
            Ok(outputs) => outputs,
            Err(error) => {
                failure.get_or_insert_with(|| format!("sample inputs do not run: {error}"));
                continue;
            }
        };
        let took = began.elapsed();
        let found = |batch| FirstLook { batch, recipe: Some(recipe), failure: None, one_row: Some(took) };
        if !signature.is_batched() {
            return found(signature.batch.clone());
        }
        if let Some(reason) = uncounted(signature, &one, 1) {
            return found(BatchAxis::None { reason });
        }
        if start.elapsed() + 2 * took > time {
            return found(BatchAxis::Rows);
        }
        let two = match Sample::new(signature, 0..2, recipe).run(instance) {
            Ok(outputs) => outputs,
            Err(error) => {
                alone.get_or_insert_with(|| (recipe, took, format!("2 rows do not run together: {error}")));
                continue;
            }
        };
        let uncounted = uncounted(signature, &two, 2);
        return found(uncounted.map_or(BatchAxis::Rows, |reason| BatchAxis::None { reason }));
    }
    match alone {
        Some((recipe, took, reason)) => FirstLook {
            batch: BatchAxis::None { reason },
            recipe: Some(recipe),
            failure: None,
            one_row: Some(took),
        },
        None => FirstLook { batch: signature.batch.clone(), recipe: None, failure, one_row: None },
    }
}

/// The first output whose first dimension does not count rows.
fn uncounted(signature: &Signature, outputs: &[Tensor], rows: usize) -> Option<String> {
    signature.outputs.iter().enumerate().find_map(|(index, spec)| {
        let Some(output) = outputs.get(index) else {
            return Some(format!("output '{}' is missing from a run", spec.name));
        };
        (output.shape().first() != Some(&rows)).then(|| {
            let rows = if rows == 1 { "one row".to_owned() } else { format!("{rows} rows") };
            format!(
                "output '{}' has shape {} for {rows}: its first dimension does not count rows",
                spec.name,
                ShapeText(output.shape())
            )
        })
    })
}

/// Decides by samples whether rows may be stacked. `None` when it was told to end.
pub(crate) fn prove(signature: &Signature, rigour: Rigour, runs: &mut dyn Runs) -> Option<Verdict> {
    let tolerance = match rigour {
        Rigour::Any => RowTolerance::of(signature),
        Rigour::RoundingOnly => RowTolerance::of_rounding(),
    };
    let mut trial = Trial {
        signature,
        tolerance,
        runs,
        recipe: Recipe::new(1, 0),
        alone: HashMap::new(),
        count: 0,
        largest: 0.0,
    };
    match trial.judge(rigour) {
        Ok(verdict) => Some(verdict),
        Err(End::Verdict(verdict)) => Some(verdict),
        Err(End::Told) => None,
    }
}

struct Trial<'a> {
    signature: &'a Signature,
    tolerance: RowTolerance,
    runs: &'a mut dyn Runs,
    recipe: Recipe,
    /// What rows give alone.
    alone: HashMap<SampleRow, Vec<Tensor>>,
    count: usize,
    largest: f64,
}

/// Why a trial ends early.
enum End {
    Told,
    Verdict(Verdict),
}

// === impl Trial ===

impl Trial<'_> {
    fn judge(&mut self, rigour: Rigour) -> Result<Verdict, End> {
        self.find_recipe()?;
        let mut refused = Vec::new();
        self.judge_rows(rigour, &mut refused)?;
        if self.signature.inputs.iter().any(|spec| spec.optional) {
            self.recipe.gives_optional = true;
            self.alone.clear();
            for number in 0..ROWS {
                if let Err(error) = self.run_alone(SampleRow::ordinary(number))? {
                    let why = format!("a sample with its optional inputs does not run: {error}");
                    return Ok(Verdict::Nothing(why));
                }
            }
            self.judge_rows(rigour, &mut refused)?;
        }
        refused.sort_unstable();
        refused.dedup();
        let (runs, largest, tolerance) = (self.count, self.largest, self.tolerance);
        Ok(Verdict::Apart(Shown { runs, largest, tolerance, refused }))
    }

    /// Finds the widest values with which every ordinary row runs alone, input by input.
    fn find_recipe(&mut self) -> Result<(), End> {
        let mut failure = None;
        for recipe in Recipe::all(self.signature) {
            if let Some(error) = self.refuses(recipe)? {
                failure.get_or_insert(error);
                continue;
            }
            let narrowable: Vec<usize> = (0..self.signature.inputs.len())
                .filter(|input| is_narrowable(&self.signature.inputs[*input]))
                .collect();
            let mut widest = recipe;
            for input in narrowable.iter().copied().filter(|_| narrowable.len() > 1) {
                for level in 0..widest.level(input).min(LEVELS) {
                    let wider = widest.with_level(input, level);
                    if self.refuses(wider)?.is_none() {
                        widest = wider;
                        break;
                    }
                }
            }
            return match self.refuses(widest)? {
                None => Ok(()),
                Some(error) => {
                    Err(End::Verdict(Verdict::Nothing(format!("samples run at times only: {error}"))))
                }
            };
        }
        let why = failure.unwrap_or_else(|| "there is none".into());
        Err(End::Verdict(Verdict::Nothing(format!("no sample whose rows differ runs: {why}"))))
    }

    /// Runs the ordinary rows alone, made by `recipe`, and keeps what they give. Says what does not run.
    fn refuses(&mut self, recipe: Recipe) -> Result<Option<String>, End> {
        if self.recipe != recipe {
            self.recipe = recipe;
            self.alone.clear();
        }
        for number in 0..ROWS {
            if let Err(error) = self.run_alone(SampleRow::ordinary(number))? {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// With the recipe of now, whose ordinary rows have run alone.
    fn judge_rows(&mut self, rigour: Rigour, refused: &mut Vec<&'static str>) -> Result<(), End> {
        self.check_repeats()?;
        for order in ORDERS {
            let rows: Vec<SampleRow> = order.iter().map(|number| SampleRow::ordinary(*number)).collect();
            self.check(&rows)?;
        }
        if rigour == Rigour::Any {
            let mut all = vec![SampleRow::ordinary(3)];
            for manner in Manner::HOSTILE {
                let hostile: Vec<SampleRow> =
                    (0..HOSTILE_ROWS).map(|row| SampleRow { number: ROWS + row, manner }).collect();
                let mut is_refused = false;
                for row in &hostile {
                    is_refused |= self.run_alone(*row)?.is_err();
                }
                if is_refused {
                    refused.push(manner.name());
                    continue;
                }
                let [first, last] = [SampleRow::ordinary(0), SampleRow::ordinary(1)];
                self.check(&[first, hostile[0], last, hostile[1], SampleRow::ordinary(2)])?;
                self.check(&[hostile[1], first, last])?;
                all.push(hostile[0]);
            }
            all.push(SampleRow::ordinary(4));
            self.check(&all)?;
        }
        self.check_informative()
    }

    /// Alone, once a row. The inner error is the runtime's.
    fn run_alone(&mut self, row: SampleRow) -> Result<Result<(), String>, End> {
        if self.alone.contains_key(&row) {
            return Ok(Ok(()));
        }
        let outputs = match self.run(&[row])? {
            Ok(outputs) => outputs,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(reason) = uncounted(self.signature, &outputs, 1) {
            return Err(End::Verdict(Verdict::Mixed(reason)));
        }
        self.alone.insert(row, outputs);
        Ok(Ok(()))
    }

    fn run(&mut self, rows: &[SampleRow]) -> Result<Result<Vec<Tensor>, String>, End> {
        match self.runs.run(&Sample::of(self.signature, rows, self.recipe)) {
            Ok(outputs) => {
                self.count += 1;
                Ok(Ok(outputs))
            }
            Err(RunError::Stopped) => Err(End::Told),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Runs `rows`, each of which has run alone, together.
    fn check(&mut self, rows: &[SampleRow]) -> Result<(), End> {
        let mixed = |why: String| Err(End::Verdict(Verdict::Mixed(why)));
        let together = match self.run(rows)? {
            Ok(outputs) => outputs,
            Err(error) => return mixed(format!("{} rows do not run together: {error}", rows.len())),
        };
        if let Some(reason) = uncounted(self.signature, &together, rows.len()) {
            return mixed(reason);
        }
        for (index, spec) in self.signature.outputs.iter().enumerate() {
            for (place, row) in rows.iter().enumerate() {
                // Rows of another kind have another scale, beside which differences would vanish.
                let of_its_kind = self.alone.iter().filter(|(other, _)| other.manner == row.manner);
                let scale = rows_apart::scale(of_its_kind.map(|(_, outputs)| &outputs[index]));
                let alone = &self.alone[row][index];
                let own = together[index].rows(place..place + 1);
                match rows_apart::compare(&spec.name, alone, &own, scale, self.tolerance) {
                    Ok(part) => self.largest = self.largest.max(part),
                    Err(apart) => {
                        return mixed(format!(
                            "output '{}' of a sample row depends on the other rows of its batch: {apart}, and {} \
                             is allowed",
                            apart.output, self.tolerance
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// A model that is random or keeps state may say anything.
    fn check_repeats(&mut self) -> Result<(), End> {
        let row = SampleRow::ordinary(0);
        let Ok(again) = self.run(&[row])? else {
            return Err(End::Verdict(Verdict::Nothing("a sample runs at times only".into())));
        };
        for (index, spec) in self.signature.outputs.iter().enumerate() {
            let (first, Some(again)) = (&self.alone[&row][index], again.get(index)) else { continue };
            let scale = rows_apart::scale(std::iter::once(first));
            if let Err(apart) = rows_apart::compare(&spec.name, first, again, scale, self.tolerance) {
                let why = format!("output '{}' differs when the same row runs again: {apart}", apart.output);
                return Err(End::Verdict(Verdict::Mixed(why)));
            }
        }
        Ok(())
    }

    /// Where all rows have the same outputs nobody can tell whose they are.
    fn check_informative(&self) -> Result<(), End> {
        let mut rows = self.alone.values();
        let first = rows.next();
        let differs = rows.any(|outputs| {
            first.is_some_and(|first| {
                first.iter().zip(outputs).any(|(a, b)| a.data() != b.data() || a.shape() != b.shape())
            })
        });
        match differs {
            true => Ok(()),
            false => Err(End::Verdict(Verdict::Nothing("all sample rows have the same outputs".into()))),
        }
    }
}

// === impl Shown ===

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} sample runs no output of a row differed by more than {:.4} % of its scale by what else was in its \
             batch, and {} is allowed",
            self.runs,
            self.largest * 100.0,
            self.tolerance
        )?;
        if !self.refused.is_empty() {
            write!(f, " (the model refuses {} values)", self.refused.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
