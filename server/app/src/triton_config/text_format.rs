//! The text format of protocol buffers, in which a `config.pbtxt` is written: characters to names and values.
//!
//! Follows what Triton's own parser takes: `#` comments, `:` optional before groups and lists, `{}` or
//! `<>` around a group, `,` or `;` or nothing between fields, adjacent strings as one. Names of
//! extensions and `Any` in brackets are left out: no field of a model configuration has them.

use super::document::{Content, Entry, Fault, Node};

/// Deepest nesting of groups and lists: a configuration needs eight.
const DEPTH_MAX: usize = 32;

/// Reads a whole file.
///
/// # Errors
/// With the line: what was expected there and what came.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Fault> {
    Parser { lexer: Lexer { rest: text, line: 1 }, ahead: None }.entries(None, 0)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Symbol(char),
    End,
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// A token that was looked at and not yet taken, with its line.
    ahead: Option<(Token, usize)>,
}

// === impl Parser ===

impl Parser<'_> {
    /// Fields up to `close`, which is taken, or up to the end of the file.
    fn entries(&mut self, close: Option<char>, depth: usize) -> Result<Vec<Entry>, Fault> {
        let end = close.map_or(Token::End, Token::Symbol);
        let mut entries = Vec::new();
        loop {
            let (token, line) = self.next()?;
            let name = match token {
                token if token == end => return Ok(entries),
                Token::Word(name) if name.starts_with(|first: char| !first.is_ascii_digit()) => name,
                token => {
                    let expected = match close {
                        Some(close) => format!("a field's name or '{close}'"),
                        None => "a field's name".to_owned(),
                    };
                    return Err(unexpected(&expected, &token, line));
                }
            };
            let colon = self.take(':')?;
            let value = self.value(&name, colon, depth)?;
            if !self.take(',')? {
                self.take(';')?;
            }
            entries.push(Entry { name, line: Some(line), value });
        }
    }

    /// The value of field `name`. Without a `colon` it is a group or a list.
    fn value(&mut self, name: &str, colon: bool, depth: usize) -> Result<Node, Fault> {
        let (token, line) = self.next()?;
        if depth == DEPTH_MAX {
            return Err(Fault::at(
                Some(line),
                "",
                format!("'{name}' is nested too deep: expected at most {DEPTH_MAX} levels"),
            ));
        }
        let content = match token {
            Token::Symbol('{') => Content::Entries(self.entries(Some('}'), depth + 1)?),
            Token::Symbol('<') => Content::Entries(self.entries(Some('>'), depth + 1)?),
            Token::Symbol('[') => Content::List(self.list(name, depth + 1)?),
            Token::Word(word) if colon => Content::Bare(word),
            Token::Quoted(text) if colon => Content::Quoted(self.joined(text)?),
            Token::Symbol('-') if colon => match self.next()? {
                (Token::Word(word), _) => Content::Bare(format!("-{word}")),
                (token, line) => return Err(unexpected("a number after '-'", &token, line)),
            },
            token if colon => return Err(unexpected(&format!("a value for '{name}'"), &token, line)),
            token => return Err(unexpected(&format!("':' or '{{' after '{name}'"), &token, line)),
        };
        Ok(Node { line: Some(line), content })
    }

    /// The rest of a list whose bracket was taken.
    fn list(&mut self, name: &str, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        if self.take(']')? {
            return Ok(items);
        }
        loop {
            items.push(self.value(name, true, depth)?);
            if self.take(']')? {
                return Ok(items);
            }
            if !self.take(',')? {
                let (token, line) = self.next()?;
                return Err(unexpected(&format!("',' or ']' in the list of '{name}'"), &token, line));
            }
        }
    }

    /// A string with those that follow it.
    fn joined(&mut self, mut text: String) -> Result<String, Fault> {
        loop {
            match self.next()? {
                (Token::Quoted(more), _) => text.push_str(&more),
                other => {
                    self.ahead = Some(other);
                    return Ok(text);
                }
            }
        }
    }

    /// Whether the next token is `symbol`, which is taken then.
    fn take(&mut self, symbol: char) -> Result<bool, Fault> {
        let next = self.next()?;
        let found = next.0 == Token::Symbol(symbol);
        if !found {
            self.ahead = Some(next);
        }
        Ok(found)
    }

    fn next(&mut self) -> Result<(Token, usize), Fault> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }
}

fn unexpected(expected: &str, token: &Token, line: usize) -> Fault {
    let found = match token {
        Token::Word(word) => format!("'{word}'"),
        Token::Quoted(text) => format!("{text:?}"),
        Token::Symbol(symbol) => format!("'{symbol}'"),
        Token::End => "the end of the file".to_owned(),
    };
    Fault::at(Some(line), "", format!("expected {expected}, got {found}"))
}

// === impl Lexer ===

impl Lexer<'_> {
    /// The next token and the line on which it begins.
    fn next(&mut self) -> Result<(Token, usize), Fault> {
        self.skip_blanks();
        let line = self.line;
        let Some(first) = self.rest.chars().next() else { return Ok((Token::End, line)) };
        let token = match first {
            '{' | '}' | '<' | '>' | '[' | ']' | ':' | ',' | ';' | '-' => {
                self.rest = &self.rest[1..];
                Token::Symbol(first)
            }
            '"' | '\'' => Token::Quoted(self.quoted(first)?),
            first if is_in_word(first) => Token::Word(self.word()),
            '/' => return Err(Fault::at(Some(line), "", "unexpected '/': comments begin with #")),
            other => return Err(Fault::at(Some(line), "", format!("unexpected character {other:?}"))),
        };
        Ok((token, line))
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.line += newlines(&self.rest[..self.rest.len() - trimmed.len()]);
            self.rest = trimmed;
            if !trimmed.starts_with('#') {
                return;
            }
            self.rest = &trimmed[trimmed.find('\n').unwrap_or(trimmed.len())..];
        }
    }

    /// A name or a number, whose exponent may have a sign.
    fn word(&mut self) -> String {
        let is_number = self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let mut before = ' ';
        let length = self
            .rest
            .find(|c: char| {
                let exponent = is_number && matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
                before = c;
                !is_in_word(c) && !exponent
            })
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        word.to_owned()
    }

    /// The content of a string that begins with `quote`.
    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let fault = |reason: String| Fault::at(Some(self.line), "", reason);
        let bytes = self.rest.as_bytes();
        let mut content = Vec::new();
        let mut at = 1;
        loop {
            match bytes.get(at) {
                None | Some(b'\n') => return Err(fault(format!("a string is not closed with {quote}"))),
                Some(b'\\') => {
                    let length = escape(&bytes[at + 1..], &mut content).ok_or_else(|| {
                        let what: String = self.rest[at..].chars().take(2).collect();
                        fault(format!("unknown escape {what} in a string"))
                    })?;
                    at += 1 + length;
                }
                Some(&byte) if char::from(byte) == quote => break,
                Some(&byte) => {
                    content.push(byte);
                    at += 1;
                }
            }
        }
        let content = String::from_utf8(content).map_err(|_| fault("a string is not UTF-8".to_owned()))?;
        self.rest = &self.rest[at + 1..];
        Ok(content)
    }
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count()
}

/// Appends what the escape stands for whose backslash was taken; how many bytes it has, or `None` for
/// one that does not exist.
fn escape(rest: &[u8], content: &mut Vec<u8>) -> Option<usize> {
    let digits = |from: usize, radix: u32, max: usize| {
        let count =
            rest[from..].iter().take(max).take_while(|byte| char::from(**byte).is_digit(radix)).count();
        let text = std::str::from_utf8(&rest[from..from + count]).ok()?;
        Some((count, u32::from_str_radix(text, radix).ok()?))
    };
    let plain = match rest.first()? {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        quoted @ (b'\\' | b'\'' | b'"' | b'?') => *quoted,
        b'0'..=b'7' => {
            let (count, value) = digits(0, 8, 3)?;
            content.push(u8::try_from(value).ok()?);
            return Some(count);
        }
        b'x' | b'X' => {
            let (count, value) = digits(1, 16, 2)?;
            content.push(u8::try_from(value).ok()?);
            return Some(1 + count);
        }
        wide @ (b'u' | b'U') => {
            let length = if *wide == b'u' { 4 } else { 8 };
            let (count, value) = digits(1, 16, length)?;
            let character = char::from_u32(value).filter(|_| count == length)?;
            content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(1 + count);
        }
        _ => return None,
    };
    content.push(plain);
    Some(1)
}
