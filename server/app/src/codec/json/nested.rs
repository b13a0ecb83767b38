//! Tensors as lists nested like their shape, whole or piece by piece.

use gristmill_engine::answer_limit::AnswerLimit;
use gristmill_engine::error::InferError;
use gristmill_engine::tensor::{BytesElements, DType, Tensor};

use super::write::{NonFinite, check_length, write_numbers, write_string};

/// How elements of BYTES are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texts {
    /// As strings, which they must be.
    Strings,
    /// As `{"b64": "<base64>"}`.
    Base64,
}

/// What of a tensor has not been written yet.
pub(crate) struct NestedWriter<'t> {
    name: &'t str,
    dtype: DType,
    /// Of every dtype but BYTES.
    numbers: &'t [u8],
    strings: BytesElements<'t>,
    texts: Texts,
    non_finite: NonFinite,
    limit: Option<AnswerLimit>,
}

// === impl NestedWriter ===

impl<'t> NestedWriter<'t> {
    /// `name` is the output's, for errors.
    pub(crate) fn new(name: &'t str, tensor: &'t Tensor, texts: Texts) -> NestedWriter<'t> {
        NestedWriter {
            name,
            dtype: tensor.dtype(),
            numbers: tensor.data(),
            strings: tensor.bytes_elements(),
            texts,
            non_finite: NonFinite::Token,
            limit: None,
        }
    }

    /// Writes floats that are not finite so, and not as tokens.
    pub(crate) fn with_non_finite(self, non_finite: NonFinite) -> NestedWriter<'t> {
        NestedWriter { non_finite, ..self }
    }

    /// Stops where the text has more bytes.
    pub(crate) fn within(self, limit: Option<AnswerLimit>) -> NestedWriter<'t> {
        NestedWriter { limit, ..self }
    }

    /// Appends as many elements as `shape` has, as lists nested like it; one value for an empty shape. The shapes of
    /// all calls together must have the tensor's elements.
    ///
    /// # Errors
    /// `InvalidInput` for a BYTES element that is not UTF-8, and for types that JSON has no form for; `TooLarge` where the
    /// text so far is longer than allowed.
    pub(crate) fn write(&mut self, shape: &[usize], json: &mut Vec<u8>) -> Result<(), InferError> {
        let [size, inner @ ..] = shape else { return self.run(1, json) };
        json.push(b'[');
        if inner.is_empty() {
            self.run(*size, json)?;
        } else {
            for index in 0..*size {
                if index > 0 {
                    json.push(b',');
                }
                self.write(inner, json)?;
            }
        }
        json.push(b']');
        Ok(())
    }

    fn run(&mut self, count: usize, json: &mut Vec<u8>) -> Result<(), InferError> {
        let size = match self.dtype {
            DType::Bytes => return self.run_of_strings(count, json),
            dtype => dtype.size().filter(|_| !dtype.is_narrow()).ok_or_else(|| {
                InferError::InvalidInput(format!(
                    "output '{}' is {dtype}, which JSON does not carry: ask for it at /v2 with the parameter \
                     \"binary_data\": true",
                    self.name
                ))
            })?,
        };
        let (now, later) = self.numbers.split_at(count * size);
        self.numbers = later;
        write_numbers((self.dtype, now), self.non_finite, self.limit, json)
    }

    fn run_of_strings(&mut self, count: usize, json: &mut Vec<u8>) -> Result<(), InferError> {
        for (index, element) in self.strings.by_ref().take(count).enumerate() {
            if index > 0 {
                json.push(b',');
            }
            check_length(self.limit, json)?;
            match self.texts {
                Texts::Base64 => {
                    json.extend_from_slice(b"{\"b64\":\"");
                    // Room as a vector grows: the encoder asks for no more than it needs.
                    json.reserve(base64_simd::STANDARD.encoded_length(element.len()));
                    base64_simd::STANDARD.encode_append(element, json);
                    json.extend_from_slice(b"\"}");
                }
                Texts::Strings => {
                    let text = std::str::from_utf8(element).map_err(|_| {
                        InferError::InvalidInput(format!(
                            "output '{}' has an element that is not UTF-8, which JSON must be: ask for it at /v2 \
                             with the parameter \"binary_data\": true",
                            self.name
                        ))
                    })?;
                    write_string(text, json);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(tensor: &Tensor, shape: &[usize], texts: Texts) -> Result<String, String> {
        let mut json = Vec::new();
        let done = NestedWriter::new("y", tensor, texts).write(shape, &mut json);
        done.map(|()| String::from_utf8(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_are_nested_like_the_shape() {
        let check = |shape: &[usize], expected: &str| {
            let elements = shape.iter().product::<usize>();
            let data: Vec<u8> = (0..elements).map(|value| u8::try_from(value).unwrap()).collect();
            let tensor = Tensor::new(DType::Uint8, shape, data.into()).unwrap();
            assert_eq!(written(&tensor, shape, Texts::Strings).unwrap(), expected);
        };
        check(&[], "0");
        check(&[3], "[0,1,2]");
        check(&[2, 2, 1], "[[[0],[1]],[[2],[3]]]");
        check(&[2, 0], "[[],[]]");
        check(&[0, 2], "[]");
    }

    #[test]
    fn texts() {
        let tensor = Tensor::from_elements([1usize, 2].as_slice(), [b"a\"".as_slice(), b"\xff"]).unwrap();
        assert_eq!(written(&tensor, &[1, 2], Texts::Base64).unwrap(), r#"[[{"b64":"YSI="},{"b64":"/w=="}]]"#);
        let error = written(&tensor, &[1, 2], Texts::Strings).unwrap_err();
        assert!(error.starts_with("output 'y' has an element that is not UTF-8"), "{error}");
    }
}
