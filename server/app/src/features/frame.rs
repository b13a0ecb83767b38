//! Data frames, in JSON or CSV: rows whose values are told apart by the names of their columns.

use std::borrow::Cow;

use super::csv::CsvRows;
use super::{Features, Reader, names, place_text};
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
    pub(crate) fn records(mut self, scanner: &mut Scanner<'_>, key: &str) -> Result<Features, JsonError> {
        let mut first = Vec::new();
        if scanner.peek() == Some(b'[') {
            let mut ahead = scanner.clone();
            ahead.open()?;
            if ahead.peek() == Some(b'{') {
                ahead.object("", |scanner, name| {
                    first.push(name.to_owned());
                    scanner.skip()
                })?;
            }
        }
        let layout = if first.is_empty() { Layout::ByName(Vec::new()) } else { self.layout(&first)? };
        let Layout::SideBySide { .. } = layout else { return self.examples(scanner, key, None) };
        let rows = scanner.list(format_args!("'{key}'"), |scanner, row| {
            let mut count = 0;
            scanner.object(place_text(Some(row)), |scanner, name| {
                if first.get(count).is_none_or(|expected| expected != name) {
                    return Err(JsonError::Meaning(format!(
                        "row {row} has '{name}' where row 0 has {}: rows of a model with one input must have the same \
                         columns in the same order",
                        first.get(count).map_or_else(|| "no column".into(), |name| format!("'{name}'"))
                    )));
                }
                count += 1;
                self.cell(scanner, &layout, 0, row)
            })?;
            self.end_frame_row(&layout, count, row)
        })?;
        self.finish_frame(rows)
    }

    /// Reads comma-separated values, the first line of which names the columns if it `has_header`.
    ///
    /// # Errors
    /// As [`Reader::split`].
    pub(crate) fn csv(mut self, text: &str, has_header: bool) -> Result<Features, JsonError> {
        let mut lines = CsvRows::new(text);
        let layout = if has_header {
            let header = lines.next().transpose()?;
            self.layout(&header.ok_or_else(|| JsonError::meaning("the CSV has no header: it is empty"))?)?
        } else {
            self.unnamed()?
        };
        let mut rows = 0;
        for cells in lines {
            let cells = cells?;
            for (index, cell) in cells.iter().enumerate() {
                if let Some(input) = layout.input_of(index) {
                    self.columns[input].text_cell(cell, rows)?;
                    if let Layout::ByName(_) = layout {
                        self.columns[input].end_row(&[], &self.model.name, Some(rows))?;
                    }
                }
            }
            self.end_frame_row(&layout, cells.len(), rows)?;
            rows += 1;
        }
        self.finish_frame(rows)
    }

    /// Reads a list of lists, one a row; gives their number.
    fn frame_rows(&mut self, scanner: &mut Scanner<'_>, layout: &Layout) -> Result<usize, JsonError> {
        scanner.list("'data'", |scanner, row| {
            let count = scanner.list(place_text(Some(row)), |scanner, cell| match layout.input_of(cell) {
                Some(input) => self.cell(scanner, layout, input, row),
                None => scanner.skip(),
            })?;
            self.end_frame_row(layout, count, row)
        })
    }

    /// Where the cells of columns with these names go.
    fn layout(&self, columns: &[impl AsRef<str>]) -> Result<Layout, JsonError> {
        let input_called = |name: &str| self.columns.iter().position(|column| column.spec.name == name);
        let inputs: Vec<Option<usize>> = columns.iter().map(|name| input_called(name.as_ref())).collect();
        if self.columns.len() == 1 && inputs.iter().all(Option::is_none) {
            return Ok(Layout::SideBySide { cells: columns.len() });
        }
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

/// Names that are numbers, as pandas gives columns that were not named, are taken by their text.
fn column_names(scanner: &mut Scanner<'_>) -> Result<Vec<String>, JsonError> {
    let mut names = Vec::new();
    scanner.list("'columns'", |scanner, _| {
        let name: Cow<'_, str> = match scanner.peek() {
            Some(b'"') => scanner.string()?,
            _ => {
                let start = scanner.rest();
                let before = scanner.remaining();
                scanner.skip()?;
                String::from_utf8_lossy(&start[..before - scanner.remaining()])
            }
        };
        names.push(name.into_owned());
        Ok(())
    })?;
    Ok(names)
}
