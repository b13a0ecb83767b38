//! Texts in a JSON body: one, a list of them, or objects that have one.

use std::borrow::Cow;

use super::Form;
use crate::codec::json::scan::{JsonError, Scanner};
use crate::handler::TEXTS_MAX;

/// Keys in which TorchServe's handlers of texts look for them.
const KEYS: [&str; 3] = ["text", "data", "body"];
const INSTANCES: &str = "instances";

type Texts<'a> = Vec<Cow<'a, str>>;

/// Whether the first value in the lists and under the keys of a body is a text. What is not JSON has none.
pub(super) fn are_in(body: &Scanner<'_>) -> bool {
    let mut ahead = body.clone();
    match ahead.peek() {
        Some(b'"') => true,
        Some(b'[') => ahead.open().is_ok() && are_in(&ahead),
        Some(b'{') => {
            let mut found = false;
            let read = ahead.object("", |scanner, key| {
                found |= (key == INSTANCES || KEYS.contains(&key)) && are_in(scanner);
                scanner.skip()
            });
            read.is_ok() && found
        }
        _ => false,
    }
}

/// The texts of a body, one a row.
///
/// # Errors
/// Malformed JSON, or something else where a text ought to be.
pub(super) fn read<'a>(body: &mut Scanner<'a>) -> Result<(Texts<'a>, Form), JsonError> {
    let mut texts = Vec::new();
    let form = match body.peek() {
        Some(b'{') => under_key(body, &mut texts)?,
        _ => one_or_list(body, "the body", &mut texts)?,
    };
    body.end()?;
    Ok((texts, form))
}

/// Other members are passed over, such as the label that a text ought to get.
fn under_key<'a>(scanner: &mut Scanner<'a>, texts: &mut Texts<'a>) -> Result<Form, JsonError> {
    let mut form = None;
    scanner.object("the body", |scanner, key| {
        if key != INSTANCES && !KEYS.contains(&key) {
            return scanner.skip();
        }
        if form.is_some() {
            return Err(JsonError::Meaning(format!("the body has '{key}' besides another key with texts")));
        }
        form = Some(match key {
            INSTANCES => {
                list(scanner, key, texts)?;
                Form::Instances
            }
            key => one_or_list(scanner, key, texts)?,
        });
        Ok(())
    })?;
    form.ok_or_else(|| {
        JsonError::Meaning(format!("the body has no texts: expected them as '{}'", KEYS.join("', '")))
    })
}

fn one_or_list<'a>(scanner: &mut Scanner<'a>, key: &str, texts: &mut Texts<'a>) -> Result<Form, JsonError> {
    if scanner.peek() == Some(b'[') {
        list(scanner, key, texts)?;
        return Ok(Form::Rows);
    }
    texts.push(string(scanner, format_args!("'{key}'"))?);
    Ok(Form::One)
}

fn list<'a>(scanner: &mut Scanner<'a>, key: &str, texts: &mut Texts<'a>) -> Result<(), JsonError> {
    scanner.list(format_args!("'{key}'"), |scanner, row| {
        if row == TEXTS_MAX {
            return Err(JsonError::Meaning(format!(
                "'{key}' has more than {TEXTS_MAX} texts: send fewer at a time"
            )));
        }
        texts.push(match scanner.peek() {
            Some(b'{') => of_object(scanner, row)?,
            _ => string(scanner, format_args!("row {row}"))?,
        });
        Ok(())
    })?;
    Ok(())
}

fn of_object<'a>(scanner: &mut Scanner<'a>, row: usize) -> Result<Cow<'a, str>, JsonError> {
    let mut text = None;
    scanner.object("", |scanner, key| {
        if !KEYS.contains(&key) {
            return scanner.skip();
        }
        if text.is_some() {
            return Err(JsonError::Meaning(format!("row {row} has '{key}' besides another text")));
        }
        text = Some(string(scanner, format_args!("'{key}' of row {row}"))?);
        Ok(())
    })?;
    text.ok_or_else(|| {
        JsonError::Meaning(format!("row {row} has no text: expected it as '{}'", KEYS.join("', '")))
    })
}

fn string<'a>(scanner: &mut Scanner<'a>, what: impl std::fmt::Display) -> Result<Cow<'a, str>, JsonError> {
    match scanner.peek() {
        Some(b'"') => scanner.string(),
        _ => Err(scanner.unexpected(format_args!("{what} must be a text"))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let mut body = Scanner::new(text);
        expected.assert_eq(&match are_in(&body) {
            false => "no texts".to_owned(),
            true => match read(&mut body) {
                Ok((texts, form)) => format!("{form:?} {texts:?}"),
                Err(error) => error.into_infer_error(text).to_string(),
            },
        });
    }

    #[test]
    fn every_form() {
        check(r#" "a\u00e9" "#, expect![[r#"One ["aé"]"#]]);
        check(r#"["a", {"text": "b", "label": 1}, {"data": ""}]"#, expect![[r#"Rows ["a", "b", ""]"#]]);
        check(r#"{"label": ["x"], "text": "a"}"#, expect![[r#"One ["a"]"#]]);
        check(r#"{"data": ["a"]}"#, expect![[r#"Rows ["a"]"#]]);
        check(r#"{"body": ["a", {"body": "b"}]}"#, expect![[r#"Rows ["a", "b"]"#]]);
        check(r#"{"instances": [{"data": "a"}, "b"]}"#, expect![[r#"Instances ["a", "b"]"#]]);
    }

    #[test]
    fn what_holds_no_text_is_for_others() {
        for text in
            ["", "7", "[]", "[[1]]", "{}", r#"{"input_ids": ["a"]}"#, r#"{"data": []}"#, r#"{"text": "a""#]
        {
            check(text, expect!["no texts"]);
        }
        check(&"[".repeat(100_000), expect!["no texts"]);
        check(&r#"{"data":["#.repeat(50_000), expect!["no texts"]);
    }

    #[test]
    fn faults() {
        check(r#"["a", 1]"#, expect!["row 1 must be a text, got 1"]);
        check(r#"["a", {"data": 1}]"#, expect!["'data' of row 1 must be a text, got 1"]);
        check(r#"["a", {"label": 1}]"#, expect!["row 1 has no text: expected it as 'text', 'data', 'body'"]);
        check(r#"["a", {"text": "b", "data": "c"}]"#, expect!["row 1 has 'data' besides another text"]);
        check(r#"[["a"]]"#, expect!["row 0 must be a text, got a list"]);
        check(r#"{"text": {"text": "a"}}"#, expect!["'text' must be a text, got an object"]);
        check(r#"{"text": "a", "data": "b"}"#, expect!["the body has 'data' besides another key with texts"]);
        check(r#"{"instances": "a"}"#, expect![[r#"'instances' must be a list, got "a""#]]);
        check(
            r#"["a"] 1"#,
            expect!["malformed JSON at byte 6 (line 1, column 7): expected the end of the text, found 1"],
        );
        check(
            &format!("[{}\"\"]", "\"\",".repeat(TEXTS_MAX)),
            expect!["'the body' has more than 16384 texts: send fewer at a time"],
        );
    }
}
