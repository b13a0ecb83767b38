//! `golden.npz`: which array of numpy's archive is what.

use std::io::{Cursor, Read};

use gristmill_engine::golden::{GoldenCase, Tolerance};
use gristmill_engine::tensor::{DType, Tensor};
use zip::ZipArchive;

use super::draft::{Draft, add};
use super::{BYTES_MAX, npy};

/// What an array's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// `None` in an archive of one case.
    pub(super) case: Option<&'a str>,
    pub(super) part: Part<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Input(&'a str),
    Output(&'a str),
    /// Of these bounds.
    Tolerance(&'static [&'static str]),
}

/// The cases of the archive that errors call `label`.
///
/// # Errors
/// The bytes are no archive of numpy's, or it does not hold what golden inputs must.
pub fn parse(bytes: &[u8], label: &str) -> Result<Vec<GoldenCase>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| format!("it is no archive of numpy's savez: {error}"))?;
    // In the archive's order, which is that of the arguments of `savez`.
    let mut cases: Vec<(Option<String>, Draft)> = Vec::new();
    let mut left = BYTES_MAX;
    for index in 0..archive.len() {
        let unreadable = |error| format!("member {index} of the archive cannot be read: {error}");
        let mut file = archive.by_index(index).map_err(unreadable)?;
        let file_name = file.name().map_err(unreadable)?.into_owned();
        let Some(name) = file_name.strip_suffix(".npy") else {
            return Err(format!("'{file_name}' is no array: expected what numpy's savez writes"));
        };
        let key = Key::parse(name)?;
        let mut content = Vec::new();
        let read = (&mut file).take(left + 1).read_to_end(&mut content);
        read.map_err(|error| format!("array '{name}' cannot be unpacked: {error}"))?;
        left = left.checked_sub(content.len() as u64).ok_or_else(|| {
            format!(
                "its arrays are larger than {BYTES_MAX} bytes, the most for golden inputs: keep fewer rows"
            )
        })?;
        let tensor = npy::parse(&content).map_err(|problem| format!("array '{name}': {problem}"))?;
        let position = cases.iter().position(|(case, _)| case.as_deref() == key.case);
        let position = position.unwrap_or_else(|| {
            let name = key.case.map(str::to_owned);
            cases.push((name.clone(), Draft { name, ..Draft::default() }));
            cases.len() - 1
        });
        put(&mut cases[position].1, &key.part, tensor)
            .map_err(|problem| format!("array '{name}': {problem}"))?;
    }
    finish(cases, label)
}

fn put(draft: &mut Draft, part: &Part<'_>, tensor: Tensor) -> Result<(), String> {
    match part {
        Part::Input(name) => add(draft.inputs.get_or_insert_default(), name, tensor),
        Part::Output(name) => add(draft.outputs.get_or_insert_default(), name, tensor),
        Part::Tolerance(bounds) => {
            let value = number(&tensor)?;
            bounds.iter().try_for_each(|bound| draft.set_bound(bound, value))
        }
    }
}

/// A tolerance without a case before it is for those that have none, or else of the archive's one case.
fn finish(cases: Vec<(Option<String>, Draft)>, label: &str) -> Result<Vec<GoldenCase>, String> {
    let mut default = Tolerance::default();
    let (alone, named): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(case, _)| case.is_none());
    let alone = alone.into_iter().next().map(|(_, draft)| draft);
    if named.is_empty() {
        return Ok(vec![alone.unwrap_or_default().finish(label, None, default)?]);
    }
    if let Some(alone) = alone {
        if !alone.is_bare() {
            return Err("some arrays have the name of a case before 'inputs/' or 'outputs/' and some have \
                        none: give each case a name"
                .into());
        }
        default.absolute = alone.absolute.unwrap_or(default.absolute);
        default.relative = alone.relative.unwrap_or(default.relative);
    }
    let numbered = named.into_iter().zip(1..);
    numbered.map(|((_, draft), number)| draft.finish(label, Some(number), default)).collect()
}

/// The one number of an array.
fn number(tensor: &Tensor) -> Result<f64, String> {
    let data = tensor.data().as_ref();
    let value = match tensor.dtype() {
        DType::Fp64 => data.try_into().ok().map(f64::from_le_bytes),
        DType::Fp32 => data.try_into().ok().map(f32::from_le_bytes).map(f64::from),
        DType::Int64 => data.try_into().ok().map(i64::from_le_bytes).map(|whole| whole as f64),
        _ => None,
    };
    value.ok_or_else(|| format!("expected one number, FP64, FP32 or INT64, got {tensor:?}"))
}

// === impl Key ===

impl<'a> Key<'a> {
    /// # Errors
    /// The name says neither an input nor an output nor a tolerance.
    pub(super) fn parse(name: &'a str) -> Result<Key<'a>, String> {
        if let Some(part) = Part::parse(name) {
            return Ok(Key { case: None, part });
        }
        // Tensors may have slashes in their names, cases may not.
        let of_case = name.split_once('/').and_then(|(case, rest)| Some((case, Part::parse(rest)?)));
        let (case, part) = of_case.ok_or_else(|| {
            format!(
                "the name of array '{name}' does not say what it is: expected 'inputs/<input>', \
                 'outputs/<output>' or 'tolerance', with '<case>/' in front where there are several cases"
            )
        })?;
        Ok(Key { case: Some(case), part })
    }
}

impl<'a> Part<'a> {
    fn parse(name: &'a str) -> Option<Part<'a>> {
        match name.split_once('/') {
            Some(("inputs", input)) => Some(Part::Input(input)),
            Some(("outputs", output)) => Some(Part::Output(output)),
            Some(("tolerance", "absolute")) => Some(Part::Tolerance(&["absolute"])),
            Some(("tolerance", "relative")) => Some(Part::Tolerance(&["relative"])),
            None if name == "tolerance" => Some(Part::Tolerance(&["absolute", "relative"])),
            _ => None,
        }
    }
}
