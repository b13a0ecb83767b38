//! Element by element: what a number becomes in another dtype, and which elements of two tensors differ.

use bytes::{BufMut, BytesMut};
use half::{bf16, f16};

use crate::comparison::{Elements, Tolerance, at, elements};
use crate::tensor::{DType, Tensor};

/// Longest piece of a `BYTES` element that a text repeats, in bytes.
const EXCERPT_BYTES_MAX: usize = 40;

/// How two tensors of one dtype and shape differ.
pub(super) struct Comparison {
    /// Elements further apart than the tolerance allows.
    pub(super) differing: usize,
    /// The first of them.
    pub(super) first: Option<Difference>,
    /// The one that is furthest apart; `None` for elements that are no numbers.
    pub(super) largest: Option<Difference>,
}

/// Two elements that ought to be equal.
#[derive(Clone)]
pub(super) struct Difference {
    /// In row-major order.
    pub(super) element: usize,
    /// As the dtype's shortest text.
    pub(super) expected: String,
    pub(super) got: String,
    /// `|got - expected|`; infinite where one is NaN or an infinity.
    pub(super) amount: f64,
}

/// `tensor` in the dtype `to`: itself, or its numbers converted where its dtype is one in which
/// formats keep numbers of any kind (`FP64`, `INT64`, `UINT64`). Fractions are rounded to floats.
///
/// # Errors
/// The dtype is another, or a value is none of `to`'s.
pub(super) fn cast(tensor: &Tensor, to: DType) -> Result<Tensor, String> {
    let from = tensor.dtype();
    if from == to {
        return Ok(tensor.clone());
    }
    let general = matches!(from, DType::Fp64 | DType::Int64 | DType::Uint64);
    if !general || (to == DType::Bytes && tensor.element_count() > 0) {
        return Err(format!("expected datatype {to}, got {from}"));
    }
    let mut data = BytesMut::with_capacity(tensor.element_count() * to.size().unwrap_or_default());
    let fits = |element: usize, done: Option<()>| {
        done.ok_or_else(|| {
            let index = super::place(element, tensor.shape(), false);
            format!("{index} is {}, which {to} cannot hold", show(tensor, element))
        })
    };
    match elements(tensor) {
        Elements::Whole(values) => {
            for (element, value) in values.into_iter().enumerate() {
                fits(element, put_whole(&mut data, value, to))?;
            }
        }
        Elements::Real(values) => {
            for (element, value) in values.into_iter().enumerate() {
                fits(element, put_real(&mut data, value, to))?;
            }
        }
        Elements::Text(_) => {}
    }
    Ok(Tensor::new(to, tensor.shape(), data.freeze()).expect("every element was converted; this is a bug"))
}

/// Compares two tensors of one dtype and shape.
pub(super) fn compare(expected: &Tensor, got: &Tensor, tolerance: Tolerance) -> Comparison {
    let mut comparison = Comparison { differing: 0, first: None, largest: None };
    let mut largest: Option<(usize, f64)> = None;
    let mut record = |element: usize, amount: Option<f64>| {
        comparison.differing += 1;
        if comparison.first.is_none() {
            comparison.first = Some(difference(expected, got, element, amount.unwrap_or_default()));
        }
        if let Some(amount) = amount
            && largest.is_none_or(|(_, most)| amount > most)
        {
            largest = Some((element, amount));
        }
    };
    match (elements(expected), elements(got)) {
        (Elements::Whole(expected_values), Elements::Whole(got_values)) => {
            let numeric = expected.dtype() != DType::Bool;
            for (element, (want, have)) in expected_values.into_iter().zip(got_values).enumerate() {
                if !tolerance.allows_whole(want, have, !numeric) {
                    record(element, numeric.then_some((have - want).unsigned_abs() as f64));
                }
            }
        }
        (Elements::Real(expected_values), Elements::Real(got_values)) => {
            for (element, (want, have)) in expected_values.into_iter().zip(got_values).enumerate() {
                if !tolerance.allows(want, have) {
                    let amount = (have - want).abs();
                    record(element, Some(if amount.is_nan() { f64::INFINITY } else { amount }));
                }
            }
        }
        (Elements::Text(expected_values), Elements::Text(got_values)) => {
            for (element, (want, have)) in expected_values.into_iter().zip(got_values).enumerate() {
                if want != have {
                    record(element, None);
                }
            }
        }
        _ => unreachable!("the caller compares tensors of one dtype; this is a bug"),
    }
    comparison.largest = largest.map(|(element, amount)| difference(expected, got, element, amount));
    comparison
}

fn difference(expected: &Tensor, got: &Tensor, element: usize, amount: f64) -> Difference {
    Difference { element, expected: show(expected, element), got: show(got, element), amount }
}

/// One element as people write it.
fn show(tensor: &Tensor, element: usize) -> String {
    let data = tensor.data();
    match tensor.dtype() {
        DType::Bool => (data[element] != 0).to_string(),
        DType::Int8 => i8::from_le_bytes(at(data, element)).to_string(),
        DType::Int16 => i16::from_le_bytes(at(data, element)).to_string(),
        DType::Int32 => i32::from_le_bytes(at(data, element)).to_string(),
        DType::Int64 => i64::from_le_bytes(at(data, element)).to_string(),
        DType::Uint8 => data[element].to_string(),
        DType::Uint16 => u16::from_le_bytes(at(data, element)).to_string(),
        DType::Uint32 => u32::from_le_bytes(at(data, element)).to_string(),
        DType::Uint64 => u64::from_le_bytes(at(data, element)).to_string(),
        DType::Fp16 => f16::from_le_bytes(at(data, element)).to_string(),
        DType::Bf16 => bf16::from_le_bytes(at(data, element)).to_string(),
        // As with `{:?}`: very large and very small numbers in scientific notation.
        DType::Fp32 => format!("{:?}", f32::from_le_bytes(at(data, element))),
        DType::Fp64 => format!("{:?}", f64::from_le_bytes(at(data, element))),
        DType::Narrow(_) => format!("the byte {:#04x}", data[element]),
        DType::Bytes => {
            let bytes = tensor.bytes_elements().nth(element).unwrap_or_default();
            let shown = &bytes[..bytes.len().min(EXCERPT_BYTES_MAX)];
            let more = if shown.len() < bytes.len() { "…" } else { "" };
            format!("\"{}{more}\"", shown.escape_ascii())
        }
    }
}

/// Appends `value` as `to`, or gives `None` where `to` has no such value.
fn put_whole(data: &mut BytesMut, value: i128, to: DType) -> Option<()> {
    match to {
        DType::Bool if value == 0 || value == 1 => data.put_u8(value as u8),
        DType::Int8 => data.put_i8(value.try_into().ok()?),
        DType::Int16 => data.put_i16_le(value.try_into().ok()?),
        DType::Int32 => data.put_i32_le(value.try_into().ok()?),
        DType::Int64 => data.put_i64_le(value.try_into().ok()?),
        DType::Uint8 => data.put_u8(value.try_into().ok()?),
        DType::Uint16 => data.put_u16_le(value.try_into().ok()?),
        DType::Uint32 => data.put_u32_le(value.try_into().ok()?),
        DType::Uint64 => data.put_u64_le(value.try_into().ok()?),
        DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64 => put_real(data, value as f64, to)?,
        DType::Bool | DType::Bytes | DType::Narrow(_) => return None,
    }
    Some(())
}

fn put_real(data: &mut BytesMut, value: f64, to: DType) -> Option<()> {
    // A finite number that becomes an infinity is too large for the dtype.
    let holds = |rounded: f64| (rounded.is_finite() || !value.is_finite()).then_some(());
    match to {
        DType::Fp16 => {
            let rounded = f16::from_f64(value);
            holds(rounded.to_f64())?;
            data.put_slice(&rounded.to_le_bytes());
        }
        DType::Bf16 => {
            let rounded = bf16::from_f64(value);
            holds(rounded.to_f64())?;
            data.put_slice(&rounded.to_le_bytes());
        }
        DType::Fp32 => {
            holds(f64::from(value as f32))?;
            data.put_f32_le(value as f32);
        }
        DType::Fp64 => data.put_f64_le(value),
        // 2^64 and beyond is no dtype's; what is below is exact as i128.
        _ if value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0 => {
            put_whole(data, value as i128, to)?;
        }
        _ => return None,
    }
    Some(())
}
