//! The data of warm-up samples: one row of an input, repeated along the rows' axis.

use std::fs;
use std::path::Path;

use gristmill_engine::backend::InputView;
use gristmill_engine::tensor::{DType, Shape, element_count};

use super::warm_up::INPUT_BYTES_MAX;
use super::{WarmUpData, WarmUpInput};

/// One row of one input.
pub(super) struct Row {
    pub(super) name: String,
    dtype: DType,
    dims: Vec<usize>,
    data: Vec<u8>,
}

/// Rows at an address that runtimes may read vectors from.
pub(super) struct Rows {
    dtype: DType,
    shape: Shape,
    /// A cache line more than the data needs.
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

/// The directory of a model that has the files of its samples.
const DIRECTORY: &str = "warmup";
const CACHE_LINE: usize = 64;
/// The length in front of each element of a `BYTES` tensor.
const LENGTH_BYTES: usize = 4;

// === impl Row ===

impl Row {
    /// # Errors
    /// A file cannot be read, has another size than its row, or is too large for so many `rows`.
    pub(super) fn read(input: &WarmUpInput, rows: usize, model_directory: &Path) -> Result<Row, String> {
        let WarmUpInput { name, dtype, dims, data } = input;
        let count = element_count(dims).ok_or_else(|| format!("model_warmup input '{name}' is too large"))?;
        // An empty string is a length of zero.
        let bytes = count * dtype.size().unwrap_or(LENGTH_BYTES);
        let data = match data {
            WarmUpData::Zeros => vec![0; bytes],
            WarmUpData::Random => random(*dtype, count),
            WarmUpData::File(file) => {
                let path = model_directory.join(DIRECTORY).join(file);
                let data =
                    fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                if dtype.size().is_some() && data.len() != bytes {
                    let got = data.len();
                    return Err(format!(
                        "{} has {got} bytes: expected {bytes}, one row of '{name}'",
                        path.display()
                    ));
                }
                if data.len().saturating_mul(rows) > INPUT_BYTES_MAX {
                    let got = data.len();
                    return Err(format!(
                        "{} has {got} bytes, for each of {rows} rows: expected {INPUT_BYTES_MAX} together at most",
                        path.display()
                    ));
                }
                data
            }
        };
        Ok(Row { name: name.clone(), dtype: *dtype, dims: dims.clone(), data })
    }

    /// The row so many times, along an axis of their own; alone without one.
    pub(super) fn repeated(&self, rows: Option<usize>) -> Rows {
        let length = self.data.len() * rows.unwrap_or(1);
        let mut buffer = vec![0; length + CACHE_LINE];
        let start = buffer.as_ptr().align_offset(CACHE_LINE);
        if !self.data.is_empty() {
            for part in buffer[start..start + length].chunks_exact_mut(self.data.len()) {
                part.copy_from_slice(&self.data);
            }
        }
        let shape = rows.into_iter().chain(self.dims.iter().copied()).collect();
        Rows { dtype: self.dtype, shape, buffer, start, length }
    }
}

// === impl Rows ===

impl Rows {
    pub(super) fn view(&self) -> InputView<'_> {
        let data = &self.buffer[self.start..self.start + self.length];
        InputView { dtype: self.dtype, shape: &self.shape, data }
    }
}

/// Floats from 0.5 to 1, whole numbers from 0 to 127, truth values, empty strings.
fn random(dtype: DType, count: usize) -> Vec<u8> {
    // Knuth's MMIX generator: any numbers do, as long as they are not all alike.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 11
    };
    let mut data = Vec::new();
    for _ in 0..count {
        let bits = next();
        // A float with the exponent of 0.5 and any mantissa.
        match dtype {
            DType::Fp64 => {
                data.extend((0x3fe0_0000_0000_0000 | (bits & 0x000f_ffff_ffff_ffff)).to_le_bytes())
            }
            DType::Fp32 => data.extend((0x3f00_0000 | (bits as u32 & 0x007f_ffff)).to_le_bytes()),
            DType::Fp16 => data.extend((0x3800 | (bits as u16 & 0x03ff)).to_le_bytes()),
            DType::Bf16 => data.extend((0x3f00 | (bits as u16 & 0x007f)).to_le_bytes()),
            DType::Bool => data.push(bits as u8 & 1),
            DType::Bytes => data.extend([0; LENGTH_BYTES]),
            _ => {
                let size = dtype.size().unwrap_or(1);
                data.extend(&(bits & 0x7f).to_le_bytes()[..size]);
            }
        }
    }
    data
}
