//! How one JSON value becomes one element of each dtype.

use std::ops::Neg;

use gristmill_engine::tensor::DType;
use half::{bf16, f16};

use super::integer::{Unfit, read_integer};
use super::number::{WholePart, non_finite, number_length};
use super::scan::{JsonError, Scanner};

/// Reads one element and appends its bytes; on an error the scanner is still at the value and the text
/// says what is wrong with it.
pub(crate) type ElementReader = fn(&mut Scanner<'_>, &mut Vec<u8>) -> Result<(), String>;

/// A Rust type that stands for a dtype.
pub(super) trait Element {
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String>;
}

/// Stands for `BYTES`: JSON strings, stored as their UTF-8.
pub(super) struct Text;

/// Stands for types that JSON has no form for.
pub(super) struct Raw;

/// Evaluates `$body` with `$element` as the type that stands for `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            DType::Bool => {
                type $element = bool;
                $body
            }
            DType::Int8 => {
                type $element = i8;
                $body
            }
            DType::Int16 => {
                type $element = i16;
                $body
            }
            DType::Int32 => {
                type $element = i32;
                $body
            }
            DType::Int64 => {
                type $element = i64;
                $body
            }
            DType::Uint8 => {
                type $element = u8;
                $body
            }
            DType::Uint16 => {
                type $element = u16;
                $body
            }
            DType::Uint32 => {
                type $element = u32;
                $body
            }
            DType::Uint64 => {
                type $element = u64;
                $body
            }
            DType::Fp16 => {
                type $element = f16;
                $body
            }
            DType::Bf16 => {
                type $element = bf16;
                $body
            }
            DType::Fp32 => {
                type $element = f32;
                $body
            }
            DType::Fp64 => {
                type $element = f64;
                $body
            }
            DType::Bytes => {
                type $element = Text;
                $body
            }
            DType::Narrow(_) => {
                type $element = Raw;
                $body
            }
        }
    };
}

pub(super) use with_element;

/// The reader for elements of `dtype`.
pub(crate) fn element_reader(dtype: DType) -> ElementReader {
    with_element!(dtype, E => E::read)
}

// === impl Element ===

macro_rules! impl_integer {
    ($($integer:ty),*) => {$(
        impl Element for $integer {
            #[inline]
            fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
                let rest = scanner.rest();
                if let Some(whole) = WholePart::read(rest)
                    && !whole.goes_on
                    && let Ok(text) = std::str::from_utf8(&rest[..whole.length])
                    && let Ok(value) = text.parse::<$integer>()
                {
                    scanner.advance(whole.length);
                    data.extend_from_slice(&value.to_le_bytes());
                    return Ok(());
                }
                let range = (<$integer>::MIN.into(), <$integer>::MAX.into());
                let value = whole_number(scanner, <$integer>::BITS, range)?;
                data.extend_from_slice(&(value as $integer).to_le_bytes());
                Ok(())
            }
        }
    )*};
}

impl_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Reads an integer that is written with a point or an exponent, such as `1.0` or `2e3`, and says what is wrong with
/// one that is not in its type's range.
#[cold]
fn whole_number(scanner: &mut Scanner<'_>, bits: u32, (min, max): (i128, i128)) -> Result<i128, String> {
    let (value, length) = match read_integer(scanner.rest()) {
        Ok((value, length)) if (min..=max).contains(&value) => (value, length),
        Err(Unfit::NotInteger) => return Err(format!("expected an integer, got {}", scanner.excerpt())),
        Ok(_) | Err(Unfit::OutOfRange) => {
            return Err(format!(
                "{} is out of range for {}{bits} ({min} to {max})",
                scanner.excerpt(),
                if min == 0 { "UINT" } else { "INT" },
            ));
        }
    };
    scanner.advance(length);
    Ok(value)
}

impl Element for f32 {
    #[inline]
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let value: f32 = float(scanner, "FP32")?;
        data.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

impl Element for f64 {
    #[inline]
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let value: f64 = float(scanner, "FP64")?;
        data.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

impl Element for f16 {
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let half = narrow(scanner, "FP16", f16::from_f64, f16::is_infinite)?;
        data.extend_from_slice(&half.to_le_bytes());
        Ok(())
    }
}

impl Element for bf16 {
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let half = narrow(scanner, "BF16", bf16::from_f64, bf16::is_infinite)?;
        data.extend_from_slice(&half.to_le_bytes());
        Ok(())
    }
}

/// A float type that `fast-float2` parses, correctly rounded in one step.
trait Parsed: fast_float2::FastFloat + Neg<Output = Self> {
    /// Integers of so many digits are exact, and need no parser.
    const EXACT_DIGITS_MAX: usize;

    fn from_exact(value: u64) -> Self;
    fn from_non_finite(value: f64) -> Self;
    fn is_infinite(self) -> bool;
}

impl Parsed for f32 {
    const EXACT_DIGITS_MAX: usize = 7;

    #[inline]
    fn from_exact(value: u64) -> f32 {
        value as f32
    }

    fn from_non_finite(value: f64) -> f32 {
        value as f32
    }

    #[inline]
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Parsed for f64 {
    const EXACT_DIGITS_MAX: usize = 15;

    #[inline]
    fn from_exact(value: u64) -> f64 {
        value as f64
    }

    fn from_non_finite(value: f64) -> f64 {
        value
    }

    #[inline]
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

#[inline]
fn float<F: Parsed + Copy>(scanner: &mut Scanner<'_>, dtype: &str) -> Result<F, String> {
    let rest = scanner.rest();
    if let Some(whole) = WholePart::read(rest) {
        if !whole.goes_on && whole.digits <= F::EXACT_DIGITS_MAX {
            scanner.advance(whole.length);
            let value = F::from_exact(whole.value);
            return Ok(if whole.negative { -value } else { value });
        }
        if let Ok((value, length)) = fast_float2::parse_partial::<F, _>(rest) {
            if value.is_infinite() {
                return Err(format!("{} is out of range for {dtype}", scanner.excerpt()));
            }
            scanner.advance(length);
            return Ok(value);
        }
    }
    let Some((length, value)) = non_finite(rest) else {
        return Err(format!("expected a number, got {}", scanner.excerpt()));
    };
    scanner.advance(length);
    Ok(F::from_non_finite(value))
}

fn narrow<H: Copy>(
    scanner: &mut Scanner<'_>,
    dtype: &str,
    convert: impl Fn(f64) -> H,
    is_infinite: impl Fn(H) -> bool,
) -> Result<H, String> {
    let mut ahead = scanner.clone();
    let value: f64 = float(&mut ahead, dtype)?;
    let half = convert(value);
    if is_infinite(half) && value.is_finite() {
        return Err(format!("{} is out of range for {dtype}", scanner.excerpt()));
    }
    *scanner = ahead;
    Ok(half)
}

impl Element for bool {
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let rest = scanner.rest();
        let (length, value) = match rest {
            [b't', b'r', b'u', b'e', ..] => (4, 1),
            [b'f', b'a', b'l', b's', b'e', ..] => (5, 0),
            [b'1', ..] if number_length(rest) == Some(1) => (1, 1),
            [b'0', ..] if number_length(rest) == Some(1) => (1, 0),
            _ => return Err(format!("expected true, false, 1 or 0, got {}", scanner.excerpt())),
        };
        scanner.advance(length);
        data.push(value);
        Ok(())
    }
}

impl Element for Raw {
    fn read(_: &mut Scanner<'_>, _: &mut Vec<u8>) -> Result<(), String> {
        Err("JSON has no form for elements of this type: send them as raw bytes".into())
    }
}

impl Element for Text {
    fn read(scanner: &mut Scanner<'_>, data: &mut Vec<u8>) -> Result<(), String> {
        let got = scanner.clone();
        let text = match scanner.peek() {
            Some(b'"') => scanner.string(),
            _ => return Err(format!("expected a string, got {}", scanner.excerpt())),
        };
        match text.map(|text| u32::try_from(text.len()).map(|length| (length, text))) {
            Ok(Ok((length, text))) => {
                data.extend_from_slice(&length.to_le_bytes());
                data.extend_from_slice(text.as_bytes());
                Ok(())
            }
            problem => {
                *scanner = got;
                Err(match problem {
                    Err(JsonError::Syntax { offset, message }) => format!("{message} (byte {offset})"),
                    _ => "a string of 4 GiB or more".into(),
                })
            }
        }
    }
}
