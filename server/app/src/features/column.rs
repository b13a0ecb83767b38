//! One input while its elements are collected, row by row or whole.

use std::fmt;

use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Dim, Shape, Tensor, TensorSpec};

use super::nest::Nest;
use super::rows::{feature_count, fits, place, unflatten};
use crate::codec::json::element::ElementReader;
use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::Values;

pub(super) struct Column<'m> {
    pub(super) spec: &'m TensorSpec,
    /// Dimensions of one row; `None` where the model does not say its rank.
    pub(super) row: Option<&'m [Dim]>,
    pub(super) read: ElementReader,
    pub(super) data: Vec<u8>,
    /// Sizes of the rows so far, which must all be the same.
    pub(super) row_shape: Option<Vec<usize>>,
    /// How the row was nested from which they are.
    nesting: Option<Vec<usize>>,
    pub(super) rows: usize,
}

impl<'m> Column<'m> {
    pub(super) fn new(spec: &'m TensorSpec, batched: bool, values: Values) -> Column<'m> {
        Column {
            spec,
            row: spec.shape.as_deref().map(|dims| dims.get(usize::from(batched)..).unwrap_or(&[])),
            read: values.reader(spec.dtype),
            data: Vec::new(),
            row_shape: None,
            nesting: None,
            rows: 0,
        }
    }

    /// Reads one value of a row.
    pub(super) fn element(&mut self, scanner: &mut Scanner<'_>, row: Option<usize>) -> Result<(), JsonError> {
        (self.read)(scanner, &mut self.data)
            .map_err(|problem| bad_value(scanner, &feature_place(row, &self.spec.name), &problem))
    }

    /// Reads a row: a value, or lists of them.
    pub(super) fn row(
        &mut self,
        scanner: &mut Scanner<'_>,
        model: &str,
        row: Option<usize>,
    ) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'[') {
            self.element(scanner, row)?;
            return self.end_row(&[], model, row);
        }
        let mut nest = Nest::new(self.read, &mut self.data);
        let found =
            nest.read(scanner).map_err(|problem| problem.describe(&feature_place(row, &self.spec.name)))?;
        self.end_row(&found, model, row)
    }

    /// Reads a cell of text, which is empty where a float is missing.
    pub(super) fn text_cell(&mut self, cell: &str, row: usize) -> Result<(), JsonError> {
        let place = || feature_place(Some(row), &self.spec.name);
        if self.spec.dtype == DType::Bytes {
            let length = u32::try_from(cell.len())
                .map_err(|_| JsonError::Meaning(format!("{}: a text of 4 GiB or more", place())))?;
            self.data.extend_from_slice(&length.to_le_bytes());
            self.data.extend_from_slice(cell.as_bytes());
            return Ok(());
        }
        // Most cells are numbers, in JSON's form.
        if let Some(b'0'..=b'9' | b'-') = cell.as_bytes().first() {
            let before = self.data.len();
            let mut scanner = Scanner::new(cell);
            if (self.read)(&mut scanner, &mut self.data).is_ok() && scanner.end().is_ok() {
                return Ok(());
            }
            self.data.truncate(before);
        }
        let cell = cell.trim();
        let json = match cell {
            "" | "nan" => "NaN",
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            "True" => "true",
            "False" => "false",
            _ => cell,
        };
        let mut scanner = Scanner::new(json);
        let read = (self.read)(&mut scanner, &mut self.data);
        let read = read.and_then(|()| scanner.end().map_err(|_| "expected one value".to_owned()));
        read.map_err(|problem| {
            // What the cell stands for is not what its writer sees.
            let problem = problem.split(", got ").next().unwrap_or_default();
            JsonError::Meaning(format!("{}: {problem}, got '{cell}'", place()))
        })
    }

    /// Reads the whole input. Where a row has one value, the list around it may be left out.
    pub(super) fn whole(&mut self, scanner: &mut Scanner<'_>, batched: bool) -> Result<(), JsonError> {
        let place_text = format!("input '{}'", self.spec.name);
        let mut nest = Nest::new(self.read, &mut self.data);
        let mut found = nest.read(scanner).map_err(|problem| problem.describe(&place_text))?;
        if found.as_slice() == [0] {
            // Nothing inside tells the other sizes.
            let others = self.row.and_then(|row| row.get(usize::from(!batched)..)).unwrap_or_default();
            found.extend(others.iter().map(smallest));
        }
        if !batched {
            (self.rows, self.row_shape) = (1, Some(found));
            return Ok(());
        }
        let [rows, row_shape @ ..] = found.as_slice() else {
            return Err(JsonError::Meaning(format!("{place_text}: expected a list of rows, got one value")));
        };
        let placed = self.row.filter(|row| !fits(row_shape, row));
        let placed = placed.and_then(|row| place(&found, row, true, &self.spec.name).ok());
        // What does not fit goes on as it is: the engine says what it ought to be.
        (self.rows, self.row_shape) = match placed {
            Some(placed) => (placed.rows, Some(placed.row)),
            None => (*rows, Some(row_shape.to_vec())),
        };
        Ok(())
    }

    /// Takes the value that was read as a row: a single one if `found` is empty, or lists nested like it.
    pub(super) fn end_row(
        &mut self,
        found: &[usize],
        model: &str,
        row: Option<usize>,
    ) -> Result<(), JsonError> {
        self.rows += 1;
        // Most rows are like the first one.
        if self.nesting.as_deref() == Some(found) {
            return Ok(());
        }
        let count: usize = found.iter().product();
        let shape = match self.row {
            None => found.to_vec(),
            Some(dims) if fits(found, dims) => found.to_vec(),
            Some(dims) => (found.len() <= 1).then(|| unflatten(count, dims)).flatten().ok_or_else(|| {
                JsonError::Meaning(format!(
                    "model '{model}': {}: expected {}, got {count}",
                    feature_place(row, &self.spec.name),
                    feature_count(dims).replace("feature", "value")
                ))
            })?,
        };
        match &self.row_shape {
            Some(first) if *first != shape => Err(JsonError::Meaning(format!(
                "{}: shape {shape:?} differs from row 0's {first:?}",
                feature_place(row, &self.spec.name)
            ))),
            _ => {
                (self.row_shape, self.nesting) = (Some(shape), Some(found.to_vec()));
                Ok(())
            }
        }
    }

    /// The tensor, if anything was read into it.
    pub(super) fn finish(&mut self, batched: bool) -> Result<Option<NamedTensor>, JsonError> {
        let Some(row_shape) = self.row_shape.take() else { return Ok(None) };
        let mut shape = Shape::new();
        shape.extend(batched.then_some(self.rows));
        shape.extend(row_shape);
        let name = self.spec.name.clone();
        let tensor = Tensor::new(self.spec.dtype, shape, std::mem::take(&mut self.data).into())
            .map_err(|error| JsonError::Meaning(format!("feature '{name}': {error}")))?;
        Ok(Some(NamedTensor { name, tensor }))
    }
}

fn bad_value(scanner: &mut Scanner<'_>, place: &str, problem: &str) -> JsonError {
    match scanner.clone().skip() {
        Ok(()) => JsonError::Meaning(format!("{place}: {problem}")),
        Err(error) => error,
    }
}

/// The least size that a dimension may have.
fn smallest(dim: &Dim) -> usize {
    match dim {
        Dim::Fixed(size) => *size,
        Dim::Dynamic(_) => 0,
    }
}

/// How errors name a row. Written only for them.
pub(super) struct RowPlace(pub(super) Option<usize>);

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(row) => write!(f, "row {row}"),
            None => f.write_str("the row"),
        }
    }
}

fn feature_place(row: Option<usize>, name: &str) -> String {
    match row {
        Some(row) => format!("row {row}, feature '{name}'"),
        None => format!("feature '{name}'"),
    }
}

/// How errors list inputs.
pub(crate) fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
}
