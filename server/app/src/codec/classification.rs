//! Triton's classification extension: in place of an output the best elements of its rows, with their indices and names.

use std::cmp::Ordering;
use std::fmt::Display;
use std::sync::Arc;

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::{DType, Shape, Tensor, TensorSpec};

/// Of which output, by its place among those that a request asks for, how many classes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedClasses {
    pub output: usize,
    /// At least 1.
    pub count: usize,
}

/// Puts BYTES elements `VALUE:INDEX` or `VALUE:INDEX:NAME`, the best first, in the place of the outputs that are
/// wanted so.
///
/// # Errors
/// `InvalidInput` for an output whose elements are not integers, FP32 or FP64.
pub(crate) fn classify(response: &mut Response, wanted: &[WantedClasses]) -> Result<(), InferError> {
    let model = Arc::clone(&response.model);
    for &WantedClasses { output, count } in wanted {
        let Some((index, tensor)) = response.outputs.get_mut(output) else { continue };
        let spec = &model.signature.outputs[*index];
        *tensor = classes(tensor, spec, model.signature.is_batched(), count)?;
    }
    Ok(())
}

fn classes(tensor: &Tensor, spec: &TensorSpec, is_batched: bool, count: usize) -> Result<Tensor, InferError> {
    let rows = if is_batched { tensor.shape().first().copied().unwrap_or(1) } else { 1 };
    let length = tensor.element_count().checked_div(rows).unwrap_or(0);
    let best = Best { data: tensor.data(), length, count: count.min(length), names: &spec.labels };
    // Floats have six decimals, as Triton writes them.
    let elements = match tensor.dtype() {
        DType::Int8 => best.of(i8::from_le_bytes, |value| value.to_string()),
        DType::Int16 => best.of(i16::from_le_bytes, |value| value.to_string()),
        DType::Int32 => best.of(i32::from_le_bytes, |value| value.to_string()),
        DType::Int64 => best.of(i64::from_le_bytes, |value| value.to_string()),
        DType::Uint8 => best.of(u8::from_le_bytes, |value| value.to_string()),
        DType::Uint16 => best.of(u16::from_le_bytes, |value| value.to_string()),
        DType::Uint32 => best.of(u32::from_le_bytes, |value| value.to_string()),
        DType::Uint64 => best.of(u64::from_le_bytes, |value| value.to_string()),
        DType::Fp32 => best.of(f32::from_le_bytes, |value| format!("{value:.6}")),
        DType::Fp64 => best.of(f64::from_le_bytes, |value| format!("{value:.6}")),
        dtype @ (DType::Bool | DType::Fp16 | DType::Bf16 | DType::Bytes | DType::Narrow(_)) => {
            return Err(InferError::InvalidInput(format!(
                "output '{}' is {dtype}: classes can be had of integers, FP32 and FP64; ask for the whole output",
                spec.name
            )));
        }
    };
    let mut shape = Shape::new();
    if is_batched {
        shape.push(rows);
    }
    shape.push(best.count);
    Tensor::from_elements(shape, elements)
        .map_err(|error| InferError::Backend(format!("output '{}': {error}", spec.name)))
}

/// What is chosen from rows of `length` elements.
struct Best<'a> {
    data: &'a [u8],
    length: usize,
    count: usize,
    names: &'a [String],
}

// === impl Best ===

impl Best<'_> {
    fn of<T: Copy + PartialOrd, const N: usize>(
        &self,
        read: impl Fn([u8; N]) -> T,
        write: impl Fn(T) -> String,
    ) -> Vec<String> {
        let mut elements = Vec::new();
        let (values, _rest) = self.data.as_chunks::<N>();
        for row in values.chunks_exact(self.length.max(1)) {
            let value = |class: usize| read(row[class]);
            let mut order: Vec<usize> = (0..row.len()).collect();
            // Stable: of equal elements the first goes first.
            order.sort_by(|&one, &other| descending(value(one), value(other)));
            let best = order.into_iter().take(self.count);
            elements.extend(best.map(|class| self.element(class, &write(value(class)))));
        }
        elements
    }

    fn element(&self, class: usize, value: &impl Display) -> String {
        match self.names.get(class) {
            Some(name) => format!("{value}:{class}:{name}"),
            None => format!("{value}:{class}"),
        }
    }
}

/// What cannot be compared, which is NaN, goes last.
fn descending<T: PartialOrd>(one: T, other: T) -> Ordering {
    let is_number = |value: &T| value.partial_cmp(value).is_some();
    match (is_number(&one), is_number(&other)) {
        (true, true) => other.partial_cmp(&one).unwrap_or(Ordering::Equal),
        (one, other) => other.cmp(&one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dtype: DType, shape: &[usize], data: &[u8], names: &[&str], expected: &str) {
        let tensor = Tensor::new(dtype, shape, data.to_vec().into()).unwrap();
        let labels = names.iter().map(|&name| name.to_owned()).collect();
        let spec = TensorSpec { name: "y".into(), dtype, shape: None, optional: false, labels };
        let shown = match classes(&tensor, &spec, true, 2) {
            Ok(tensor) => {
                let elements = tensor.bytes_elements().map(String::from_utf8_lossy);
                format!("{:?} {}", tensor.shape(), elements.collect::<Vec<_>>().join(" "))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn the_best_of_each_row() {
        let rows = floats(&[0.25, 0.5, 0.125, 3.0, -1.0, 3.0]);
        check(DType::Fp32, &[2, 3], &rows, &[], "[2, 2] 0.500000:1 0.250000:0 3.000000:0 3.000000:2");
        check(DType::Fp32, &[1, 2, 3], &rows, &["a"], "[1, 2] 3.000000:3 3.000000:5");
        check(DType::Uint8, &[1, 3], &[1, 9, 4], &["a", "b", "c"], "[1, 2] 9:1:b 4:2:c");
        check(DType::Uint8, &[2], &[7, 8], &[], "[2, 1] 7:0 8:0");
        check(DType::Uint8, &[0, 3], &[], &[], "[0, 0] ");
        let nan = floats(&[f32::NAN, -1.0, f32::NAN]);
        check(DType::Fp32, &[1, 3], &nan, &[], "[1, 2] -1.000000:1 NaN:0");
    }

    #[test]
    fn what_has_no_best_is_refused() {
        let refusal =
            "output 'y' is BOOL: classes can be had of integers, FP32 and FP64; ask for the whole output";
        check(DType::Bool, &[1, 1], &[1], &[], refusal);
    }
}
