//! Reads JSON text token by token: what is legal, how deep it may nest, and where it went wrong.
//!
//! A pull scanner and not a serde deserializer, because tensors are most of a request's bytes and
//! the published parsers each miss something here: serde_json has no `NaN`, which clients send and
//! Triton reads, and rounds FP32 twice; sonic-rs overflows the stack when it passes over a deeply
//! nested value. Numbers are converted by `fast-float2` and the standard library (floats that are
//! written as short integers need neither), escapes by serde_json.

use std::borrow::Cow;
use std::fmt;

use gristmill_engine::error::InferError;
use memchr::memchr2;

use super::number::number_length;
use crate::codec::byte_order_mark::without_byte_order_mark;

/// Deepest nesting of lists and objects that is read. Triton stops at 100.
pub(crate) const DEPTH_MAX: usize = 64;

/// Longest piece of a client's text that an error message repeats, in characters.
const EXCERPT_CHARACTERS_MAX: usize = 40;

/// A position in JSON text. Methods begin at the next token and leave the position after what they read.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

/// Why JSON text was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// It is not JSON.
    Syntax { offset: usize, message: String },
    /// It is JSON and does not say what was expected.
    Meaning(String),
}

/// A value that is not a list or an object, or the fact that it is one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// The number's text; `NaN`, `Infinity` and `-Infinity` included.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// A list or an object, which was passed over.
    Container,
}

impl JsonError {
    pub(crate) fn meaning(message: impl Into<String>) -> JsonError {
        JsonError::Meaning(message.into())
    }

    /// The error as the client reads it; `text` is what was scanned.
    pub(crate) fn into_infer_error(self, text: &str) -> InferError {
        match self {
            JsonError::Meaning(message) => InferError::InvalidInput(message),
            JsonError::Syntax { offset, message } => {
                let before = &text.as_bytes()[..offset.min(text.len())];
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
                InferError::InvalidInput(format!(
                    "malformed JSON at byte {offset} (line {line}, column {column}): {message}"
                ))
            }
        }
    }
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, position: 0, depth: 0 }
    }

    /// Checks the encoding of `bytes`, which JSON fixes to UTF-8. A byte order mark is passed over.
    ///
    /// # Errors
    /// `InvalidInput` with the offset of the first bad byte.
    pub(crate) fn check_text(bytes: &'a [u8]) -> Result<&'a str, InferError> {
        std::str::from_utf8(without_byte_order_mark(bytes)).map_err(|error| {
            InferError::InvalidInput(format!(
                "malformed JSON at byte {}: the text is not valid UTF-8",
                error.valid_up_to()
            ))
        })
    }

    /// What has not been read, from the next token on.
    #[inline]
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.skip_whitespace();
        &self.text.as_bytes()[self.position..]
    }

    /// Goes on by `length` bytes of what [`Scanner::rest`] gave. The bytes must be whole characters.
    #[inline]
    pub(crate) fn advance(&mut self, length: usize) {
        self.position += length;
    }

    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.text.as_bytes().get(self.position).copied()
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    /// Bytes of text that are left.
    pub(crate) fn remaining(&self) -> usize {
        self.text.len() - self.position
    }

    /// Reads an object, calling `member` with the scanner at each value. `what` names it in errors.
    pub(crate) fn object(
        &mut self,
        what: impl fmt::Display,
        mut member: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.members(what, |scanner, key| member(scanner, &key))
    }

    /// As [`Scanner::object`], with keys that may be kept.
    pub(crate) fn members(
        &mut self,
        what: impl fmt::Display,
        mut member: impl FnMut(&mut Scanner<'a>, Cow<'a, str>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.peek() != Some(b'{') {
            return Err(self.unexpected(format_args!("{what} must be an object")));
        }
        self.open()?;
        if !self.take(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.syntax("a key in double quotes"));
                }
                let key = self.string()?;
                if !self.take(b':') {
                    return Err(self.syntax("':'"));
                }
                member(self, key)?;
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.syntax("',' or '}'"));
                }
            }
        }
        self.close();
        Ok(())
    }

    /// Reads a list, calling `entry` with the scanner at each value and the value's index.
    pub(crate) fn list(
        &mut self,
        what: impl fmt::Display,
        mut entry: impl FnMut(&mut Scanner<'a>, usize) -> Result<(), JsonError>,
    ) -> Result<usize, JsonError> {
        if self.peek() != Some(b'[') {
            return Err(self.unexpected(format_args!("{what} must be a list")));
        }
        self.open()?;
        let mut count = 0;
        if !self.take(b']') {
            loop {
                entry(self, count)?;
                count += 1;
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.syntax("',' or ']'"));
                }
            }
        }
        self.close();
        Ok(count)
    }

    /// Reads a string, borrowed where it has no escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a string"));
        }
        let start = self.position;
        let bytes = self.text.as_bytes();
        let unfinished = || JsonError::Syntax {
            offset: self.text.len(),
            message: format!("the text ends inside the string that begins at byte {start}"),
        };
        let mut end = start + 1;
        let mut escaped = false;
        loop {
            let rest = bytes.get(end..).ok_or_else(unfinished)?;
            let plain = plain_length(rest);
            end += plain;
            match rest.get(plain) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    end += 2;
                }
                Some(_control) => {
                    return Err(JsonError::Syntax {
                        offset: end,
                        message: "a control character in a string must be escaped".into(),
                    });
                }
                None => return Err(unfinished()),
            }
        }
        self.position = end + 1;
        if !escaped {
            return Ok(Cow::Borrowed(&self.text[start + 1..end]));
        }
        let unescaped: Result<String, _> = serde_json::from_str(&self.text[start..=end]);
        unescaped.map(Cow::Owned).map_err(|_| JsonError::Syntax {
            offset: start,
            message: "the string holds an escape that JSON does not know".into(),
        })
    }

    /// Reads a value for which a number, text or truth value is expected, and passes over any other.
    pub(crate) fn scalar(&mut self) -> Result<Scalar<'a>, JsonError> {
        let rest = self.rest();
        match rest.first() {
            Some(b'"') => self.string().map(Scalar::Text),
            Some(b'{') => self.object("", |scanner, _| scanner.skip()).map(|()| Scalar::Container),
            Some(b'[') => self.list("", |scanner, _| scanner.skip()).map(|_| Scalar::Container),
            _ if rest.starts_with(b"true") => Ok(self.literal(4, Scalar::Bool(true))),
            _ if rest.starts_with(b"false") => Ok(self.literal(5, Scalar::Bool(false))),
            _ if rest.starts_with(b"null") => Ok(self.literal(4, Scalar::Null)),
            _ => match number_length(rest) {
                Some(length) => {
                    let start = self.position;
                    self.position += length;
                    Ok(Scalar::Number(&self.text[start..self.position]))
                }
                None => Err(self.syntax("a value")),
            },
        }
    }

    /// Passes over one value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        self.scalar().map(|_| ())
    }

    /// Checks that nothing follows.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("the end of the text")),
        }
    }

    /// An error at the next token, which is not what the grammar asks for there.
    pub(crate) fn syntax(&mut self, expected: &str) -> JsonError {
        let found = self.excerpt();
        JsonError::Syntax { offset: self.position, message: format!("expected {expected}, found {found}") }
    }

    /// An error about the next value, which is JSON of the wrong kind, or a syntax error if it is none.
    pub(crate) fn unexpected(&mut self, requirement: impl fmt::Display) -> JsonError {
        let found = self.excerpt();
        match self.clone().skip() {
            Ok(()) => JsonError::Meaning(format!("{requirement}, got {found}")),
            Err(error) => error,
        }
    }

    /// The next value's first characters, for people.
    pub(crate) fn excerpt(&mut self) -> String {
        self.skip_whitespace();
        let rest = &self.text[self.position..];
        let first = match rest.as_bytes().first() {
            None => return "the end of the text".into(),
            Some(b'[') => return "a list".into(),
            Some(b'{') => return "an object".into(),
            Some(&first) => first,
        };
        let ends = |character: char| match first {
            b'"' => matches!(character, '"' | '\\'),
            _ => matches!(character, ',' | ']' | '}' | ':' | ' ' | '\n' | '\r' | '\t'),
        };
        let mut excerpt = String::new();
        for (index, character) in rest.chars().enumerate() {
            if index > 0 && ends(character) {
                excerpt.extend((first == b'"').then_some(character));
                break;
            }
            if index == EXCERPT_CHARACTERS_MAX {
                excerpt.push('…');
                break;
            }
            excerpt.push(character);
        }
        excerpt
    }

    /// Enters the list or object whose bracket is next.
    pub(crate) fn open(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(JsonError::Syntax {
                offset: self.position,
                message: format!("lists and objects nest deeper than {DEPTH_MAX}"),
            });
        }
        self.position += 1;
        Ok(())
    }

    /// Leaves the list or object whose closing bracket was taken.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.depth -= 1;
    }

    fn literal(&mut self, length: usize, value: Scalar<'a>) -> Scalar<'a> {
        self.position += length;
        value
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.position) {
            self.position += 1;
        }
    }
}

/// How many bytes stand before the first quote, backslash or control character: all if there is none.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    // Of names and labels most end in one of the first words, before vector instructions had been set up.
    let (words, _) = text[..text.len().min(32)].as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = first_special(u64::from_le_bytes(*word));
        if found < 8 {
            return index * 8 + found;
        }
    }
    let start = words.len() * 8;
    let rest = &text[start..];
    let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let is_control = |byte: &u8| *byte < 0x20;
    let has_control = rest[..plain].iter().fold(false, |found, byte| found | is_control(byte));
    start + if has_control { rest.iter().position(is_control).unwrap_or(plain) } else { plain }
}

/// The index of the first quote, backslash or control character among eight bytes, of which the lowest is the first;
/// 8 if there is none.
///
/// A subtraction borrows into the highest bit of each byte that is too small, and in bytes above it at most besides:
/// "Determine if a word has a byte less than n" of Anderson's Bit Twiddling Hacks.
#[inline]
fn first_special(word: u64) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let less = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let equals = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    let found = (less(word, 0x20) | equals(b'"') | equals(b'\\')) & (ONES << 7);
    found.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skip_all(text: &str) -> Result<(), String> {
        let mut scanner = Scanner::new(text);
        scanner.skip().and_then(|()| scanner.end()).map_err(|error| error.into_infer_error(text).to_string())
    }

    #[test]
    fn errors_say_where_and_what() {
        let check = |text: &str, expected: &str| assert_eq!(skip_all(text).unwrap_err(), expected, "{text}");
        check("", "malformed JSON at byte 0 (line 1, column 1): expected a value, found the end of the text");
        check("{\n  \"a\" 1}", "malformed JSON at byte 8 (line 2, column 7): expected ':', found 1");
        check(
            "[1, 2",
            "malformed JSON at byte 5 (line 1, column 6): expected ',' or ']', found the end of the text",
        );
        check("[01]", "malformed JSON at byte 1 (line 1, column 2): expected a value, found 01");
        check("[1.]", "malformed JSON at byte 1 (line 1, column 2): expected a value, found 1.");
        check("[nul]", "malformed JSON at byte 1 (line 1, column 2): expected a value, found nul");
        check(
            "{\"a\":1,}",
            "malformed JSON at byte 7 (line 1, column 8): expected a key in double quotes, found }",
        );
        check(
            "[] []",
            "malformed JSON at byte 3 (line 1, column 4): expected the end of the text, found a list",
        );
        check(
            "\"abc",
            "malformed JSON at byte 4 (line 1, column 5): the text ends inside the string that begins at byte 0",
        );
        check(
            "\"a\nb\"",
            "malformed JSON at byte 2 (line 1, column 3): a control character in a string must be escaped",
        );
        check(
            r#""\ud800""#,
            "malformed JSON at byte 0 (line 1, column 1): the string holds an escape that JSON does not know",
        );
        assert_eq!(
            Scanner::check_text(b"\"\xff\"").unwrap_err().to_string(),
            "malformed JSON at byte 1: the text is not valid UTF-8"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(skip_all(&nested(DEPTH_MAX)), Ok(()));
        let error = skip_all(&nested(1_000_000)).unwrap_err();
        assert!(error.ends_with("lists and objects nest deeper than 64"), "{error}");
        assert!(skip_all(&"{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn strings_are_unescaped() {
        let text = r#" "a\n\u00e9\ud83d\ude00\"é" "#;
        assert_eq!(Scanner::new(text).string().unwrap(), "a\né😀\"é");
        assert!(matches!(Scanner::new("\"é\"").string().unwrap(), Cow::Borrowed("é")));
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let text = "é".repeat(100);
        assert_eq!(Scanner::new(&text).excerpt().chars().count(), EXCERPT_CHARACTERS_MAX + 1);
        assert_eq!(Scanner::new("\"a\\").excerpt(), "\"a\\");
    }

    proptest! {
        /// The grammar is serde_json's plus three tokens, which the alphabet below cannot spell.
        #[test]
        fn accepts_what_serde_json_accepts(text in "[\\[\\]{},:\"\\\\ au0-9eE.+\\-tr]{0,14}") {
            let ours = skip_all(&text).is_ok();
            let theirs: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&text);
            prop_assert_eq!(ours, theirs.is_ok(), "{}", text);
        }

        #[test]
        fn the_first_special_byte_is_found(
            text in prop::collection::vec(prop_oneof![8 => 0x20u8.., 1 => any::<u8>()], 0..80)
        ) {
            let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            prop_assert_eq!(plain_length(&text), text.iter().position(is_special).unwrap_or(text.len()));
        }

        #[test]
        fn any_text_is_safe(text in "\\PC{0,60}") {
            let mut scanner = Scanner::new(&text);
            scanner.excerpt();
            if scanner.skip().is_ok() {
                scanner.excerpt();
            }
        }
    }
}
