//! Proves before a version serves that rows may be stacked: runs sample rows alone and together and compares.

use std::ops::Range;

use crate::backend::{InputView, Instance};
use crate::error::RunError;
use crate::gather::Gather;
use crate::request::Inputs;
use crate::tensor::{
    BatchAxis, DType, Dim, Shape, ShapeText, Signature, Tensor, TensorSpec, push_bytes_element,
};

/// Sizes tried for dynamic dimensions other than the batch axis, until a sample run succeeds:
/// convolutions and poolings need some room, and 224 is what image models are usually made for.
const DYNAMIC_SIZES: [usize; 4] = [16, 64, 1, 224];

/// Rows in the stacked run. Three, so that a model that pairs neighbours is caught as well.
const ROWS: usize = 3;

/// A model's inputs for `rows` rows, made up.
pub(crate) struct Sample {
    inputs: Inputs,
    rows: Option<usize>,
}

/// How a sample is made up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// The size of dynamic dimensions other than the batch axis.
    dynamic_size: usize,
    /// All zeros and empty strings, for models that refuse arbitrary values.
    plain: bool,
}

/// What the proof found.
pub(crate) struct Proof {
    pub(crate) batch: BatchAxis,
    /// Samples made in this way run; `None` when none did.
    pub(crate) recipe: Option<Recipe>,
    /// What was found, for people.
    pub(crate) note: String,
}

/// Runs samples on `instance` and decides whether the model may be batched.
pub(crate) fn prove(signature: &Signature, instance: &mut dyn Instance) -> Proof {
    let mut failure = String::new();
    for dynamic_size in DYNAMIC_SIZES {
        for plain in [false, true] {
            let recipe = Recipe { dynamic_size, plain };
            match Sample::new(signature, 0..1, recipe).run(instance) {
                Ok(_) => return compare(signature, instance, recipe),
                Err(error) if failure.is_empty() => failure = error.to_string(),
                Err(_) => {}
            }
        }
        if !has_dynamic_dims(signature) {
            break;
        }
    }
    let note = format!("sample inputs do not run: {failure}");
    let batch = match &signature.batch {
        BatchAxis::Rows => BatchAxis::None { reason: format!("not proved, {note}") },
        none => none.clone(),
    };
    Proof { batch, recipe: None, note }
}

fn compare(signature: &Signature, instance: &mut dyn Instance, recipe: Recipe) -> Proof {
    if let BatchAxis::None { reason } = &signature.batch {
        let note = format!("not batched: {reason}");
        return Proof { batch: signature.batch.clone(), recipe: Some(recipe), note };
    }
    let refuse = |reason: String| {
        let note = format!("not batched: {reason}");
        Proof { batch: BatchAxis::None { reason }, recipe: Some(recipe), note }
    };
    let mut alone = Vec::new();
    for row in 0..ROWS {
        match Sample::new(signature, row..row + 1, recipe).run(instance) {
            Ok(outputs) => alone.push(outputs),
            Err(error) => return refuse(format!("sample row {row} does not run: {error}")),
        }
    }
    let together = match Sample::new(signature, 0..ROWS, recipe).run(instance) {
        Ok(outputs) => outputs,
        Err(error) => return refuse(format!("{ROWS} rows do not run together: {error}")),
    };
    for (index, spec) in signature.outputs.iter().enumerate() {
        let Some(stacked) = together.get(index) else {
            return refuse(format!("output '{}' is missing from a run", spec.name));
        };
        if stacked.shape().first() != Some(&ROWS) {
            return refuse(format!(
                "output '{}' has shape {} for {ROWS} rows: its first dimension does not count rows",
                spec.name,
                ShapeText(stacked.shape())
            ));
        }
        for (row, outputs) in alone.iter().enumerate() {
            let single = &outputs[index];
            if single.shape().first() != Some(&1) {
                return refuse(format!(
                    "output '{}' has shape {} for one row: its first dimension does not count rows",
                    spec.name,
                    ShapeText(single.shape())
                ));
            }
            if let Some(difference) = difference(single, &stacked.rows(row..row + 1)) {
                return refuse(format!(
                    "output '{}' of row {row} depends on the other rows of its batch: {difference}",
                    spec.name
                ));
            }
        }
    }
    let note = format!("batch axis 0, proved: {ROWS} sample rows give the same outputs alone and together");
    Proof { batch: BatchAxis::Rows, recipe: Some(recipe), note }
}

fn has_dynamic_dims(signature: &Signature) -> bool {
    let skip = usize::from(signature.is_batched());
    signature.inputs.iter().any(|spec| match &spec.shape {
        None => true,
        Some(dims) => dims.iter().skip(skip).any(|dim| matches!(dim, Dim::Dynamic(_))),
    })
}

// === impl Sample ===

impl Sample {
    /// Rows `rows` of an endless made-up data set: the same row has the same values in every sample.
    pub(crate) fn new(signature: &Signature, rows: Range<usize>, recipe: Recipe) -> Sample {
        let batched = signature.is_batched();
        let inputs = signature
            .inputs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                if spec.optional {
                    return None;
                }
                Some(sample_tensor(spec, index, &rows, batched, recipe))
            })
            .collect();
        Sample { inputs, rows: batched.then_some(rows.len()) }
    }

    pub(crate) fn run(&self, instance: &mut dyn Instance) -> Result<Vec<Tensor>, RunError> {
        // Tensors own unaligned memory; instances are promised 64 bytes.
        let mut gather = Gather::default();
        gather.fill(std::iter::once(&self.inputs), self.rows);
        let views: Vec<Option<InputView<'_>>> = gather.views(&self.inputs).collect();
        instance.run(&views)
    }
}

fn sample_tensor(
    spec: &TensorSpec,
    input: usize,
    rows: &Range<usize>,
    batched: bool,
    recipe: Recipe,
) -> Tensor {
    let dims = spec.shape.as_deref().unwrap_or(&[]);
    let mut shape: Shape = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => recipe.dynamic_size,
        })
        .collect();
    let row_elements: usize = shape.iter().skip(usize::from(batched)).product();
    if batched {
        shape[0] = rows.len();
    }
    let rows = if batched { rows.clone() } else { 0..1 };
    let mut data = bytes::BytesMut::new();
    for row in rows {
        for element in 0..row_elements {
            let noise = if recipe.plain { 0 } else { mix(row as u64, input as u64, element as u64) };
            push_element(&mut data, spec.dtype, row, noise, recipe.plain);
        }
    }
    Tensor::new(spec.dtype, shape, data.freeze())
        .expect("the sample has the elements of its shape; this is a bug")
}

/// Rows differ in scale as well as in values, so that a mean or a maximum over the batch shows.
fn push_element(data: &mut bytes::BytesMut, dtype: DType, row: usize, noise: u64, plain: bool) {
    use bytes::BufMut;
    let scale = [1.0, 0.25, 3.0][row % 3];
    let unit = (noise >> 40) as f64 / (1u64 << 24) as f64;
    let real = if plain { 0.0 } else { (unit * 2.0 - 1.0) * scale };
    // Small whole numbers are valid indices for most models that take indices.
    let whole = (noise >> 63) as u8;
    match dtype {
        DType::Bool | DType::Int8 | DType::Uint8 => data.put_u8(whole),
        DType::Int16 | DType::Uint16 => data.put_u16_le(whole.into()),
        DType::Int32 | DType::Uint32 => data.put_u32_le(whole.into()),
        DType::Int64 | DType::Uint64 => data.put_u64_le(whole.into()),
        DType::Fp16 => data.put_slice(&half::f16::from_f64(real).to_le_bytes()),
        DType::Bf16 => data.put_slice(&half::bf16::from_f64(real).to_le_bytes()),
        DType::Fp32 => data.put_f32_le(real as f32),
        DType::Fp64 => data.put_f64_le(real),
        DType::Bytes => {
            let text: &[u8] = if plain { b"" } else { [b"0".as_slice(), b"1"][usize::from(whole)] };
            push_bytes_element(data, text).expect("a one-byte element fits; this is a bug");
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) over the element's coordinates.
fn mix(row: u64, input: u64, element: u64) -> u64 {
    let mut z = (row << 48) ^ (input << 32) ^ element;
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first element in which two tensors differ by more than rounding, in words.
///
/// Kernels may sum in another order for another batch size, so floats are compared within
/// 0.1 % (1 % for half precision) of the larger magnitude plus a thousandth.
fn difference(alone: &Tensor, together: &Tensor) -> Option<String> {
    if alone.shape() != together.shape() {
        return Some(format!(
            "shape {} alone, {} together",
            ShapeText(alone.shape()),
            ShapeText(together.shape())
        ));
    }
    let relative = match alone.dtype() {
        DType::Fp16 | DType::Bf16 => 1e-2,
        DType::Fp32 | DType::Fp64 => 1e-3,
        _ => return (alone.data() != together.data()).then(|| "the values differ".to_owned()),
    };
    let pairs = floats(alone).into_iter().zip(floats(together));
    for (element, (a, b)) in pairs.enumerate() {
        let same = a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= 1e-3 * relative + relative * a.abs().max(b.abs());
        if !same {
            return Some(format!("element {element} is {a} alone and {b} together"));
        }
    }
    None
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let data = tensor.data();
    match tensor.dtype() {
        DType::Fp16 => data.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f64()).collect(),
        DType::Bf16 => data.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f64()).collect(),
        DType::Fp32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
        DType::Fp64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        _ => Vec::new(),
    }
}
