//! The inputs and outputs that a configuration declares, and the arithmetic of `reshape`.

use std::fmt;

use gristmill_engine::tensor::{DType, Shape, element_count};
use gristmill_proto::inference as pb;

use super::batching::Batching;
use super::document::Fault;
use super::{note, relative_path};

/// An input or output as clients are to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredTensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// What clients send and get. Without the rows' axis unless batching is [`Batching::Never`].
    pub(crate) dims: Dims,
    /// What the model takes or gives instead, with as many elements; the rows' axis stays.
    pub(crate) reshape: Option<Dims>,
    /// Requests may leave it out. Always false for outputs.
    pub(crate) optional: bool,
    /// The file with the names of its classes, one a line, relative to the model's directory. Outputs only.
    pub(crate) label_file: Option<String>,
}

/// Dimensions in elements; `None` is any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dims(pub(crate) Vec<Option<usize>>);

/// Checks the declared inputs.
pub(super) fn inputs(
    inputs: &[pb::ModelInput],
    batching: Batching,
    notes: &mut Vec<String>,
) -> Result<Vec<DeclaredTensor>, Fault> {
    let mut declared = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.iter().enumerate() {
        let pb::ModelInput {
            name,
            data_type,
            format,
            dims,
            reshape,
            is_shape_tensor,
            allow_ragged_batch,
            optional,
            is_non_linear_format_io,
        } = input;
        let field = format!("input[{index}]");
        refuse_other_layouts(&field, *is_shape_tensor, *is_non_linear_format_io)?;
        if *allow_ragged_batch {
            let reason = "requests of different shapes are not joined into one batch here; leave it out, and \
                          such requests run one after the other";
            return Err(Fault::new(format!("{field}.allow_ragged_batch"), reason));
        }
        if *format != 0 {
            let name = pb::model_input::Format::try_from(*format).map_or("", |format| format.as_str_name());
            note(notes, format!("{field}.format"), format!("{name} moves no data, and dims say the layout"));
        }
        let tensor = Written { name, data_type: *data_type, dims, reshape };
        declared.push(DeclaredTensor { optional: *optional, ..tensor.read(&field, batching, &declared)? });
    }
    Ok(declared)
}

/// Checks the declared outputs.
pub(super) fn outputs(outputs: &[pb::ModelOutput], batching: Batching) -> Result<Vec<DeclaredTensor>, Fault> {
    let mut declared = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.iter().enumerate() {
        let pb::ModelOutput {
            name,
            data_type,
            dims,
            label_filename,
            reshape,
            is_shape_tensor,
            is_non_linear_format_io,
        } = output;
        let field = format!("output[{index}]");
        refuse_other_layouts(&field, *is_shape_tensor, *is_non_linear_format_io)?;
        let label_file = relative_path(&format!("{field}.label_filename"), label_filename)?;
        let tensor = Written { name, data_type: *data_type, dims, reshape };
        declared.push(DeclaredTensor { label_file, ..tensor.read(&field, batching, &declared)? });
    }
    Ok(declared)
}

/// The dtype of a field that must have one.
pub(super) fn dtype(field: &str, number: i32) -> Result<DType, Fault> {
    let data_type = pb::DataType::try_from(number).unwrap_or(pb::DataType::TypeInvalid);
    Ok(match data_type {
        pb::DataType::TypeInvalid => {
            return Err(Fault::new(format!("{field}.data_type"), "expected a type such as TYPE_FP32"));
        }
        pb::DataType::TypeBool => DType::Bool,
        pb::DataType::TypeUint8 => DType::Uint8,
        pb::DataType::TypeUint16 => DType::Uint16,
        pb::DataType::TypeUint32 => DType::Uint32,
        pb::DataType::TypeUint64 => DType::Uint64,
        pb::DataType::TypeInt8 => DType::Int8,
        pb::DataType::TypeInt16 => DType::Int16,
        pb::DataType::TypeInt32 => DType::Int32,
        pb::DataType::TypeInt64 => DType::Int64,
        pb::DataType::TypeFp16 => DType::Fp16,
        pb::DataType::TypeFp32 => DType::Fp32,
        pb::DataType::TypeFp64 => DType::Fp64,
        pb::DataType::TypeString => DType::Bytes,
        pb::DataType::TypeBf16 => DType::Bf16,
    })
}

fn refuse_other_layouts(field: &str, shape_tensor: bool, non_linear: bool) -> Result<(), Fault> {
    let only_tensorrt = "only TensorRT's own models have that, and ONNX models are served here; leave it out";
    if shape_tensor {
        return Err(Fault::new(format!("{field}.is_shape_tensor"), only_tensorrt));
    }
    if non_linear {
        return Err(Fault::new(format!("{field}.is_non_linear_format_io"), only_tensorrt));
    }
    Ok(())
}

/// What inputs and outputs have in common.
struct Written<'a> {
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    reshape: &'a Option<pb::ModelTensorReshape>,
}

impl Written<'_> {
    fn read(
        &self,
        field: &str,
        batching: Batching,
        before: &[DeclaredTensor],
    ) -> Result<DeclaredTensor, Fault> {
        let name = self.name;
        if name.is_empty() {
            return Err(Fault::new(format!("{field}.name"), "expected the tensor's name in the model file"));
        }
        if before.iter().any(|tensor| tensor.name == name) {
            return Err(Fault::new(format!("{field}.name"), format!("'{name}' comes twice")));
        }
        let dtype = dtype(field, self.data_type)?;
        let dims_field = format!("{field}.dims");
        if self.dims.is_empty() {
            let reason = "expected at least one; where a row is one element write [ 1 ] and an empty reshape";
            return Err(Fault::new(dims_field, reason));
        }
        let dims = Dims::read(&dims_field, self.dims)?;
        let reshape = match self.reshape {
            None => None,
            Some(reshape) => {
                let field = format!("{field}.reshape");
                let shape = Dims::read(&format!("{field}.shape"), &reshape.shape)?;
                if shape.0.is_empty() && batching == Batching::Never {
                    let reason = "an empty shape needs a max_batch_size above 0, whose rows would remain";
                    return Err(Fault::new(field, reason));
                }
                if dims.chunks() != shape.chunks() {
                    let reason = format!("{shape} does not hold the elements of dims {dims}");
                    return Err(Fault::new(field, reason));
                }
                Some(shape)
            }
        };
        Ok(DeclaredTensor { name: name.to_owned(), dtype, dims, reshape, optional: false, label_file: None })
    }
}

// === impl DeclaredTensor ===

impl DeclaredTensor {
    /// Dimensions in the model file, without the rows' axis where `dims` is without it.
    pub(crate) fn model_dims(&self) -> &Dims {
        self.reshape.as_ref().unwrap_or(&self.dims)
    }

    /// The shape that the model takes for one that a client sent; `rows` says that axis 0 counts rows
    /// and stays. `None` where the client's shape is not the declared one.
    pub(crate) fn model_shape(&self, client_shape: &[usize], rows: bool) -> Option<Shape> {
        reshaped(client_shape, rows, &self.dims, self.model_dims())
    }

    /// The shape that a client gets for one that the model gave, as [`DeclaredTensor::model_shape`].
    pub(crate) fn client_shape(&self, model_shape: &[usize], rows: bool) -> Option<Shape> {
        reshaped(model_shape, rows, self.model_dims(), &self.dims)
    }
}

/// `shape`, which must fit `from`, in the form of `to`: the sizes that `from` leaves open go, in their
/// order, to those that `to` leaves open.
fn reshaped(shape: &[usize], rows: bool, from: &Dims, to: &Dims) -> Option<Shape> {
    let (rows, sizes) = if rows { shape.split_at_checked(1)? } else { (&shape[..0], shape) };
    if sizes.len() != from.0.len() {
        return None;
    }
    let mut open = Shape::new();
    for (size, dim) in sizes.iter().zip(&from.0) {
        match dim {
            None => open.push(*size),
            Some(fixed) if fixed == size => {}
            Some(_) => return None,
        }
    }
    let mut open = open.into_iter();
    let mut reshaped = Shape::from_slice(rows);
    for dim in &to.0 {
        reshaped.push((*dim).or_else(|| open.next())?);
    }
    Some(reshaped)
}

// === impl Dims ===

impl Dims {
    fn read(field: &str, dims: &[i64]) -> Result<Dims, Fault> {
        let read = |(index, dim): (usize, &i64)| match usize::try_from(*dim) {
            Ok(size) if size > 0 => Ok(Some(size)),
            _ if *dim == -1 => Ok(None),
            _ => {
                let reason = format!("expected at least 1, or -1 for any size, got {dim}");
                Err(Fault::new(format!("{field}[{index}]"), reason))
            }
        };
        let dims = Dims(dims.iter().enumerate().map(read).collect::<Result<_, _>>()?);
        let fixed: Shape = dims.0.iter().copied().flatten().collect();
        match element_count(&fixed) {
            Some(_) => Ok(dims),
            None => Err(Fault::new(field, format!("{dims} has too many elements"))),
        }
    }

    /// Elements between the dimensions of any size: a reshape keeps each of these counts.
    fn chunks(&self) -> Vec<usize> {
        self.0.split(Option::is_none).map(|chunk| chunk.iter().flatten().product()).collect()
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> =
            self.0.iter().map(|dim| dim.map_or_else(|| "-1".to_owned(), |size| size.to_string())).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}
