//! Reads `features` or `instances` into a model's inputs: numbers become the input's own dtype.

use gristmill_engine::request::{ModelInfo, NamedTensor};
use gristmill_engine::tensor::{BatchAxis, Dim, Tensor, TensorSpec};

use super::nest::{Nest, NestError};
use super::rows::{self, Placed, feature_count, fits, place, unflatten};
use crate::codec::json::element::{ElementReader, element_reader};
use crate::codec::json::scan::{JsonError, Scanner};

/// What a body asks to predict.
#[derive(Debug)]
pub(super) struct Features {
    pub(super) inputs: Vec<NamedTensor>,
    /// The answer is a list with one entry for each row.
    pub(super) listed: bool,
}

/// Reads the body of a prediction for `model`.
///
/// # Errors
/// Malformed JSON, or features that are not what the model takes; rows and features count from 0.
pub(super) fn read(model: &ModelInfo, text: &str) -> Result<Features, JsonError> {
    let mut features = None;
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| match key {
        "features" | "instances" if features.is_some() => {
            Err(JsonError::meaning("the request has more than one of 'features' and 'instances'"))
        }
        "features" | "instances" => {
            let mut reader = Reader::new(model);
            features = Some(reader.read(scanner, key)?);
            Ok(())
        }
        _ => scanner.skip(),
    })?;
    scanner.end()?;
    features.ok_or_else(|| {
        JsonError::meaning(
            "the request has neither 'features' (one row or a list of rows) nor 'instances' (a list)",
        )
    })
}

/// Collects each input's elements, row by row.
struct Reader<'m> {
    model: &'m ModelInfo,
    columns: Vec<Column<'m>>,
}

struct Column<'m> {
    spec: &'m TensorSpec,
    /// Dimensions of one row; `None` where the model does not say its rank.
    row: Option<&'m [Dim]>,
    read: ElementReader,
    data: Vec<u8>,
    /// Sizes of the rows so far, which must all be the same.
    row_shape: Option<Vec<usize>>,
    rows: usize,
}

impl<'m> Reader<'m> {
    fn new(model: &'m ModelInfo) -> Reader<'m> {
        let skip = usize::from(model.signature.is_batched());
        let column = |spec: &'m TensorSpec| Column {
            spec,
            row: spec.shape.as_deref().map(|dims| dims.get(skip..).unwrap_or(&[])),
            read: element_reader(spec.dtype),
            data: Vec::new(),
            row_shape: None,
            rows: 0,
        };
        Reader { model, columns: model.signature.inputs.iter().map(column).collect() }
    }

    fn read(&mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let listed = key == "instances";
        match scanner.peek() {
            Some(b'{') if !listed => {
                self.object_row(scanner, None)?;
                self.finish(1, false)
            }
            Some(b'[') => {
                let mut ahead = scanner.clone();
                ahead.open()?;
                match ahead.peek() {
                    Some(b']') if listed => {
                        Err(JsonError::meaning("'instances' is empty: expected a list of rows"))
                    }
                    Some(b'{') => {
                        let rows = scanner.list(key, |scanner, row| self.object_row(scanner, Some(row)))?;
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
                                "takes {count} features per row: each of 'instances' must be a list or an object"
                            );
                            return Err(self.complaint(problem));
                        }
                        self.list_row(scanner, None)?;
                        self.finish(1, false)
                    }
                    _ => self.only_input(scanner, listed),
                }
            }
            _ => {
                let or_object = if listed { "" } else { " or an object" };
                Err(scanner.unexpected(format_args!("'{key}' must be a list{or_object}")))
            }
        }
    }

    /// All rows of the model's only input.
    fn only_input(&mut self, scanner: &mut Scanner<'_>, listed: bool) -> Result<Features, JsonError> {
        let batched = self.model.signature.is_batched();
        let column = &mut self.columns[0];
        let mut nest = Nest::new(column.read, &mut column.data);
        let shape = match nest.read(scanner) {
            Ok(shape) => shape,
            Err(problem) => return Err(self.nest_complaint(problem)),
        };
        let placed = match column.row {
            Some(row) => place(&shape, row, listed).map_err(|problem| self.complaint(problem))?,
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
        let count = scanner.list(place_text(row), |scanner, index| match columns.get_mut(index) {
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

    /// One row as an object with a value for each input.
    fn object_row(&mut self, scanner: &mut Scanner<'_>, row: Option<usize>) -> Result<(), JsonError> {
        let before = row.unwrap_or(0);
        let model = self.model;
        let columns = &mut self.columns;
        scanner.object(place_text(row), |scanner, name| {
            let Some(column) = columns.iter_mut().find(|column| column.spec.name == name) else {
                return Err(JsonError::Meaning(format!(
                    "model '{}' has no feature '{name}': it takes {}",
                    model.name,
                    names(&model.signature.inputs)
                )));
            };
            if column.rows != before {
                let problem =
                    if column.rows > before { "is given twice" } else { "is not in the rows before" };
                return Err(JsonError::Meaning(format!("{}: feature '{name}' {problem}", place_text(row))));
            }
            let found = if scanner.peek() == Some(b'[') {
                let mut nest = Nest::new(column.read, &mut column.data);
                nest.read(scanner).map_err(|problem| problem.describe(&feature_place(row, name)))?
            } else {
                column.element(scanner, row)?;
                Vec::new()
            };
            column.end_row(&found, &model.name, row)
        })?;
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
            place_text(row),
            missing.join(", ")
        )))
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
        if let BatchAxis::None { reason } = &self.model.signature.batch
            && rows != 1
        {
            return Err(self.complaint(format!("takes one row at a time ({reason}), got {rows}")));
        }
        let mut inputs = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let Some(row_shape) = column.row_shape.take() else { continue };
            let mut shape = gristmill_engine::tensor::Shape::new();
            shape.extend(batched.then_some(rows));
            shape.extend(row_shape);
            let name = column.spec.name.clone();
            let tensor = Tensor::new(column.spec.dtype, shape, std::mem::take(&mut column.data).into())
                .map_err(|error| JsonError::Meaning(format!("feature '{name}': {error}")))?;
            inputs.push(NamedTensor { name, tensor });
        }
        Ok(Features { inputs, listed })
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

impl Column<'_> {
    fn element(&mut self, scanner: &mut Scanner<'_>, row: Option<usize>) -> Result<(), JsonError> {
        (self.read)(scanner, &mut self.data)
            .map_err(|problem| bad_value(scanner, &feature_place(row, &self.spec.name), &problem))
    }

    /// Takes the value that was read as a row: a single one if `found` is empty, or lists nested like it.
    fn end_row(&mut self, found: &[usize], model: &str, row: Option<usize>) -> Result<(), JsonError> {
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
        self.rows += 1;
        match &self.row_shape {
            Some(first) if *first != shape => Err(JsonError::Meaning(format!(
                "{}: shape {shape:?} differs from row 0's {first:?}",
                feature_place(row, &self.spec.name)
            ))),
            _ => {
                self.row_shape = Some(shape);
                Ok(())
            }
        }
    }
}

fn bad_value(scanner: &mut Scanner<'_>, place: &str, problem: &str) -> JsonError {
    match scanner.clone().skip() {
        Ok(()) => JsonError::Meaning(format!("{place}: {problem}")),
        Err(error) => error,
    }
}

fn place_text(row: Option<usize>) -> String {
    row.map_or_else(|| "the row".into(), |row| format!("row {row}"))
}

fn feature_place(row: Option<usize>, name: &str) -> String {
    match row {
        Some(row) => format!("row {row}, feature '{name}'"),
        None => format!("feature '{name}'"),
    }
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
}
