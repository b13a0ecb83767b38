//! How the elements of `BYTES` lie one behind the other: whether they are whole, and how long the first of them are.

use std::fmt::Display;

/// # Errors
/// An element is cut short, or there are not as many as `shape` counts.
pub(crate) fn check(data: &[u8], elements: usize, shape: impl Display) -> Result<(), String> {
    let mut rest = data;
    let mut found = 0usize;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Err(format!(
                "BYTES element {found} is cut short: a 4-byte length was expected, {} bytes are left",
                rest.len()
            ));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if after.len() < length {
            return Err(format!(
                "BYTES element {found} is cut short: its length says {length} bytes, {} are left",
                after.len()
            ));
        }
        rest = &after[length..];
        found += 1;
    }
    if found != elements {
        return Err(format!("expected {elements} BYTES elements for shape {shape}, got {found}"));
    }
    Ok(())
}

/// Bytes taken by the first `elements` elements of well-formed data.
pub(crate) fn prefix(data: &[u8], elements: usize) -> usize {
    let mut offset = 0;
    for _ in 0..elements {
        let length: [u8; 4] = data[offset..offset + 4].try_into().expect("a four-byte slice; this is a bug");
        offset += 4 + u32::from_le_bytes(length) as usize;
    }
    offset
}
