//! Reads lists of any regular nesting into one run of elements.

use crate::codec::json::element::ElementReader;
use crate::codec::json::scan::{JsonError, Scanner};

/// Deepest nesting of one row's lists.
const RANK_MAX: usize = 32;

/// Reads lists of any regular nesting.
pub(super) struct Nest<'d> {
    read: ElementReader,
    data: &'d mut Vec<u8>,
    /// Lengths of lists by depth, from the first list that ended there.
    sizes: Vec<Option<usize>>,
    /// The depth at which values are, once one was seen.
    leaf_depth: Option<usize>,
    row: usize,
}

pub(super) enum NestError {
    Json(JsonError),
    /// Lists at one depth differ in length.
    Uneven {
        depth: usize,
        row: usize,
        first: usize,
        found: usize,
    },
    /// A list stands where others have values, or the other way round.
    Mixed {
        row: usize,
    },
    /// A value does not fit the dtype.
    Value {
        place: String,
        problem: String,
    },
}

impl From<JsonError> for NestError {
    fn from(error: JsonError) -> NestError {
        NestError::Json(error)
    }
}

impl NestError {
    pub(super) fn describe(self, place: &str) -> JsonError {
        JsonError::Meaning(match self {
            NestError::Json(error) => return error,
            NestError::Uneven { depth, row, first, found } => format!(
                "{place}: lists at depth {depth} differ in length: entry {row} has one of {found}, the first had {first}"
            ),
            NestError::Mixed { row } => format!("{place}: entry {row} mixes lists and values at one depth"),
            NestError::Value { place: value, problem } => format!("{place}: {value}: {problem}"),
        })
    }
}

impl<'d> Nest<'d> {
    pub(super) fn new(read: ElementReader, data: &'d mut Vec<u8>) -> Nest<'d> {
        Nest { read, data, sizes: Vec::new(), leaf_depth: None, row: 0 }
    }

    pub(super) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<Vec<usize>, NestError> {
        self.level(scanner, 0)?;
        // Every depth down to the deepest list has ended by now.
        Ok(self.sizes.iter().flatten().copied().collect())
    }

    fn level(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), NestError> {
        if scanner.peek() != Some(b'[') {
            if *self.leaf_depth.get_or_insert(depth) != depth || self.size(depth).is_some() {
                return Err(NestError::Mixed { row: self.row });
            }
            return self.value(scanner, depth);
        }
        if self.leaf_depth.is_some_and(|leaf_depth| leaf_depth <= depth) || depth == RANK_MAX {
            return Err(NestError::Mixed { row: self.row });
        }
        scanner.open()?;
        let mut count = 0;
        if !scanner.take(b']') {
            loop {
                if depth == 0 {
                    self.row = count;
                }
                if self.leaf_depth == Some(depth + 1) && scanner.peek() != Some(b'[') {
                    self.value(scanner, depth + 1)?;
                } else {
                    self.level(scanner, depth + 1)?;
                }
                count += 1;
                match scanner.peek() {
                    Some(b',') => scanner.advance(1),
                    Some(b']') => {
                        scanner.advance(1);
                        break;
                    }
                    _ => return Err(scanner.syntax("',' or ']'").into()),
                }
            }
        }
        scanner.close();
        match self.size(depth) {
            Some(first) if first != count => {
                Err(NestError::Uneven { depth, row: self.row, first, found: count })
            }
            Some(_) => Ok(()),
            None => {
                self.sizes.resize(self.sizes.len().max(depth + 1), None);
                self.sizes[depth] = Some(count);
                Ok(())
            }
        }
    }

    #[inline]
    fn value(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), NestError> {
        (self.read)(scanner, self.data).map_err(|problem| match scanner.clone().skip() {
            Ok(()) => {
                let level = if depth <= 1 { "feature" } else { "row" };
                NestError::Value { place: format!("{level} {}", self.row), problem }
            }
            Err(error) => NestError::Json(error),
        })
    }

    fn size(&self, depth: usize) -> Option<usize> {
        self.sizes.get(depth).copied().flatten()
    }
}
