//! Data frames, in JSON or CSV: rows whose values are told apart by the names of their columns.

use std::borrow::Cow;

use super::column::RowPlace;
use super::csv::CsvRows;
use super::{Features, Reader, names, no_rows};
use crate::codec::json::scan::{JsonError, Scanner};

/// Where the cells of a frame's columns go.
enum Layout {
    /// To the input that has the column's name; `None` for columns that the model does not take.
    ByName(Vec<Option<usize>>),
    /// Side by side into the only input, whose name no column has.
    SideBySide { cells: usize },
}

// === impl Reader ===

impl Reader<'_> {
    /// Reads `{"columns": […], "data": [[…], …]}`; other members, such as `index`, are passed over.
    ///
    /// # Errors
    /// Malformed JSON, columns that the model needs and the frame lacks, or values that do not fit.
    pub(crate) fn split(mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let (mut layout, mut rows, mut data) = (None, None, None);
        scanner.object(format_args!("'{key}'"), |scanner, member| {
            match (member, &layout) {
                ("columns", _) => layout = Some(self.layout(&column_names(scanner)?)?),
                ("data", Some(layout)) => rows = Some(self.frame_rows(scanner, layout)?),
                ("data", None) => {
                    data = Some(scanner.clone());
                    scanner.skip()?;
                }
                _ => scanner.skip()?,
            }
            Ok(())
        })?;
        let rows = match (rows, data) {
            (Some(rows), _) => rows,
            (None, Some(mut data)) => {
                let layout = layout.map_or_else(|| self.unnamed(), Ok)?;
                self.frame_rows(&mut data, &layout)?
            }
            (None, None) => {
                return Err(JsonError::Meaning(format!("'{key}' has no 'data': expected a list of rows")));
            }
        };
        self.finish_frame(rows)
    }

    /// Reads a list of objects, one a row.
    ///
    /// # Errors
    /// As [`Reader::split`].
    pub(crate) fn records(self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let start = scanner.clone();
        let (model, values) = (self.model, self.values);
        let read = match self.columns.len() {
            1 => self.records_side_by_side(scanner, key),
            _ => self.examples(scanner, key, None),
        };
        // The names are looked at ahead of the values only where that went wrong, as it reads a row twice: a column may
        // have the only input's name, or one that the model needs may be missing.
        read.or_else(|error| {
            let columns = first_columns(start.clone())?;
            if columns.is_empty() {
                return Err(error);
            }
            let reader = Reader::new(model, values);
            match reader.layout(&columns)? {
                Layout::ByName(_) if reader.columns.len() == 1 => {
                    *scanner = start;
                    reader.examples(scanner, key, None)
                }
                _ => Err(error),
            }
        })
    }

    /// Reads a list of objects whose values stand side by side in the only input, whose name no column has.
    fn records_side_by_side(mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let input = &self.columns[0].spec.name;
        let mut columns = Vec::new();
        let rows = scanner.list(format_args!("'{key}'"), |scanner, row| {
            let mut count = 0;
            scanner.members(RowPlace(Some(row)), |scanner, name| {
                match columns.get(count) {
                    _ if row == 0 && name == *input => {
                        return Err(JsonError::Meaning(format!("'{key}' has a column '{input}'")));
                    }
                    _ if row == 0 => columns.push(name),
                    Some(expected) if *expected == name => {}
                    expected => {
                        let expected = expected.map_or_else(|| "no column".into(), |name| format!("'{name}'"));
                        return Err(JsonError::Meaning(format!(
                            "row {row} has '{name}' where row 0 has {expected}: rows of a model with one input must \
                             have the same columns in the same order"
                        )));
                    }
                }
                count += 1;
                self.columns[0].element(scanner, Some(row))
            })?;
            self.end_frame_row(&Layout::SideBySide { cells: columns.len() }, count, row)
        })?;
        match rows {
            0 => Err(no_rows(key)),
            rows => self.finish(rows, true),
        }
    }

    /// Reads comma-separated values, the first line of which names the columns if it `has_header`.
    ///
    /// # Errors
    /// As [`Reader::split`].
    pub(crate) fn csv(mut self, text: &str, has_header: bool) -> Result<Features, JsonError> {
        let mut lines = CsvRows::new(text);
        let layout = if has_header {
            let mut header = Vec::new();
            let count = lines.line(|name, _| {
                header.push(name);
                Ok(())
            })?;
            count.ok_or_else(|| JsonError::meaning("the CSV has no header: it is empty"))?;
            self.layout(&header)?
        } else {
            self.unnamed()?
        };
        let model = self.model.name.as_str();
        let mut rows = 0;
        loop {
            let columns = &mut self.columns;
            let count = lines.line(|cell, index| {
                let Some(input) = layout.input_of(index) else { return Ok(()) };
                columns[input].text_cell(&cell, rows)?;
                match layout {
                    Layout::ByName(_) => columns[input].end_row(&[], model, Some(rows)),
                    Layout::SideBySide { .. } => Ok(()),
                }
            })?;
            let Some(count) = count else { break };
            self.end_frame_row(&layout, count, rows)?;
            rows += 1;
        }
        self.finish_frame(rows)
    }

    /// Reads a list of lists, one a row; gives their number.
    fn frame_rows(&mut self, scanner: &mut Scanner<'_>, layout: &Layout) -> Result<usize, JsonError> {
        scanner.list("'data'", |scanner, row| {
            let count = scanner.list(RowPlace(Some(row)), |scanner, cell| match layout.input_of(cell) {
                Some(input) => self.cell(scanner, layout, input, row),
                None => scanner.skip(),
            })?;
            self.end_frame_row(layout, count, row)
        })
    }

    /// Where the cells of columns with these names go.
    fn layout(&self, columns: &[impl AsRef<str>]) -> Result<Layout, JsonError> {
        if let [only] = self.columns.as_slice()
            && columns.iter().all(|name| name.as_ref() != only.spec.name)
        {
            return Ok(Layout::SideBySide { cells: columns.len() });
        }
        let input_called = |name: &str| self.columns.iter().position(|column| column.spec.name == name);
        let inputs: Vec<Option<usize>> = columns.iter().map(|name| input_called(name.as_ref())).collect();
        for (index, column) in self.columns.iter().enumerate() {
            let problem = match inputs.iter().filter(|input| **input == Some(index)).count() {
                0 if !column.spec.optional => "has no column",
                0 | 1 => continue,
                _ => "has more than one column",
            };
            return Err(JsonError::Meaning(format!(
                "the frame {problem} '{}': model '{}' takes {}",
                column.spec.name,
                self.model.name,
                names(&self.model.signature.inputs)
            )));
        }
        Ok(Layout::ByName(inputs))
    }

    /// Where cells without names go: one to each input, or all to the only one.
    fn unnamed(&self) -> Result<Layout, JsonError> {
        if self.columns.len() == 1 {
            return Ok(Layout::SideBySide { cells: usize::MAX });
        }
        self.check_plain_columns()?;
        Ok(Layout::ByName((0..self.columns.len()).map(Some).collect()))
    }

    fn cell(
        &mut self,
        scanner: &mut Scanner<'_>,
        layout: &Layout,
        input: usize,
        row: usize,
    ) -> Result<(), JsonError> {
        match layout {
            Layout::ByName(_) => self.columns[input].row(scanner, &self.model.name, Some(row)),
            Layout::SideBySide { .. } => self.columns[input].element(scanner, Some(row)),
        }
    }

    /// `count` cells were read.
    fn end_frame_row(&mut self, layout: &Layout, count: usize, row: usize) -> Result<(), JsonError> {
        let expected = match layout {
            Layout::ByName(inputs) => inputs.len(),
            Layout::SideBySide { cells: usize::MAX } => count,
            Layout::SideBySide { cells } => *cells,
        };
        if count != expected {
            return Err(JsonError::Meaning(format!("row {row} has {count} values, expected {expected}")));
        }
        match layout {
            Layout::ByName(_) => Ok(()),
            Layout::SideBySide { .. } => self.columns[0].end_row(&[count], &self.model.name, Some(row)),
        }
    }

    fn finish_frame(mut self, rows: usize) -> Result<Features, JsonError> {
        match rows {
            0 => Err(JsonError::meaning("the frame has no rows")),
            rows => self.finish(rows, true),
        }
    }
}

// === impl Layout ===

impl Layout {
    /// The input that takes cell `index` of a row.
    fn input_of(&self, index: usize) -> Option<usize> {
        match self {
            Layout::ByName(inputs) => inputs.get(index).copied().flatten(),
            Layout::SideBySide { .. } => Some(0),
        }
    }
}

/// The names in the first object of a list, none if it is another value or empty.
fn first_columns(mut list: Scanner<'_>) -> Result<Vec<Cow<'_, str>>, JsonError> {
    let mut columns = Vec::new();
    if list.peek() == Some(b'[') {
        list.open()?;
        if list.peek() == Some(b'{') {
            list.members("", |scanner, name| {
                columns.push(name);
                scanner.skip()
            })?;
        }
    }
    Ok(columns)
}

/// Names that are numbers, as pandas gives columns that were not named, are taken by their text.
fn column_names<'a>(scanner: &mut Scanner<'a>) -> Result<Vec<Cow<'a, str>>, JsonError> {
    let mut names = Vec::new();
    scanner.list("'columns'", |scanner, _| {
        names.push(match scanner.peek() {
            Some(b'"') => scanner.string()?,
            _ => {
                let start = scanner.rest();
                let before = scanner.remaining();
                scanner.skip()?;
                String::from_utf8_lossy(&start[..before - scanner.remaining()])
            }
        });
        Ok(())
    })?;
    Ok(names)
}
