//! `multipart/form-data` (RFC 7578): the fields of a form, in the body's own memory.

use bytes::Bytes;
use gristmill_engine::error::InferError;

/// Most fields of a form.
const FIELDS_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// Of the field itself, where it says one.
    pub content_type: Option<String>,
    pub content: Bytes,
}

/// The boundary in a `Content-Type` of `multipart/form-data`, or `None` where it is another type or has none.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (name, parameters) = content_type.split_once(';')?;
    if !name.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty())
}

/// The fields of `body` in order.
///
/// # Errors
/// `InvalidInput` for a body that is not a whole form with that boundary.
pub fn fields(body: &Bytes, boundary: &str) -> Result<Vec<Field>, InferError> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let malformed =
        |problem: &str| InferError::InvalidInput(format!("malformed multipart/form-data: {problem}"));
    // What comes before the first delimiter counts for nothing; it needs no line break before it.
    let mut position = match body.starts_with(&delimiter[2..]) {
        true => delimiter.len() - 2,
        false => match find(body, &delimiter) {
            Some(start) => start + delimiter.len(),
            None => return Err(malformed("its boundary is nowhere in the body")),
        },
    };
    let mut fields = Vec::new();
    loop {
        let rest = &body[position..];
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let Some(head_and_more) = rest[padding..].strip_prefix(b"\r\n") else {
            return Err(malformed("a boundary is not at the end of its line"));
        };
        if fields.len() == FIELDS_MAX {
            return Err(malformed(&format!("more than {FIELDS_MAX} fields")));
        }
        let start = position + padding + 2;
        // A field may have no header at all; its content then begins at once.
        let (head, content_start) = match head_and_more.starts_with(b"\r\n") {
            true => (&[][..], start + 2),
            false => {
                let length = find(head_and_more, b"\r\n\r\n")
                    .ok_or_else(|| malformed("the header of a field does not end"))?;
                (&head_and_more[..length], start + length + 4)
            }
        };
        // The line break before the boundary may be the one that ends the header: there is no content then.
        let line_break = content_start - 2;
        let end = find(&body[line_break..], &delimiter).map(|length| line_break + length);
        let end = end.ok_or_else(|| malformed("the last boundary, which ends with '--', is missing"))?;
        let content = body.slice(content_start.min(end)..end);
        fields.push(field(head, content).ok_or_else(|| malformed("a field has no name"))?);
        position = end + delimiter.len();
    }
}

fn field(head: &[u8], content: Bytes) -> Option<Field> {
    let head = String::from_utf8_lossy(head);
    let (mut name, mut content_type) = (None, None);
    for line in head.split("\r\n") {
        let (key, value) = line.split_once(':')?;
        if key.eq_ignore_ascii_case("content-disposition") {
            name = parameter(value, "name").map(str::to_owned);
        } else if key.eq_ignore_ascii_case("content-type") {
            content_type = Some(value.trim().to_owned());
        }
    }
    Some(Field { name: name?, content_type, content })
}

/// The value of a parameter such as `; name="data"`, without its quotes.
fn parameter<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let (&first, _) = wanted.split_first()?;
    let mut start = 0;
    // The first byte is rare, and looked for quickly.
    while let Some(skipped) = text[start..].iter().position(|&byte| byte == first) {
        start += skipped;
        if text[start..].starts_with(wanted) {
            return Some(start);
        }
        start += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(body: &str, expected: Expect) {
        let shown = match fields(&Bytes::copy_from_slice(body.replace('\n', "\r\n").as_bytes()), "b") {
            Ok(fields) => fields
                .iter()
                .map(|Field { name, content_type, content }| format!("{name} {content_type:?} {content:?}\n"))
                .collect(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn forms_are_cut_into_fields() {
        check(
            "--b\nContent-Disposition: form-data; name=\"data\"; filename=\"x.json\"\nContent-Type: application/json\n\n[1]\n--b--\n",
            expect![[r#"
                data Some("application/json") b"[1]"
            "#]],
        );
        check(
            "before\n--b \ncontent-disposition: form-data; name=a\n\n--b\nContent-Disposition: form-data; name=\"c\"\n\n\n--b--",
            expect![[r#"
                a None b""
                c None b""
            "#]],
        );
        check("--b--", expect![""]);
        check("", expect!["malformed multipart/form-data: its boundary is nowhere in the body"]);
        check("--c\n\n--c--", expect!["malformed multipart/form-data: its boundary is nowhere in the body"]);
        check("--bb\n", expect!["malformed multipart/form-data: a boundary is not at the end of its line"]);
        check(
            "--b\nContent-Disposition: form-data\n\n1\n--b--",
            expect!["malformed multipart/form-data: a field has no name"],
        );
        check(
            "--b\nContent-Disposition: form-data; name=a\n",
            expect!["malformed multipart/form-data: the header of a field does not end"],
        );
        check(
            "--b\nContent-Disposition: form-data; name=a\n\n1",
            expect!["malformed multipart/form-data: the last boundary, which ends with '--', is missing"],
        );
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(boundary("multipart/mixed; boundary=abc"), None);
    }
}
