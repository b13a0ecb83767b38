//! Which texts are JSON numbers, how long they are, and the three tokens for numbers that are not finite.

/// The sign and the whole part that a JSON number begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholePart {
    /// Bytes, with the sign.
    pub(crate) length: usize,
    pub(crate) digits: usize,
    pub(crate) negative: bool,
    /// The digits' value, which wraps beyond 19 digits.
    pub(crate) value: u64,
    /// The number goes on with a fraction or an exponent.
    pub(crate) goes_on: bool,
}

impl WholePart {
    /// What `rest` begins with, if a number can begin so: `-0.5` or `12` and neither `01` nor `1.`.
    #[inline]
    pub(crate) fn read(rest: &[u8]) -> Option<WholePart> {
        let negative = rest.first() == Some(&b'-');
        let start = usize::from(negative);
        let mut length = start;
        let mut value = 0u64;
        while let Some(digit @ b'0'..=b'9') = rest.get(length) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            length += 1;
        }
        let digits = length - start;
        let goes_on = match rest.get(length) {
            Some(b'.') if !rest.get(length + 1).is_some_and(u8::is_ascii_digit) => return None,
            Some(b'.' | b'e' | b'E') => true,
            _ => false,
        };
        let is_legal = digits == 1 || (digits > 1 && rest[start] != b'0');
        is_legal.then_some(WholePart { length, digits, negative, value, goes_on })
    }
}

/// The length of the token for a number that is not finite, and its value.
///
/// JSON has none; Python's `json`, RapidJSON (thus Triton) and JavaScript-like writers use these.
#[inline]
pub(crate) fn non_finite(rest: &[u8]) -> Option<(usize, f64)> {
    [(b"NaN".as_slice(), f64::NAN), (b"Infinity", f64::INFINITY), (b"-Infinity", f64::NEG_INFINITY)]
        .into_iter()
        .find(|(token, _)| rest.starts_with(token))
        .map(|(token, value)| (token.len(), value))
}

/// The length of the number that `rest` begins with, or `None` if it begins with none.
pub(crate) fn number_length(rest: &[u8]) -> Option<usize> {
    if let Some((length, _)) = non_finite(rest) {
        return Some(length);
    }
    let mut length = WholePart::read(rest)?.length;
    if rest.get(length) == Some(&b'.') {
        length += 1;
        length += leading_digits(&rest[length..]);
    }
    if let Some(b'e' | b'E') = rest.get(length) {
        length += 1;
        length += usize::from(matches!(rest.get(length), Some(b'+' | b'-')));
        let digits = leading_digits(&rest[length..]);
        if digits == 0 {
            return None;
        }
        length += digits;
    }
    Some(length)
}

#[inline]
fn leading_digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}
