//! Tensors across the border to ONNX Runtime: numbers without a copy in either direction, strings element by element.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use bytes::{Bytes, BytesMut};
use gristmill_engine::backend::InputView;
use gristmill_engine::error::RunError;
use gristmill_engine::narrow::Narrow;
use gristmill_engine::tensor::{
    DType, Shape, ShapeText, Tensor, TensorSpec, element_count, push_bytes_element,
};
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::sys::{ONNXTensorElementDataType as Element, OrtStatusPtr, OrtValue};
use smallvec::SmallVec;

use crate::element_type;

/// An `OrtValue` that this process owns.
#[derive(Debug)]
pub(crate) struct Value {
    pointer: NonNull<OrtValue>,
}

/// A value whose numbers live in a gathered batch.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    value: Value,
    data: PhantomData<&'a [u8]>,
}

/// A numeric output: bytes inside a value of ONNX Runtime, which lives as long as any slice of them.
struct OutputBytes {
    value: Value,
    length: usize,
}

#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
// SAFETY: an OrtValue has no ties to a thread; it counts its references atomically, and the allocator
// that takes its memory back locks.
unsafe impl Send for Value {}

/// What a call of ONNX Runtime answered.
///
/// # Errors
/// The status is not OK.
#[expect(unsafe_code, reason = "takes ownership of a status pointer")]
pub(crate) fn check(status: OrtStatusPtr) -> Result<(), ort::Error> {
    // SAFETY: statuses come from calls of the runtime's interface only, and each comes here once.
    unsafe { ort::Error::result_from_status(status) }
}

// === impl Input ===

impl<'a> Input<'a> {
    /// Lends `view` to the runtime; strings are copied into it.
    ///
    /// # Errors
    /// The runtime refuses the dtype or the shape, or lacks memory.
    pub(crate) fn lend(view: &InputView<'a>, memory: &MemoryInfo<'_>) -> Result<Input<'a>, ort::Error> {
        let shape: SmallVec<[i64; 4]> = view.shape.iter().map(|&size| size as i64).collect();
        let value = match view.dtype {
            DType::Bytes => strings(&shape, view.data)?,
            dtype => numbers(dtype, &shape, view.data, memory)?,
        };
        Ok(Input { value, data: PhantomData })
    }

    pub(crate) fn pointer(&self) -> *const OrtValue {
        self.value.pointer()
    }
}

#[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
fn numbers(dtype: DType, shape: &[i64], data: &[u8], memory: &MemoryInfo<'_>) -> Result<Value, ort::Error> {
    let mut pointer = ptr::null_mut();
    // SAFETY: all pointers are valid for the call. `data` outlives the value, which `Input` ties to its
    // lifetime, and a runtime reads its inputs but does not write them.
    check(unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            data.as_ptr().cast_mut().cast::<c_void>(),
            data.len(),
            shape.as_ptr(),
            shape.len(),
            element(dtype),
            &mut pointer,
        )
    })?;
    Value::own(pointer).ok_or_else(|| ort::Error::new("CreateTensorWithDataAsOrtValue made nothing"))
}

/// A string tensor. ONNX Runtime keeps any bytes, NUL and invalid UTF-8 included.
#[expect(unsafe_code, reason = "calls of ONNX Runtime's C interface")]
fn strings(shape: &[i64], data: &[u8]) -> Result<Value, ort::Error> {
    let allocator = Allocator::default();
    let mut pointer = ptr::null_mut();
    // SAFETY: all pointers are valid for the call, and the default allocator lives as long as the process.
    check(unsafe {
        (ort::api().CreateTensorAsOrtValue)(
            allocator.ptr().cast_mut(),
            shape.as_ptr(),
            shape.len(),
            Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
            &mut pointer,
        )
    })?;
    let value = Value::own(pointer).ok_or_else(|| ort::Error::new("CreateTensorAsOrtValue made nothing"))?;
    for (index, text) in crate::elements::split(data).enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the value is a string tensor; an index out of its range is refused. The buffer that
        // comes back has room for the length asked for.
        unsafe {
            check((ort::api().GetResizedStringTensorElementBuffer)(
                value.pointer.as_ptr(),
                index,
                text.len(),
                &mut buffer,
            ))?;
            ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len());
        }
    }
    Ok(value)
}

fn element(dtype: DType) -> Element {
    match dtype {
        DType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        DType::Narrow(narrow) => match narrow {
            Narrow::Float8E4m3fn => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN,
            Narrow::Float8E4m3fnuz => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ,
            Narrow::Float8E5m2 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2,
            Narrow::Float8E5m2fnuz => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ,
            Narrow::Uint4 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4,
            Narrow::Int4 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4,
            Narrow::Float4E2m1 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT4E2M1,
        },
    }
}

// === impl Value ===

impl Value {
    /// Takes ownership of a value that the runtime made; `None` for null.
    pub(crate) fn own(pointer: *mut OrtValue) -> Option<Value> {
        NonNull::new(pointer).map(|pointer| Value { pointer })
    }

    fn pointer(&self) -> *const OrtValue {
        self.pointer.as_ptr()
    }

    /// Turns an output into a tensor. Numbers stay where they are, unless that is within one of
    /// `inputs`: a model may hand an input through, and the next batch will overwrite the gathered one.
    ///
    /// # Errors
    /// `Failed` for an output that is not of the promised dtype.
    pub(crate) fn into_tensor(
        self,
        spec: &TensorSpec,
        inputs: &[Option<InputView<'_>>],
    ) -> Result<Tensor, RunError> {
        let failed =
            |reason: &dyn std::fmt::Display| RunError::Failed(format!("output '{}': {reason}", spec.name));
        if !self.has_value().map_err(|error| failed(&error))? {
            return Err(RunError::Input(format!(
                "output '{}' is optional and has no value for this request, which an answer cannot express: ask for \
                 what gives it one",
                spec.name
            )));
        }
        let (element, shape) = self.element_and_shape().map_err(|error| failed(&error))?;
        let element = element_type::of_runtime(element);
        if element_type::dtype(element) != Some(spec.dtype) {
            return Err(failed(&format!(
                "its elements came as ONNX type {}, and the model file promises {}",
                element_type::name(element),
                spec.dtype
            )));
        }
        let elements = element_count(&shape)
            .ok_or_else(|| failed(&format!("the shape {} is impossible", ShapeText(&shape))))?;
        let data = match spec.dtype.size_of(elements) {
            _ if elements == 0 => Bytes::new(),
            Some(length) => self.into_numbers(length, inputs).map_err(|error| failed(&error))?,
            None => self.strings(elements).map_err(|error| failed(&error))?,
        };
        Tensor::new(spec.dtype, shape, data).map_err(|error| failed(&error))
    }

    /// False for an optional output without one.
    #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
    fn has_value(&self) -> Result<bool, ort::Error> {
        let mut has_value = 0;
        // SAFETY: the value is alive; the call only looks at it.
        check(unsafe { (ort::api().HasValue)(self.pointer(), &mut has_value) })?;
        Ok(has_value != 0)
    }

    /// ONNX's number of the element type, and the dimensions.
    #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
    fn element_and_shape(&self) -> Result<(i32, Shape), ort::Error> {
        // As a number, because a newer library may know types that the enum does not.
        let mut element = 0i32;
        let mut dims: *const i64 = ptr::null();
        let mut rank = 0;
        // SAFETY: the enum is `repr(i32)`. The dimensions stay valid while the value lives and are null
        // for a scalar, in which case they are not read.
        let dims = unsafe {
            check((ort::api().GetTensorElementTypeAndShapeDataReference)(
                self.pointer(),
                (&raw mut element).cast::<Element>(),
                &mut dims,
                &mut rank,
            ))?;
            if rank == 0 { &[] } else { slice::from_raw_parts(dims, rank) }
        };
        let shape = dims.iter().map(|&size| usize::try_from(size)).collect::<Result<Shape, _>>();
        Ok((element, shape.map_err(|_| ort::Error::new(format!("the shape {dims:?} is impossible")))?))
    }

    #[expect(unsafe_code, reason = "reads memory that ONNX Runtime owns")]
    fn into_numbers(self, length: usize, inputs: &[Option<InputView<'_>>]) -> Result<Bytes, ort::Error> {
        let start = self.data()?;
        let lent = inputs.iter().flatten().any(|input| {
            let range = input.data.as_ptr_range();
            range.start.cast() < start.wrapping_byte_add(length) && start < range.end.cast()
        });
        if lent {
            // SAFETY: as in `OutputBytes::as_ref`.
            return Ok(Bytes::copy_from_slice(unsafe { slice::from_raw_parts(start.cast::<u8>(), length) }));
        }
        Ok(Bytes::from_owner(OutputBytes { value: self, length }))
    }

    /// Where a numeric tensor's elements are.
    #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
    fn data(&self) -> Result<*const c_void, ort::Error> {
        let mut data = ptr::null_mut();
        // SAFETY: the value is a tensor; the call only reads it.
        check(unsafe { (ort::api().GetTensorMutableData)(self.pointer.as_ptr(), &mut data) })?;
        Ok(data)
    }

    /// The elements of a string tensor in the encoding of [`Tensor`].
    #[expect(unsafe_code, reason = "calls of ONNX Runtime's C interface")]
    fn strings(&self, elements: usize) -> Result<Bytes, ort::Error> {
        let mut length = 0;
        let mut offsets = vec![0usize; elements];
        // SAFETY: the value is a string tensor of `elements` elements; the buffers have the stated lengths.
        let texts = unsafe {
            check((ort::api().GetStringTensorDataLength)(self.pointer(), &mut length))?;
            let mut texts = vec![0u8; length];
            check((ort::api().GetStringTensorContent)(
                self.pointer(),
                texts.as_mut_ptr().cast(),
                length,
                offsets.as_mut_ptr(),
                elements,
            ))?;
            texts
        };
        let mut data = BytesMut::with_capacity(length + 4 * elements);
        offsets.push(length);
        for ends in offsets.windows(2) {
            push_bytes_element(&mut data, &texts[ends[0]..ends[1]])
                .map_err(|error| ort::Error::new(error.to_string()))?;
        }
        Ok(data.freeze())
    }
}

impl Drop for Value {
    #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
    fn drop(&mut self) {
        // SAFETY: the value is owned here and released once.
        unsafe { (ort::api().ReleaseValue)(self.pointer.as_ptr()) }
    }
}

// === impl OutputBytes ===

impl AsRef<[u8]> for OutputBytes {
    #[expect(unsafe_code, reason = "reads memory that ONNX Runtime owns")]
    fn as_ref(&self) -> &[u8] {
        let data = self.value.data().expect("the value gave its data before; this is a bug");
        // SAFETY: a tensor's elements are contiguous and initialised, `length` is their size computed
        // from the value's own dtype and shape, and nobody writes to an output after its run.
        unsafe { slice::from_raw_parts(data.cast::<u8>(), self.length) }
    }
}
