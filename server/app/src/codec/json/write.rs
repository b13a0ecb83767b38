//! How tensors, numbers and strings are written as JSON.
//!
//! Floats get their shortest text that reads back as the same value of their own type: FP32 0.1 is
//! `0.1`. What is not finite becomes `NaN`, `Infinity` or `-Infinity`, as Triton and TensorFlow
//! Serving write it and as Python's `json` and tritonclient read it.

use gristmill_engine::answer_limit::AnswerLimit;
use gristmill_engine::error::InferError;
use gristmill_engine::tensor::{DType, Tensor};
use half::{bf16, f16};

/// What stands for a float that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonFinite {
    /// `NaN`, `Infinity`, `-Infinity`.
    Token,
    /// `null`, for readers that take strict JSON only.
    Null,
}

/// Numbers that are written between two looks at how long the text has become.
const ELEMENTS_BETWEEN_LOOKS: usize = 16 * 1024;

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(&mut *json, text).expect("a string can be written to memory; this is a bug");
}

pub(crate) fn write_integer(value: impl itoa::Integer, json: &mut Vec<u8>) {
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `[2,3]`.
pub(crate) fn write_shape(shape: &[usize], json: &mut Vec<u8>) {
    json.push(b'[');
    for (index, &dim) in shape.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_integer(dim, json);
    }
    json.push(b']');
}

/// Appends the elements of `tensor` as one flat list in row-major order.
///
/// # Errors
/// `InvalidInput` where JSON cannot carry the elements: FP16, BF16, narrow types, and `BYTES` that are not UTF-8. `TooLarge` where the
/// text so far is longer than `limit`.
/// `name` is the output's; the text says how to ask for binary data.
pub(crate) fn write_data(
    name: &str,
    tensor: &Tensor,
    limit: Option<AnswerLimit>,
    json: &mut Vec<u8>,
) -> Result<(), InferError> {
    if matches!(tensor.dtype(), DType::Fp16 | DType::Bf16 | DType::Narrow(_)) {
        return Err(InferError::InvalidInput(format!(
            "output '{name}' is {}, which JSON does not carry: ask for it with the parameter \"binary_data\": true",
            tensor.dtype()
        )));
    }
    json.push(b'[');
    write_numbers((tensor.dtype(), tensor.data()), NonFinite::Token, limit, json)?;
    for (index, element) in tensor.bytes_elements().enumerate() {
        let text = std::str::from_utf8(element).map_err(|_| {
            InferError::InvalidInput(format!(
                "output '{name}': element {index} is not UTF-8, which JSON must be: ask for it with \
                 the parameter \"binary_data\": true"
            ))
        })?;
        if index > 0 {
            json.push(b',');
        }
        write_string(text, json);
        check_length(limit, json)?;
    }
    json.push(b']');
    Ok(())
}

/// Appends numbers or truth values, separated by commas, FP16 and BF16 included; nothing for `BYTES` and narrow types.
///
/// # Errors
/// `TooLarge` where the text so far is longer than `limit`, which is looked at every now and then.
pub(crate) fn write_numbers(
    (dtype, data): (DType, &[u8]),
    non_finite: NonFinite,
    limit: Option<AnswerLimit>,
    json: &mut Vec<u8>,
) -> Result<(), InferError> {
    let Some(size) = dtype.size() else { return Ok(()) };
    for (index, elements) in data.chunks(ELEMENTS_BETWEEN_LOOKS * size).enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_numbers_unchecked(dtype, elements, non_finite, json);
        check_length(limit, json)?;
    }
    Ok(())
}

/// # Errors
/// `TooLarge` for text that is longer than `limit`.
pub(crate) fn check_length(limit: Option<AnswerLimit>, json: &[u8]) -> Result<(), InferError> {
    limit.map_or(Ok(()), |limit| limit.check(json.len()))
}

fn write_numbers_unchecked(dtype: DType, data: &[u8], non_finite: NonFinite, json: &mut Vec<u8>) {
    macro_rules! integers {
        ($integer:ty) => {
            write_each(data, json, |bytes, json| write_integer(<$integer>::from_le_bytes(bytes), json))
        };
    }
    match dtype {
        DType::Bool => write_each(data, json, |[byte], json| {
            json.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DType::Int8 => integers!(i8),
        DType::Int16 => integers!(i16),
        DType::Int32 => integers!(i32),
        DType::Int64 => integers!(i64),
        DType::Uint8 => integers!(u8),
        DType::Uint16 => integers!(u16),
        DType::Uint32 => integers!(u32),
        DType::Uint64 => integers!(u64),
        DType::Fp16 => write_each(data, json, |bytes, json| {
            write_float(f16::from_le_bytes(bytes).to_f32(), non_finite, json);
        }),
        DType::Bf16 => write_each(data, json, |bytes, json| {
            write_float(bf16::from_le_bytes(bytes).to_f32(), non_finite, json);
        }),
        DType::Fp32 => write_each(data, json, |bytes, json| {
            write_float(f32::from_le_bytes(bytes), non_finite, json);
        }),
        DType::Fp64 => write_each(data, json, |bytes, json| {
            write_float(f64::from_le_bytes(bytes), non_finite, json);
        }),
        DType::Bytes | DType::Narrow(_) => {}
    }
}

/// Appends `value` in its shortest form.
pub(crate) fn write_float<F: zmij::Float + Into<f64> + Copy>(
    value: F,
    non_finite: NonFinite,
    json: &mut Vec<u8>,
) {
    let wide: f64 = value.into();
    let text = match non_finite {
        _ if wide.is_finite() => {
            return json.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        }
        NonFinite::Null => "null",
        NonFinite::Token if wide.is_nan() => "NaN",
        NonFinite::Token if wide > 0.0 => "Infinity",
        NonFinite::Token => "-Infinity",
    };
    json.extend_from_slice(text.as_bytes());
}

#[inline]
fn write_each<const N: usize>(data: &[u8], json: &mut Vec<u8>, write: impl Fn([u8; N], &mut Vec<u8>)) {
    let (elements, _) = data.as_chunks::<N>();
    for (index, &element) in elements.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(element, json);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn written(dtype: DType, data: impl Into<Bytes>) -> String {
        let data = data.into();
        let elements = data.len() / dtype.size().unwrap();
        let tensor = Tensor::new(dtype, [elements].as_slice(), data).unwrap();
        let mut json = Vec::new();
        write_data("y", &tensor, None, &mut json).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn floats_are_short_and_exact() {
        let values = [0.1f32, -0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, 16_777_216.0, f32::NAN, f32::INFINITY];
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(
            written(DType::Fp32, data),
            "[0.1,-0.0,1.0,3.4028235e+38,1.1754944e-38,16777216.0,NaN,Infinity]"
        );
        let data: Vec<u8> = [0.1f64, f64::NEG_INFINITY, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(written(DType::Fp64, data), "[0.1,-Infinity,1e+300]");
    }

    #[test]
    fn integers_and_truth_values() {
        let data: Vec<u8> = [u64::MAX, 0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(written(DType::Uint64, data), "[18446744073709551615,0]");
        assert_eq!(written(DType::Int64, i64::MIN.to_le_bytes().to_vec()), "[-9223372036854775808]");
        assert_eq!(written(DType::Bool, vec![1, 0, 1]), "[true,false,true]");
        assert_eq!(written(DType::Int8, vec![255]), "[-1]");
    }

    #[test]
    fn what_json_cannot_carry_is_refused() {
        let mut json = Vec::new();
        let half = Tensor::new(DType::Fp16, [1usize].as_slice(), Bytes::from_static(&[0, 60])).unwrap();
        let error = write_data("y", &half, None, &mut json).unwrap_err().to_string();
        assert_eq!(
            error,
            "output 'y' is FP16, which JSON does not carry: ask for it with the parameter \"binary_data\": true"
        );
        let texts = Tensor::from_elements([2usize].as_slice(), [b"a\"".as_slice(), b"\xff"]).unwrap();
        let error = write_data("y", &texts, None, &mut json).unwrap_err().to_string();
        assert!(error.starts_with("output 'y': element 1 is not UTF-8"), "{error}");
    }
}
