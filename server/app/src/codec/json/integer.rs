//! The integer that a JSON number stands for, exactly, however it is written: `3`, `3.0`, `0.3e1` and `30e-1` are one.

use super::number::number_length;

/// More digits than any integer type has: beyond them a number is out of range.
const DIGITS_MAX: i64 = 20;

/// Why a number is no element of an integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not a number, not finite, or has a fraction.
    NotInteger,
    OutOfRange,
}

/// Reads the number that `rest` begins with, in decimal arithmetic: floats are exact only up to 2⁵³. Gives its length
/// too.
///
/// # Errors
/// See [`Unfit`]; out of range is what has more than 20 digits.
pub(super) fn read_integer(rest: &[u8]) -> Result<(i128, usize), Unfit> {
    let length = number_length(rest).ok_or(Unfit::NotInteger)?;
    let token = &rest[..length];
    let (negative, token) = match token.strip_prefix(b"-") {
        Some(token) => (true, token),
        None => (false, token),
    };
    if !token.first().is_some_and(u8::is_ascii_digit) {
        return Err(Unfit::NotInteger);
    }
    let exponent_place = token.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = token.split_at(exponent_place.unwrap_or(token.len()));
    let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let fraction_digits = mantissa.len().saturating_sub(point + 1);

    let digits = || mantissa.iter().filter(|byte| byte.is_ascii_digit()).copied();
    let leading_zeros = digits().take_while(|&digit| digit == b'0').count();
    let trailing_zeros = digits().rev().take_while(|&digit| digit == b'0').count();
    let Some(significant) = digits().count().checked_sub(leading_zeros + trailing_zeros) else {
        // Every digit is 0, and was counted twice.
        return Ok((0, length));
    };
    // The number is its significant digits and so many zeros; fewer than none are digits behind the point.
    let zeros = exponent_value(exponent)
        .saturating_add(i64::try_from(trailing_zeros).unwrap_or(i64::MAX))
        .saturating_sub(i64::try_from(fraction_digits).unwrap_or(i64::MAX));
    if zeros < 0 {
        return Err(Unfit::NotInteger);
    }
    if i64::try_from(significant).unwrap_or(i64::MAX).saturating_add(zeros) > DIGITS_MAX {
        return Err(Unfit::OutOfRange);
    }
    let significant = digits().skip(leading_zeros).take(significant);
    let zeros = std::iter::repeat_n(b'0', usize::try_from(zeros).unwrap_or(0));
    let magnitude =
        significant.chain(zeros).fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    Ok((if negative { -magnitude } else { magnitude }, length))
}

/// Of `e3`, `E+03` or nothing; one with more digits than an `i64` is as good as endless.
fn exponent_value(exponent: &[u8]) -> i64 {
    let Some((_e, signed)) = exponent.split_first() else { return 0 };
    let (negative, digits) = match signed {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = digits
        .iter()
        .fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -value } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<i128, Unfit> {
        read_integer(text.as_bytes()).map(|(value, length)| {
            assert_eq!(length, text.len(), "{text}");
            value
        })
    }

    #[test]
    fn exactly() {
        let check = |text: &str, expected| assert_eq!(read(text), expected, "{text}");
        check("9007199254740993.0", Ok(9_007_199_254_740_993));
        check("1234567890123456789.0", Ok(1_234_567_890_123_456_789));
        check("18446744073709551615", Ok(u64::MAX.into()));
        check("-9.223372036854775808e18", Ok(i64::MIN.into()));
        check("9007199254740993e0", Ok(9_007_199_254_740_993));
        check("90071992547409930E-1", Ok(9_007_199_254_740_993));
        check("1.5e1", Ok(15));
        check("0.00000000000000000000000000000000003e35", Ok(3));
        check(&format!("3{}e-400", "0".repeat(400)), Ok(3));
        check("-0", Ok(0));
        check("0.0e-99999999999999999999999", Ok(0));
        check("00", Err(Unfit::NotInteger));
    }

    #[test]
    fn refused() {
        let fraction = format!("1.{}1", "0".repeat(1000));
        for text in ["9007199254740992.5", "1e-1", "0.1", "1.0e-1", &fraction, "NaN", "-Infinity", "x", "1."]
        {
            assert_eq!(read(text), Err(Unfit::NotInteger), "{text}");
        }
        for text in ["1e20", "1e99999999999999999999", "123456789012345678901", "-1.5e300"] {
            assert_eq!(read(text), Err(Unfit::OutOfRange), "{text}");
        }
        // Of a value this small nothing but the fraction counts.
        assert_eq!(read("1e-99999999999999999999"), Err(Unfit::NotInteger));
    }

    /// The same by long hand: digits moved over the point one by one.
    fn reference(negative: bool, whole: &str, fraction: &str, exponent: i32) -> Result<i128, Unfit> {
        let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
        for _ in 0..exponent {
            if fraction.is_empty() {
                fraction.push('0');
            }
            whole.push(fraction.remove(0));
        }
        for _ in exponent..0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
        if fraction.bytes().any(|digit| digit != b'0') {
            return Err(Unfit::NotInteger);
        }
        let whole = whole.trim_start_matches('0');
        if whole.len() > 20 {
            return Err(Unfit::OutOfRange);
        }
        let value: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap() };
        Ok(if negative { -value } else { value })
    }

    proptest! {
        #[test]
        fn as_by_long_hand(
            negative in any::<bool>(),
            whole in "0|[1-9][0-9]{0,2}|[1-9][0-9]{14,21}|[1-9][0-9]{0,4}0{0,18}",
            fraction in "|[0-9]{1,3}|0{1,22}|0{0,18}[1-9]0{0,4}",
            exponent in prop_oneof![Just(0), -24..24i32],
            form in 0..4u8,
        ) {
            let point = if fraction.is_empty() { "" } else { "." };
            let sign = if negative { "-" } else { "" };
            let exponent_text = match (form, exponent) {
                (0, 0) => String::new(),
                (1, _) => format!("E{exponent:+03}"),
                _ => format!("e{exponent}"),
            };
            let text = format!("{sign}{whole}{point}{fraction}{exponent_text}");
            prop_assert_eq!(read(&text), reference(negative, &whole, &fraction, exponent), "{}", text);
        }
    }
}
