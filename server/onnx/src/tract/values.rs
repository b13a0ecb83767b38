//! Tensors across the border to tract: copied in, borrowed out, strings as UTF-8.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gristmill_engine::backend::InputView;
use gristmill_engine::error::RunError;
use gristmill_engine::tensor::{DType, ShapeText, Tensor, TensorSpec, push_bytes_element};
use tract_onnx::prelude::tract_ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::{DatumType, IntoArcTensor, IntoTensor, TValue, TractResult};

use tract_onnx::tract_core::internal::format_err;

type TractTensor = tract_onnx::prelude::Tensor;

/// A numeric output that stays where tract computed it.
struct OutputBytes(Arc<TractTensor>);

/// tract's name for a dtype; it has no BF16.
pub(crate) fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::Bool => DatumType::Bool,
        DType::Int8 => DatumType::I8,
        DType::Int16 => DatumType::I16,
        DType::Int32 => DatumType::I32,
        DType::Int64 => DatumType::I64,
        DType::Uint8 => DatumType::U8,
        DType::Uint16 => DatumType::U16,
        DType::Uint32 => DatumType::U32,
        DType::Uint64 => DatumType::U64,
        DType::Fp16 => DatumType::F16,
        DType::Bf16 | DType::Narrow(_) => return None,
        DType::Fp32 => DatumType::F32,
        DType::Fp64 => DatumType::F64,
        DType::Bytes => DatumType::String,
    })
}

/// Copies a gathered input into a tensor of tract's.
///
/// # Errors
/// `Input` for a `BYTES` element that is not UTF-8, which tract's strings must be.
pub(crate) fn input(spec: &TensorSpec, view: &InputView<'_>) -> Result<TValue, RunError> {
    let failed = |error: &dyn std::fmt::Display| RunError::Failed(format!("input '{}': {error}", spec.name));
    let tensor = match view.dtype {
        DType::Bytes => {
            let mut texts = Vec::new();
            for (index, element) in crate::elements::split(view.data).enumerate() {
                let text = std::str::from_utf8(element).map_err(|error| {
                    RunError::Input(format!(
                        "input '{}': element {index} is not UTF-8 ({error}), and tract takes only UTF-8 strings",
                        spec.name
                    ))
                })?;
                texts.push(text.to_owned());
            }
            array(view, texts)
        }
        // A byte that is neither 0 nor 1 is no Rust bool.
        DType::Bool => array(view, view.data.iter().map(|&byte| byte != 0).collect()),
        dtype => numbers(dtype, view),
    };
    tensor.map(TValue::from).map_err(|error| failed(&error))
}

fn array<T: tract_onnx::prelude::Datum>(view: &InputView<'_>, elements: Vec<T>) -> TractResult<TractTensor> {
    Ok(ArrayD::from_shape_vec(IxDyn(view.shape), elements)?.into_tensor())
}

#[expect(unsafe_code, reason = "makes numbers of bytes without a look at each")]
fn numbers(dtype: DType, view: &InputView<'_>) -> TractResult<TractTensor> {
    let datum_type = datum_type(dtype).ok_or_else(|| format_err!("tract has no {dtype}"))?;
    // SAFETY: every bit pattern is a number of these types (BOOL and BYTES went another way); tract
    // checks the length against the shape and aligns its copy.
    unsafe { TractTensor::from_raw_dt(datum_type, view.shape, view.data) }
}

/// Turns an output into a tensor of the promised dtype; tract computes some integers in types of its own.
///
/// # Errors
/// `Failed` for an output that cannot be converted.
pub(crate) fn output(spec: &TensorSpec, value: TValue) -> Result<Tensor, RunError> {
    let failed = |error: &dyn std::fmt::Display| RunError::Failed(format!("output '{}': {error}", spec.name));
    let wanted = datum_type(spec.dtype).ok_or_else(|| failed(&format!("tract has no {}", spec.dtype)))?;
    let value = if value.datum_type() == wanted {
        value.into_arc_tensor()
    } else {
        value.cast_to_dt(wanted).map_err(|error| failed(&error))?.into_owned().into_arc_tensor()
    };
    let shape = value.shape().to_vec();
    let data = match spec.dtype {
        DType::Bytes => strings(&value).map_err(|error| failed(&error))?,
        _ if value.is_plain_ram() => Bytes::from_owner(OutputBytes(value)),
        _ => return Err(failed(&format!("tract keeps {} in a form that cannot be read", ShapeText(&shape)))),
    };
    Tensor::new(spec.dtype, shape.as_slice(), data).map_err(|error| failed(&error))
}

/// Looks up class indices in `labels`.
///
/// # Errors
/// `Failed` for an output that is no tensor of class indices.
pub(crate) fn labels(spec: &TensorSpec, labels: &[String], indices: &TValue) -> Result<Tensor, RunError> {
    let failed = |error: &dyn std::fmt::Display| RunError::Failed(format!("output '{}': {error}", spec.name));
    let indices = indices.cast_to::<i64>().map_err(|error| failed(&error))?;
    let mut texts = Vec::with_capacity(indices.len());
    for &index in indices.to_plain_array_view::<i64>().map_err(|error| failed(&error))? {
        let label = usize::try_from(index).ok().and_then(|index| labels.get(index));
        texts.push(label.ok_or_else(|| failed(&format!("there is no class {index} of {}", labels.len())))?);
    }
    Tensor::from_elements(indices.shape(), texts).map_err(|error| failed(&error))
}

fn strings(tensor: &TractTensor) -> TractResult<Bytes> {
    let mut data = BytesMut::new();
    for text in tensor.to_plain_array_view::<String>()? {
        push_bytes_element(&mut data, text.as_bytes())?;
    }
    Ok(data.freeze())
}

// === impl OutputBytes ===

impl AsRef<[u8]> for OutputBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
