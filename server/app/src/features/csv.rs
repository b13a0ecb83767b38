//! Comma-separated values (RFC 4180): lines of cells, where quotes allow commas, quotes and line breaks.

use std::borrow::Cow;

use memchr::memchr3;

use crate::codec::json::scan::JsonError;

/// The lines of a text that are not empty.
pub(super) struct CsvRows<'a> {
    text: &'a str,
    position: usize,
}

// === impl CsvRows ===

impl<'a> CsvRows<'a> {
    pub(super) fn new(text: &'a str) -> CsvRows<'a> {
        // Spreadsheets mark UTF-8 so.
        CsvRows { text: text.strip_prefix('\u{feff}').unwrap_or(text), position: 0 }
    }

    /// Reads the next line, calling `take` with each cell and its index; gives their number, or `None` at the end.
    ///
    /// # Errors
    /// Malformed quotes, and those of `take`.
    pub(super) fn line(
        &mut self,
        mut take: impl FnMut(Cow<'a, str>, usize) -> Result<(), JsonError>,
    ) -> Result<Option<usize>, JsonError> {
        let rest = &self.text[self.position..];
        let content = rest.trim_start_matches(['\n', '\r']);
        self.position += rest.len() - content.len();
        if content.is_empty() {
            return Ok(None);
        }
        let mut count = 0;
        loop {
            let rest = &self.text[self.position..];
            let cell = match rest.starts_with('"') {
                true => self.quoted()?,
                false => {
                    let length = memchr3(b',', b'\n', b'\r', rest.as_bytes()).unwrap_or(rest.len());
                    self.position += length;
                    Cow::Borrowed(&rest[..length])
                }
            };
            take(cell, count)?;
            count += 1;
            match self.text.as_bytes().get(self.position) {
                Some(b',') => self.position += 1,
                // An empty line, which the next call passes over, may be between the two of "\r\n".
                Some(b'\n' | b'\r') | None => return Ok(Some(count)),
                Some(_) => return Err(self.fault("expected ',' or the end of the line behind a quoted cell")),
            }
        }
    }

    /// The cell whose quote is next; two quotes inside stand for one.
    fn quoted(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.position + 1;
        let mut end = start;
        let mut doubled = false;
        loop {
            let Some(length) = self.text[end..].find('"') else {
                return Err(self.fault("the text ends inside the quoted cell that begins here"));
            };
            end += length;
            if !self.text[end + 1..].starts_with('"') {
                break;
            }
            doubled = true;
            end += 2;
        }
        self.position = end + 1;
        let cell = &self.text[start..end];
        Ok(if doubled { Cow::Owned(cell.replace("\"\"", "\"")) } else { Cow::Borrowed(cell) })
    }

    fn fault(&self, problem: &str) -> JsonError {
        let line = self.text[..self.position].matches('\n').count() + 1;
        JsonError::Meaning(format!("malformed CSV in line {line}: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let mut rows = CsvRows::new(text);
        let mut line = || {
            let mut cells = Vec::new();
            let count = rows.line(|cell, _| {
                cells.push(cell);
                Ok(())
            })?;
            assert_eq!(count.unwrap_or(0), cells.len());
            Ok(count.map(|_| cells))
        };
        let lines: Result<Vec<_>, JsonError> = std::iter::from_fn(|| line().transpose()).collect();
        expected.assert_eq(&match lines {
            Ok(lines) => format!("{lines:?}"),
            Err(error) => error.into_infer_error(text).to_string(),
        });
    }

    #[test]
    fn lines_and_cells() {
        check("a,b\n1,2\n", expect![[r#"[["a", "b"], ["1", "2"]]"#]]);
        check("\u{feff}a,b\r\n\r\n1,\r\n,2", expect![[r#"[["a", "b"], ["1", ""], ["", "2"]]"#]]);
        check("\"a,\"\"b\"\"\",\"c\nd\"\n1,\"\"\n", expect![[r#"[["a,\"b\"", "c\nd"], ["1", ""]]"#]]);
        check("", expect!["[]"]);
        check(
            "a,\"b\"c\n",
            expect!["malformed CSV in line 1: expected ',' or the end of the line behind a quoted cell"],
        );
        check(
            "a,b\n1,\"2\n",
            expect!["malformed CSV in line 2: the text ends inside the quoted cell that begins here"],
        );
    }
}
