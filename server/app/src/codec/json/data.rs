//! How a list of JSON values, flat or nested, becomes a tensor's bytes.

use gristmill_engine::tensor::{DType, ShapeText, element_count};
use half::{bf16, f16};

use super::element::{Element, Raw, Text, with_element};
use super::scan::{JsonError, Scanner};

/// Reads the `data` of tensor `name`: a flat list of its elements in row-major order, or lists nested
/// as `shape` says. A scalar may be a bare value.
///
/// # Errors
/// The number of elements or the nesting differs from `shape`, or an element does not fit `dtype`;
/// the text names the tensor, the element's index and its value.
pub(crate) fn read_data(
    scanner: &mut Scanner<'_>,
    name: &str,
    dtype: DType,
    shape: &[usize],
) -> Result<Vec<u8>, JsonError> {
    let elements = element_count(shape).ok_or_else(|| {
        JsonError::meaning(format!("input '{name}': shape {} has too many elements", ShapeText(shape)))
    })?;
    // Two bytes of text per element, digit and comma, is the least: a shape cannot make us allocate more
    // than the text can fill.
    let capacity = elements.min(scanner.remaining() / 2 + 1) * dtype.size().unwrap_or(8);
    let mut list = DataList { name, dtype, shape, elements, count: 0, data: Vec::with_capacity(capacity) };
    with_element!(dtype, E => list.read::<E>(scanner))?;
    Ok(list.data)
}

/// A tensor's elements while they are read.
struct DataList<'a> {
    name: &'a str,
    dtype: DType,
    shape: &'a [usize],
    elements: usize,
    count: usize,
    data: Vec<u8>,
}

impl DataList<'_> {
    fn read<E: Element>(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'[') {
            if self.shape.is_empty() {
                return self.element::<E>(scanner);
            }
            return Err(scanner.unexpected(format_args!("input '{}': 'data' must be a list", self.name)));
        }
        let start = scanner.clone();
        let mut ahead = scanner.clone();
        ahead.open()?;
        if ahead.peek() == Some(b'[') {
            return self.nested::<E>(scanner, 0);
        }
        let surplus = !self.run::<E>(scanner, self.elements)?;
        if surplus || self.count != self.elements {
            return Err(self.wrong_count(start));
        }
        Ok(())
    }

    /// Reads the list for axis `axis`.
    fn nested<E: Element>(&mut self, scanner: &mut Scanner<'_>, axis: usize) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'[') || axis == self.shape.len() {
            return Err(self.wrong_nesting(scanner, axis));
        }
        let size = self.shape[axis];
        let start = scanner.clone();
        if axis + 1 == self.shape.len() {
            let before = self.count;
            let complete = self.run::<E>(scanner, size)?;
            if !complete || self.count - before != size {
                return Err(self.wrong_length(start, axis));
            }
            return Ok(());
        }
        scanner.open()?;
        for index in 0..size {
            if index > 0 && !scanner.take(b',') {
                return Err(self.wrong_length(start, axis));
            }
            if scanner.peek() == Some(b']') {
                return Err(self.wrong_length(start, axis));
            }
            self.nested::<E>(scanner, axis + 1)?;
        }
        if !scanner.take(b']') {
            return Err(self.wrong_length(start, axis));
        }
        scanner.close();
        Ok(())
    }

    /// Reads a list of at most `limit` elements. False means that there are more.
    #[inline]
    fn run<E: Element>(&mut self, scanner: &mut Scanner<'_>, limit: usize) -> Result<bool, JsonError> {
        scanner.open()?;
        if !scanner.take(b']') {
            let end = self.count + limit;
            loop {
                if self.count == end {
                    return Ok(false);
                }
                self.element::<E>(scanner)?;
                match scanner.peek() {
                    Some(b',') => scanner.advance(1),
                    Some(b']') => {
                        scanner.advance(1);
                        break;
                    }
                    _ => return Err(scanner.syntax("',' or ']'")),
                }
            }
        }
        scanner.close();
        Ok(true)
    }

    #[inline]
    fn element<E: Element>(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match E::read(scanner, &mut self.data) {
            Ok(()) => {
                self.count += 1;
                Ok(())
            }
            Err(problem) => Err(self.bad_element(scanner, &problem)),
        }
    }

    #[cold]
    fn bad_element(&self, scanner: &mut Scanner<'_>, problem: &str) -> JsonError {
        if let Err(error) = scanner.clone().skip() {
            return error;
        }
        let (name, count) = (self.name, self.count);
        JsonError::Meaning(match scanner.peek() {
            Some(b'[') => format!(
                "input '{name}': element {count} is a list: 'data' must be flat, or nested as shape {} says",
                ShapeText(self.shape)
            ),
            _ => format!("input '{name}': element {count}: {problem}"),
        })
    }

    #[cold]
    fn wrong_count(&self, mut list: Scanner<'_>) -> JsonError {
        match list.list("", |scanner, _| scanner.skip()) {
            Ok(found) => JsonError::Meaning(format!(
                "input '{}': expected {} elements for {} {}, got {found}",
                self.name,
                self.elements,
                self.dtype,
                ShapeText(self.shape)
            )),
            Err(error) => error,
        }
    }

    #[cold]
    fn wrong_length(&self, mut list: Scanner<'_>, axis: usize) -> JsonError {
        match list.list("", |scanner, _| scanner.skip()) {
            Ok(found) => JsonError::Meaning(format!(
                "input '{}': 'data' is not nested as shape {} says: a list for dimension {axis} has {found} \
                 entries, expected {}",
                self.name,
                ShapeText(self.shape),
                self.shape[axis]
            )),
            Err(error) => error,
        }
    }

    #[cold]
    fn wrong_nesting(&self, scanner: &mut Scanner<'_>, axis: usize) -> JsonError {
        scanner.unexpected(if self.shape.is_empty() {
            format!("input '{}': 'data' for the scalar shape [] must be one value", self.name)
        } else {
            format!(
                "input '{}': 'data' is not nested as shape {} says: expected a list at depth {}",
                self.name,
                ShapeText(self.shape),
                axis + 1
            )
        })
    }
}
