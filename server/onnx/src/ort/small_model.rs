//! Small models: what keeps their sessions small where thousands of them are served.
//!
//! A session keeps what optimising its model took for as long as it lives. One that is built from the optimised form,
//! without optimising again, runs the same operators and keeps 77 KB instead of 138 KB for a model of 2 KB (ONNX
//! Runtime 1.31.1). An arena keeps at least 37 KB, 32 KB of them to keep account of its first megabyte, and is no
//! faster than the system's allocator where a run needs little. Building such a session takes twice as long, some 2 ms,
//! and the optimised form of a large model would be another copy of its weights, so this is for small ones alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

use gristmill_engine::tensor::{Dim, Signature, TensorSpec};
use ort::session::builder::SessionBuilder;

use crate::graph::ModelFile;

/// How large a small model's file is at most.
const FILE_MAX_BYTES: usize = 64 << 10;
/// How large its optimised form may be: folded constants can be much larger than what they were made of.
const OPTIMIZED_MAX_BYTES: u64 = 1 << 20;
/// How much a row of its inputs and outputs may need for sessions without an arena. Larger blocks come from the system,
/// which clears their pages in each run.
const ROW_MAX_BYTES: usize = 4 << 10;

pub(super) fn is_small(file: &ModelFile) -> bool {
    file.bytes.len() <= FILE_MAX_BYTES && !file.has_external_data
}

/// Whether all that a row has is known to be little. The first axis may count rows; other sizes are to be fixed.
pub(super) fn has_small_rows(signature: &Signature) -> bool {
    let specs = signature.inputs.iter().chain(&signature.outputs);
    specs
        .map(row_bytes)
        .try_fold(0, |sum: usize, bytes| sum.checked_add(bytes?))
        .is_some_and(|bytes| bytes <= ROW_MAX_BYTES)
}

/// `None` where the file does not tell.
fn row_bytes(spec: &TensorSpec) -> Option<usize> {
    let elements =
        spec.shape.as_ref()?.iter().enumerate().try_fold(1, |elements: usize, (axis, dim)| match dim {
            Dim::Fixed(size) => elements.checked_mul(*size),
            Dim::Dynamic(_) if axis == 0 => Some(elements),
            Dim::Dynamic(_) => None,
        })?;
    spec.dtype.size_of(elements)
}

/// `file` as sessions of `builder` optimise it. `None` where it cannot be had: the model does not load, the system has no
/// files in memory, or the form is large.
pub(super) fn optimized(builder: SessionBuilder, file: &ModelFile) -> Option<Vec<u8>> {
    let mut saved = memory_file().ok()?;
    // The runtime writes to a file that it is given the name of.
    let path = format!("/proc/self/fd/{}", saved.as_raw_fd());
    builder.with_optimized_model_path(path).ok()?.commit_from_memory(&file.bytes).ok()?;
    let length = saved.metadata().ok()?.len();
    if length == 0 || length > OPTIMIZED_MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
    saved.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A file without a name, in memory.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no such call")]
fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string, which the call copies.
    let descriptor = unsafe { libc::memfd_create(c"optimized-model".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gristmill_engine::tensor::{BatchAxis, DType};
    use ort::session::Session;
    use ort::session::builder::GraphOptimizationLevel;

    use super::super::tests::{artifact, library};
    use super::*;
    use crate::graph::decode;

    fn read(name: &str) -> ModelFile {
        ModelFile::read(&artifact(name).path).unwrap()
    }

    #[test]
    fn the_optimized_form_has_the_operators_that_a_session_runs() {
        let Some(library) = library() else { return };
        let builder = Session::builder(&library.environment).unwrap();
        let builder = builder.with_optimization_level(GraphOptimizationLevel::All).unwrap();
        let bytes = optimized(builder, &read("mlp")).expect("an optimized form");
        let graph = decode(Path::new("mlp"), &bytes).unwrap().graph.unwrap();
        let operators: Vec<_> = graph.nodes.iter().map(|node| node.operator.as_str()).collect();
        assert!(operators.contains(&"FusedGemm"), "{operators:?}");
    }

    #[test]
    fn weights_beside_the_file_are_not_copied_into_it() {
        assert!(is_small(&read("mlp")));
        assert!(!is_small(&read("external_data")));
    }

    #[test]
    fn rows_are_small_where_their_sizes_are_known() {
        let check = |shape: Option<Vec<Dim>>, expected| {
            let (dtype, name) = (DType::Fp32, "x".to_owned());
            let spec = TensorSpec { name, dtype, shape, optional: false, labels: Vec::new() };
            let signature =
                Signature { inputs: vec![spec.clone()], outputs: vec![spec], batch: BatchAxis::Rows };
            assert_eq!(has_small_rows(&signature), expected, "{signature:?}");
        };
        let any = || Dim::Dynamic(None);
        check(Some(vec![any(), Dim::Fixed(512)]), true);
        check(Some(vec![any(), Dim::Fixed(513)]), false);
        check(Some(vec![Dim::Fixed(64), Dim::Fixed(8)]), true);
        check(Some(vec![any(), any()]), false);
        check(Some(vec![any(), Dim::Fixed(usize::MAX), Dim::Fixed(2)]), false);
        check(None, false);
    }
}
