//! Which JSON values stand for elements of each dtype: the plain ones, and what some dialects write besides.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gristmill_engine::tensor::DType;
use half::{bf16, f16};

use super::element::{Element, ElementReader, Text, element_reader};
use super::scan::{JsonError, Scalar, Scanner};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Numbers, truth values and strings.
    Plain,
    /// A BYTES element may also be `{"b64": "<base64>"}`, as TensorFlow Serving has it.
    Base64,
    /// Of a data frame: besides, a missing float is `null`, as pandas writes what is not a number.
    Frame,
}

/// The key of TensorFlow Serving's base64 objects.
pub(crate) const BASE64_KEY: &str = "b64";

/// Padding may be left out: encoders differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

// === impl Values ===

impl Values {
    /// The reader for elements of `dtype`.
    pub(crate) fn reader(self, dtype: DType) -> ElementReader {
        match self {
            _ if self.has_base64(dtype) => text_or_base64,
            Values::Frame => match dtype {
                DType::Fp16 => float_or_null::<f16>,
                DType::Bf16 => float_or_null::<bf16>,
                DType::Fp32 => float_or_null::<f32>,
                DType::Fp64 => float_or_null::<f64>,
                _ => element_reader(dtype),
            },
            Values::Plain | Values::Base64 => element_reader(dtype),
        }
    }

    /// Whether an object may stand for an element of `dtype`.
    pub(crate) fn has_base64(self, dtype: DType) -> bool {
        self != Values::Plain && dtype == DType::Bytes
    }

    /// Whether features that the model does not take are passed over, as frames have them.
    pub(crate) fn are_of_a_frame(self) -> bool {
        self == Values::Frame
    }
}

/// Whether the next value is `{"b64": "..."}` and has no other member.
pub(crate) fn is_base64(scanner: &Scanner<'_>) -> bool {
    let mut ahead = scanner.clone();
    let (mut members, mut texts) = (0, 0);
    let read = ahead.object("", |scanner, key| {
        members += 1;
        texts += usize::from(key == BASE64_KEY && scanner.peek() == Some(b'"'));
        scanner.skip()
    });
    read.is_ok() && members == 1 && texts == 1
}

fn float_or_null<F: Element>(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
    if scanner.peek() != Some(b'n') || scanner.clone().scalar() != Ok(Scalar::Null) {
        return F::read(scanner, data);
    }
    scanner.advance("null".len());
    F::read(&mut Scanner::new("NaN"), data)
}

fn text_or_base64(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
    if scanner.peek() != Some(b'{') {
        return Text::read(scanner, data).map_err(|problem| {
            problem.replace("expected a string", "expected a string or {\"b64\": \"<base64>\"}")
        });
    }
    if !is_base64(scanner) {
        return Err("expected a string or {\"b64\": \"<base64>\"}, got another object".into());
    }
    let mut problem = None;
    let mut ahead = scanner.clone();
    let read = ahead.object("", |scanner, _| {
        let text = scanner.string()?;
        problem = push_decoded(&text, data).err();
        Ok(())
    });
    match (read, problem) {
        (Ok(()), None) => {
            *scanner = ahead;
            Ok(())
        }
        (Ok(()), Some(problem)) => Err(problem),
        (Err(JsonError::Syntax { message, .. } | JsonError::Meaning(message)), _) => Err(message),
    }
}

/// Appends what `text` encodes as one BYTES element; line breaks in it are passed over.
fn push_decoded(text: &str, data: &mut Vec<u8>) -> Result<(), String> {
    let start = data.len();
    data.extend_from_slice(&[0; 4]);
    // Room as a vector grows: the decoder asks for no more than it needs, so that many elements would be moved each time.
    data.reserve(text.len());
    // The usual form takes a third of the time, and no look for line breaks; what else is let through, and what is wrong,
    // is the other's to say.
    let decoded = match base64_simd::STANDARD.decode_append(text, data) {
        Ok(()) => Ok(()),
        Err(_) => BASE64.decode_vec(text.split_ascii_whitespace().collect::<String>(), data),
    };
    let length = u32::try_from(data.len() - start - 4);
    match (decoded, length) {
        (Ok(()), Ok(length)) => {
            data[start..start + 4].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        (Err(error), _) => Err(format!("'b64' is not base64: {error}")),
        (_, Err(_too_long)) => Err("a string of 4 GiB or more".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, String> {
        let mut data = Vec::new();
        Values::Base64.reader(DType::Bytes)(&mut Scanner::new(text), &mut data).map(|()| data)
    }

    #[test]
    fn missing_floats() {
        let mut data = Vec::new();
        let read = Values::Frame.reader(DType::Fp32);
        assert_eq!(read(&mut Scanner::new("null"), &mut data), Ok(()));
        assert!(f32::from_le_bytes(data[..4].try_into().unwrap()).is_nan());
        assert_eq!(read(&mut Scanner::new("nil"), &mut data).unwrap_err(), "expected a number, got nil");
        let read = Values::Frame.reader(DType::Int32);
        assert_eq!(read(&mut Scanner::new("null"), &mut data).unwrap_err(), "expected an integer, got null");
    }

    #[test]
    fn strings_and_base64() {
        assert_eq!(read(r#""ab""#).unwrap(), b"\x02\0\0\0ab");
        assert_eq!(read(r#"{"b64": "/wA="}"#).unwrap(), b"\x02\0\0\0\xff\0");
        assert_eq!(read(r#"{"b64": "/wA"}"#).unwrap(), b"\x02\0\0\0\xff\0");
        assert_eq!(read(r#"{"b64": "/w\nA=\n"}"#).unwrap(), b"\x02\0\0\0\xff\0");
        assert_eq!(read(r#"{"b64": ""}"#).unwrap(), b"\0\0\0\0");
        assert_eq!(read(r#"{"b64": "?"}"#).unwrap_err(), "'b64' is not base64: Invalid symbol 63, offset 0.");
        let expected = r#"expected a string or {"b64": "<base64>"}, got"#;
        assert_eq!(read("7").unwrap_err(), format!("{expected} 7"));
        assert_eq!(read(r#"{"b64": 7}"#).unwrap_err(), format!("{expected} another object"));
        assert_eq!(read(r#"{"b64": "", "a": 1}"#).unwrap_err(), format!("{expected} another object"));
    }
}
