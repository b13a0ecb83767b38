//! How rows, columns or frames of features become a model's inputs: values become the input's own dtype.

mod column;
mod csv;
mod frame;
mod nest;
mod rows;

use std::fmt;

use gristmill_engine::request::{ModelInfo, NamedTensor};
use gristmill_engine::tensor::BatchAxis;

pub(crate) use self::column::names;
use self::column::{Column, RowPlace};
use self::nest::{Nest, NestError};
use self::rows::{Placed, fits, place};
pub(crate) use self::rows::{feature_count, unflatten};
use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::{Values, is_base64};
use crate::codec::rows::ASK_FOR_WHOLE_OUTPUTS;

/// What a body asks to predict.
#[derive(Debug)]
pub(crate) struct Features {
    pub(crate) inputs: Vec<NamedTensor>,
    /// The answer is a list with one entry for each row.
    pub(crate) listed: bool,
}

/// Collects each input's elements. Rows and features count from 0 in its errors.
pub(crate) struct Reader<'m> {
    model: &'m ModelInfo,
    columns: Vec<Column<'m>>,
    values: Values,
}

impl<'m> Reader<'m> {
    pub(crate) fn new(model: &'m ModelInfo, values: Values) -> Reader<'m> {
        let batched = model.signature.is_batched();
        let column = |spec| Column::new(spec, batched, values);
        Reader { model, columns: model.signature.inputs.iter().map(column).collect(), values }
    }

    /// Reads the list of rows called `key`. Unless it is `listed`, it may also be one row: a flat list, or an object.
    ///
    /// # Errors
    /// Malformed JSON, or features that are not what the model takes.
    pub(crate) fn rows(
        mut self,
        scanner: &mut Scanner<'_>,
        key: &str,
        listed: bool,
    ) -> Result<Features, JsonError> {
        match scanner.peek() {
            Some(b'{') if !listed && !self.is_base64(scanner) => {
                self.object_row(scanner, None, None)?;
                self.finish(1, false)
            }
            // Text in base64 looks like an object and is one value.
            Some(b'{') if !listed => self.only_input(scanner, key, listed),
            Some(b'[') => {
                let mut ahead = scanner.clone();
                ahead.open()?;
                match ahead.peek() {
                    Some(b']') if listed => Err(no_rows(key)),
                    Some(b'{') if !self.is_base64(&ahead) => {
                        let rows =
                            scanner.list(key, |scanner, row| self.object_row(scanner, Some(row), None))?;
                        self.finish(rows, true)
                    }
                    Some(b'[') if self.columns.len() != 1 => {
                        self.check_plain_columns()?;
                        let rows = scanner.list(key, |scanner, row| self.list_row(scanner, Some(row)))?;
                        self.finish(rows, true)
                    }
                    _ if self.columns.len() != 1 => {
                        self.check_plain_columns()?;
                        if listed {
                            let count = self.columns.len();
                            let problem = format!(
                                "takes {count} features per row: each of '{key}' must be a list or an object"
                            );
                            return Err(self.complaint(problem));
                        }
                        self.list_row(scanner, None)?;
                        self.finish(1, false)
                    }
                    _ => self.only_input(scanner, key, listed),
                }
            }
            _ => {
                let or_object = if listed { "" } else { " or an object" };
                Err(scanner.unexpected(format_args!("'{key}' must be a list{or_object}")))
            }
        }
    }

    /// Reads whole inputs: an object with one for each, or the only one, each with all of its rows.
    ///
    /// # Errors
    /// Malformed JSON, or inputs that the model does not have. Whether all are there, with as many rows, is checked
    /// by the engine.
    pub(crate) fn inputs(mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let model = self.model;
        let batched = model.signature.is_batched();
        let drops_others = self.values.are_of_a_frame();
        if scanner.peek() == Some(b'{') && !self.is_base64(scanner) {
            let columns = &mut self.columns;
            scanner.object(format_args!("'{key}'"), |scanner, name| {
                let Some(column) = columns.iter_mut().find(|column| column.spec.name == name) else {
                    return if drops_others { scanner.skip() } else { Err(unknown_feature(model, name)) };
                };
                if column.row_shape.is_some() {
                    return Err(JsonError::Meaning(format!("input '{name}' is given twice")));
                }
                column.whole(scanner, batched)
            })?;
        } else if let [column] = self.columns.as_mut_slice() {
            column.whole(scanner, batched)?;
        } else {
            let names = names(&model.signature.inputs);
            return Err(scanner.unexpected(format_args!("'{key}' must be an object with {names}")));
        }
        self.finish(1, true)
    }

    /// Reads the list of objects called `key`, one for each row. Features may also be in `context`, an object whose
    /// members are part of every row.
    ///
    /// # Errors
    /// As [`Reader::rows`].
    pub(crate) fn examples(
        mut self,
        scanner: &mut Scanner<'_>,
        key: &str,
        context: Option<&Scanner<'_>>,
    ) -> Result<Features, JsonError> {
        let rows = scanner
            .list(format_args!("'{key}'"), |scanner, row| self.object_row(scanner, Some(row), context))?;
        match rows {
            0 => Err(no_rows(key)),
            rows => self.finish(rows, true),
        }
    }

    /// Reads an object whose members are inputs of the one row. Those that are none go to `others`, which reads their
    /// values. Called again, for another part of the row, or ended by [`Reader::end`].
    ///
    /// # Errors
    /// As [`Reader::rows`], and those of `others`.
    pub(crate) fn part_of_row<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        what: &str,
        others: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.members_and_others(scanner, what, None, others)
    }

    /// The row whose parts were read.
    ///
    /// # Errors
    /// Inputs that were in none of the parts.
    pub(crate) fn end(mut self) -> Result<Features, JsonError> {
        self.check_complete(None)?;
        self.finish(1, false)
    }

    /// Whether the next value is the only input's text, in base64.
    fn is_base64(&self, scanner: &Scanner<'_>) -> bool {
        matches!(self.columns.as_slice(), [only] if self.values.has_base64(only.spec.dtype))
            && is_base64(scanner)
    }

    /// All rows of the model's only input.
    fn only_input(
        mut self,
        scanner: &mut Scanner<'_>,
        key: &str,
        listed: bool,
    ) -> Result<Features, JsonError> {
        let batched = self.model.signature.is_batched();
        let column = &mut self.columns[0];
        let mut nest = Nest::new(column.read, &mut column.data);
        let shape = match nest.read(scanner) {
            Ok(shape) => shape,
            Err(problem) => return Err(self.nest_complaint(problem)),
        };
        let placed = match column.row {
            // Without a batch axis a list of rows is just the outermost dimension.
            row if listed && !batched && row.is_none_or(|row| fits(&shape, row)) => {
                if let Some(&entries @ 2..) = shape.first() {
                    return Err(self.inseparable(entries));
                }
                Placed { row: shape, rows: 1, single: false }
            }
            Some(row) => place(&shape, row, listed, key).map_err(|problem| self.complaint(problem))?,
            // Without a known rank the caller's nesting is all there is to go by.
            None if batched && shape.len() == 1 && !listed => Placed { row: shape, rows: 1, single: true },
            None if batched => Placed { row: shape[1..].to_vec(), rows: shape[0], single: false },
            None => Placed { row: shape, rows: 1, single: !listed },
        };
        let column = &mut self.columns[0];
        column.rows = placed.rows;
        column.row_shape = Some(placed.row);
        self.finish(placed.rows, !placed.single)
    }

    /// One row as a list with one value for each input, in the order of the signature.
    fn list_row(&mut self, scanner: &mut Scanner<'_>, row: Option<usize>) -> Result<(), JsonError> {
        let model = &self.model.name;
        let columns = &mut self.columns;
        let count = scanner.list(RowPlace(row), |scanner, index| match columns.get_mut(index) {
            None => scanner.skip(),
            Some(column) => {
                column.element(scanner, row)?;
                column.end_row(&[], model, row)
            }
        })?;
        if count == self.columns.len() {
            return Ok(());
        }
        let takes = format!("takes {} features per row", self.columns.len());
        Err(self.complaint(match row {
            Some(row) => format!("{takes}, row {row} has {count}"),
            None => format!("{takes}, got {count}"),
        }))
    }

    /// One row as an object with a value for each input that is not in `context`.
    fn object_row(
        &mut self,
        scanner: &mut Scanner<'_>,
        row: Option<usize>,
        context: Option<&Scanner<'_>>,
    ) -> Result<(), JsonError> {
        self.members(scanner, RowPlace(row), row)?;
        if let Some(context) = context {
            self.members(&mut context.clone(), "'context'", row)?;
        }
        self.check_complete(row)
    }

    /// Whether every input has a value in the row that was read.
    fn check_complete(&self, row: Option<usize>) -> Result<(), JsonError> {
        let before = row.unwrap_or(0);
        let missing: Vec<_> = self
            .columns
            .iter()
            .filter(|column| column.rows == before && (!column.spec.optional || before > 0))
            .map(|column| format!("'{}'", column.spec.name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(JsonError::Meaning(format!(
            "model '{}': {} has no {}",
            self.model.name,
            RowPlace(row),
            missing.join(", ")
        )))
    }

    fn members(
        &mut self,
        scanner: &mut Scanner<'_>,
        what: impl fmt::Display,
        row: Option<usize>,
    ) -> Result<(), JsonError> {
        let model = self.model;
        let drops_others = self.values.are_of_a_frame();
        self.members_and_others(scanner, what, row, |scanner, name| match drops_others {
            true => scanner.skip(),
            false => Err(unknown_feature(model, name)),
        })
    }

    fn members_and_others<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        what: impl fmt::Display,
        row: Option<usize>,
        mut others: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        let before = row.unwrap_or(0);
        let model = self.model;
        let columns = &mut self.columns;
        // Most clients write the features in the same order in every row, and many in that of the model.
        let mut expected = 0;
        scanner.object(what, |scanner, name| {
            let is_expected = columns.get(expected).is_some_and(|column| column.spec.name == name);
            let index = if is_expected {
                expected
            } else {
                match columns.iter().position(|column| column.spec.name == name) {
                    Some(index) => index,
                    None => return others(scanner, name),
                }
            };
            expected = index + 1;
            let column = &mut columns[index];
            if column.rows != before {
                let problem =
                    if column.rows > before { "is given twice" } else { "is not in the rows before" };
                return Err(JsonError::Meaning(format!("{}: feature '{name}' {problem}", RowPlace(row))));
            }
            column.row(scanner, &model.name, row)
        })
    }

    /// Lists of plain values make sense only where every input takes one value a row.
    fn check_plain_columns(&self) -> Result<(), JsonError> {
        let plain = |column: &Column<'_>| column.row.is_some_and(|row| unflatten(1, row).is_some());
        if self.columns.iter().all(plain) {
            return Ok(());
        }
        Err(self.complaint(format!(
            "takes {} inputs, some with several values per row: send objects with {}",
            self.columns.len(),
            names(&self.model.signature.inputs)
        )))
    }

    fn finish(&mut self, rows: usize, listed: bool) -> Result<Features, JsonError> {
        let batched = self.model.signature.is_batched();
        if !batched && rows != 1 {
            return Err(self.inseparable(rows));
        }
        let mut inputs = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            inputs.extend(column.finish(batched)?);
        }
        Ok(Features { inputs, listed })
    }

    /// Why a list of rows cannot be asked of a model without a batch axis.
    fn inseparable(&self, rows: usize) -> JsonError {
        let reason = match &self.model.signature.batch {
            BatchAxis::None { reason } => reason.as_str(),
            BatchAxis::Rows => "",
        };
        self.complaint(format!(
            "has no batch axis ({reason}), so its outputs cannot be told apart by row, and {rows} rows came: \
             {ASK_FOR_WHOLE_OUTPUTS}"
        ))
    }

    fn complaint(&self, problem: String) -> JsonError {
        JsonError::Meaning(format!("model '{}' {problem}", self.model.name))
    }

    fn nest_complaint(&self, problem: NestError) -> JsonError {
        let row = self.columns[0].row;
        match (problem, row) {
            // The row to blame is the one that the model would not take.
            (NestError::Uneven { depth: 1, row: index, first, found }, Some(row)) => {
                let (index, count) =
                    if unflatten(first, row).is_some() { (index, found) } else { (0, first) };
                self.complaint(rows::wrong_count(row, index, count))
            }
            (problem, _) => problem.describe(&format!("model '{}'", self.model.name)),
        }
    }
}

fn no_rows(key: &str) -> JsonError {
    JsonError::Meaning(format!("'{key}' is empty: expected a list of rows"))
}

fn unknown_feature(model: &ModelInfo, name: &str) -> JsonError {
    JsonError::Meaning(format!(
        "model '{}' has no feature '{name}': it takes {}",
        model.name,
        names(&model.signature.inputs)
    ))
}
