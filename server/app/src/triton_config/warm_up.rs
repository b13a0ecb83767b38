//! `model_warmup`: the samples that every instance is to run before it serves.

use std::collections::BTreeMap;

use gristmill_engine::tensor::{DType, element_count};
use gristmill_proto::inference as pb;
use pb::model_warmup::input::InputDataType;

use super::batching::Batching;
use super::document::Fault;
use super::tensors::dtype;
use super::{note, relative_path};

/// Most bytes of an input with all its rows: they are made, or read, before anything is known of the model's memory.
pub(super) const INPUT_BYTES_MAX: usize = 256 << 20;

/// One request to run, several times where `runs` says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WarmUpSample {
    pub(crate) name: String,
    /// How often the same row is repeated along the rows' axis; 1 without one.
    pub(crate) rows: usize,
    pub(crate) runs: usize,
    /// In the order of their names.
    pub(crate) inputs: Vec<WarmUpInput>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WarmUpInput {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    /// In elements, as clients see the input, without the rows' axis where there is one.
    pub(crate) dims: Vec<usize>,
    pub(crate) data: WarmUpData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WarmUpData {
    Zeros,
    /// Never for `BYTES`, whose elements are empty strings then.
    Random,
    /// A file in the directory `warmup` of the model, with the raw elements of one row.
    File(String),
}

/// Checks the samples. One with a `batch_size` of 0 is left out, as Triton does.
pub(super) fn warm_up(
    samples: &[pb::ModelWarmup],
    batching: Batching,
    notes: &mut Vec<String>,
) -> Result<Vec<WarmUpSample>, Fault> {
    let rows_max = match batching {
        Batching::Never => 1,
        Batching::UpTo(rows) => rows,
        Batching::Derived => usize::MAX,
    };
    let mut checked = Vec::with_capacity(samples.len());
    for (index, sample) in samples.iter().enumerate() {
        let pb::ModelWarmup { name, batch_size, inputs, count } = sample;
        let field = format!("model_warmup[{index}]");
        let rows = *batch_size as usize;
        if rows == 0 {
            note(notes, field, "its batch_size is 0; write 1 to have it run");
            continue;
        }
        if rows > rows_max {
            let reason = format!("expected at most {rows_max}, by max_batch_size, got {rows}");
            return Err(Fault::new(format!("{field}.batch_size"), reason));
        }
        let mut read = Vec::with_capacity(inputs.len());
        for (name, written) in inputs.iter().collect::<BTreeMap<_, _>>() {
            read.push(input(format!("{field}.inputs[{name}]"), name, written, rows)?);
        }
        checked.push(WarmUpSample { name: name.clone(), rows, runs: (*count).max(1) as usize, inputs: read });
    }
    Ok(checked)
}

fn input(
    field: String,
    name: &str,
    written: &pb::model_warmup::Input,
    rows: usize,
) -> Result<WarmUpInput, Fault> {
    let pb::model_warmup::Input { data_type, dims, input_data_type } = written;
    let dtype = dtype(&field, *data_type)?;
    let sizes: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let sizes = sizes.ok_or_else(|| {
        Fault::new(format!("{field}.dims"), "expected the size of each dimension, at least 0")
    })?;
    let bytes = element_count(&sizes)
        .and_then(|elements| elements.checked_mul(rows))
        .and_then(|elements| elements.checked_mul(dtype.size().unwrap_or(4)));
    if bytes.is_none_or(|bytes| bytes > INPUT_BYTES_MAX) {
        let reason = format!(
            "expected at most {INPUT_BYTES_MAX} bytes with all rows of the sample, got {} of {sizes:?} by {rows}",
            dtype.name()
        );
        return Err(Fault::new(format!("{field}.dims"), reason));
    }
    // Triton looks at which of the three is given, not at whether it says true.
    let data = match input_data_type {
        Some(InputDataType::ZeroData(_)) => WarmUpData::Zeros,
        Some(InputDataType::RandomData(_)) if dtype == DType::Bytes => WarmUpData::Zeros,
        Some(InputDataType::RandomData(_)) => WarmUpData::Random,
        Some(InputDataType::InputDataFile(file)) => {
            let field = format!("{field}.input_data_file");
            match relative_path(&field, file)? {
                Some(file) => WarmUpData::File(file),
                None => return Err(Fault::new(field, "expected the name of a file in the directory warmup")),
            }
        }
        None => {
            return Err(Fault::new(field, "expected one of zero_data, random_data and input_data_file"));
        }
    };
    Ok(WarmUpInput { name: name.to_owned(), dtype, dims: sizes, data })
}
