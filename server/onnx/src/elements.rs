//! The elements of a gathered `BYTES` input.

/// The elements of `data`, which is in the encoding of the engine's `Tensor` and checked by it.
pub(crate) fn split(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (element, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        rest = after;
        Some(element)
    })
}
