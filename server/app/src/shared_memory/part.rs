//! The part of a region that a tensor is in: found when its request is decoded, and then read or written.

use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;

use super::SharedMemory;
use super::regions::{Fault, Region, RegionStatus};

/// What a tensor's parameters say, in their own names: `shared_memory_region`, `shared_memory_byte_size` and
/// `shared_memory_offset`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) region: Option<String>,
    pub(crate) byte_size: Option<u64>,
    /// From the beginning of the region; 0 if left out.
    pub(crate) offset: Option<u64>,
}

/// What the tensors of one request may be looked up in.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    memory: Option<&'a SharedMemory>,
    /// Bytes that its inputs may have together, and how many of them are left.
    bytes_max: usize,
    bytes_left: usize,
    /// The flag that says how many.
    flag: &'static str,
}

/// Bytes of a region.
#[derive(Clone, Debug)]
pub struct Part {
    region: Arc<Region>,
    /// From the beginning of the file.
    start: u64,
    bytes: u64,
}

/// An output that is answered in shared memory.
#[derive(Clone, Debug)]
pub struct PlacedOutput {
    /// Its place among those that the request asks for.
    pub output: usize,
    pub part: Part,
}

// === impl Place ===

impl Place {
    /// Whether any of the parameters is there.
    pub(crate) fn is_said(&self) -> bool {
        self.region.is_some() || self.byte_size.is_some() || self.offset.is_some()
    }
}

// === impl Reach ===

impl<'a> Reach<'a> {
    /// Nothing is looked up where `memory` is missing. Inputs in shared memory count like those of a message, of
    /// which `flag` allows `bytes_max`: one region may be named by any number of inputs.
    pub(crate) fn new(memory: Option<&'a SharedMemory>, bytes_max: usize, flag: &'static str) -> Reach<'a> {
        Reach { memory, bytes_max, bytes_left: bytes_max, flag }
    }

    /// For requests that have nothing in shared memory.
    pub(crate) fn nothing() -> Reach<'static> {
        Reach::new(None, 0, "")
    }

    /// The part that `place` means, for `tensor`, by which errors name it.
    ///
    /// # Errors
    /// It is switched off, a parameter is missing, there is no such region, or the part is not inside of it.
    pub(crate) fn find(&self, tensor: &str, place: Place) -> Result<Part, InferError> {
        let refuse = |why: String| InferError::InvalidInput(format!("{tensor}: {why}"));
        let memory = self.memory.ok_or_else(|| refuse(Fault::Off.to_string()))?;
        let missing = |name: &str| {
            refuse(format!(
                "parameter '{name}' is missing: a tensor in shared memory has it besides the others"
            ))
        };
        let name = place.region.ok_or_else(|| missing("shared_memory_region"))?;
        let bytes = place.byte_size.ok_or_else(|| missing("shared_memory_byte_size"))?;
        let offset = place.offset.unwrap_or(0);
        let region = memory.find(&name).ok_or_else(|| {
            refuse(format!("no shared memory region '{name}' is registered: register it before the request"))
        })?;
        let RegionStatus { offset: first, bytes: length, .. } = region.status;
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            return Err(refuse(format!(
                "{bytes} bytes from offset {offset} on are not inside shared memory region '{name}', which has {length}"
            )));
        }
        // The end of the region is inside of a file, so this does not overflow.
        Ok(Part { region, start: first + offset, bytes })
    }

    /// A copy of what is in the part that `place` means.
    ///
    /// # Errors
    /// As [`Reach::find`], and for more bytes than a request may have, or than the file still has.
    pub(crate) fn read(&mut self, tensor: &str, place: Place) -> Result<Bytes, InferError> {
        let part = self.find(tensor, place)?;
        let bytes = usize::try_from(part.bytes).unwrap_or(usize::MAX);
        let Some(left) = self.bytes_left.checked_sub(bytes) else {
            return Err(InferError::TooLarge(format!(
                "{tensor} has {bytes} bytes in shared memory, where the inputs of one request may have {} together: \
                 send fewer rows in a request, or raise {}",
                self.bytes_max, self.flag
            )));
        };
        self.bytes_left = left;
        part.read(bytes).map_err(|why| InferError::InvalidInput(format!("{tensor}: {why}")))
    }
}

// === impl Part ===

impl Part {
    pub(crate) fn region(&self) -> &str {
        &self.region.status.name
    }

    /// From the beginning of the region.
    pub(crate) fn offset(&self) -> u64 {
        self.start - self.region.status.offset
    }

    fn read(&self, bytes: usize) -> Result<Bytes, String> {
        let mut data = vec![0; bytes];
        match self.region.file.read_exact_at(&mut data, self.start) {
            Ok(()) => Ok(data.into()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.cut_short(self.start + self.bytes))
            }
            Err(error) => Err(format!("cannot read shared memory region '{}': {error}", self.region())),
        }
    }

    fn check(&self, bytes: u64) -> Result<(), String> {
        if bytes > self.bytes {
            return Err(format!(
                "it has {bytes} bytes, its part of shared memory region '{}' has {}: give it more \
                 (shared_memory_byte_size), or ask for fewer rows",
                self.region(),
                self.bytes
            ));
        }
        // A write behind the end would make the file longer. A client that truncates its file just now finds it
        // so, at most as long as it was when it was registered.
        match self.region.file.metadata() {
            Ok(metadata) if metadata.len() < self.start + bytes => Err(self.cut_short(self.start + bytes)),
            _ => Ok(()),
        }
    }

    fn write(&self, data: &[u8]) -> Result<(), String> {
        let written = self.region.file.write_all_at(data, self.start);
        written.map_err(|error| format!("cannot write to shared memory region '{}': {error}", self.region()))
    }

    fn cut_short(&self, end: u64) -> String {
        let RegionStatus { name, key, .. } = &self.region.status;
        let length = self.region.file.metadata().map_or(0, |metadata| metadata.len());
        format!(
            "the file of shared memory region '{name}' (key '{key}') was truncated after it was registered: it has \
             {length} bytes, expected {end} at least"
        )
    }
}

/// Writes the outputs that are wanted in shared memory, all or, where one does not fit, none.
///
/// # Errors
/// `InvalidInput` that names the output.
pub(crate) fn write_outputs(response: &Response, placed: &[PlacedOutput]) -> Result<(), InferError> {
    let signature = &response.model.signature;
    let with_data = || {
        placed.iter().filter_map(|placed| {
            let (index, tensor) = response.outputs.get(placed.output)?;
            Some((signature.outputs[*index].name.as_str(), &placed.part, tensor.data()))
        })
    };
    let refuse = |name: &str, why: String| InferError::InvalidInput(format!("output '{name}': {why}"));
    for (name, part, data) in with_data() {
        part.check(data.len() as u64).map_err(|why| refuse(name, why))?;
    }
    for (name, part, data) in with_data() {
        part.write(data).map_err(|why| refuse(name, why))?;
    }
    Ok(())
}
