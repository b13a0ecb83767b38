//! Comma-separated values (RFC 4180): lines of cells, where quotes allow commas, quotes and line breaks.

use std::borrow::Cow;

use crate::codec::json::scan::JsonError;

/// The lines of a text that are not empty, as cells.
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

    fn line(&mut self) -> Result<Vec<Cow<'a, str>>, JsonError> {
        let mut cells = Vec::new();
        loop {
            let rest = &self.text[self.position..];
            cells.push(match rest.starts_with('"') {
                true => self.quoted()?,
                false => {
                    let length = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
                    self.position += length;
                    Cow::Borrowed(&rest[..length])
                }
            });
            let rest = &self.text[self.position..];
            if rest.starts_with(',') {
                self.position += 1;
                continue;
            }
            let end = ["\r\n", "\n", "\r"].into_iter().find(|end| rest.starts_with(end));
            return match (end, rest.is_empty()) {
                (Some(end), _) => {
                    self.position += end.len();
                    Ok(cells)
                }
                (None, true) => Ok(cells),
                (None, false) => Err(self.fault("expected ',' or the end of the line behind a quoted cell")),
            };
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

impl<'a> Iterator for CsvRows<'a> {
    type Item = Result<Vec<Cow<'a, str>>, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.position..];
        let content = rest.trim_start_matches(['\n', '\r']);
        self.position += rest.len() - content.len();
        (!content.is_empty()).then(|| self.line())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let lines: Result<Vec<_>, JsonError> = CsvRows::new(text).collect();
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
