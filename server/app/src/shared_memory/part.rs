//! The part of a region that a tensor is in: found when its request is decoded, and then read or written.

use std::sync::Arc;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;

use super::SharedMemory;
use super::regions::{Fault, Kind, Region};

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
    /// From the beginning of the region.
    offset: u64,
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
        let memory = self.memory.ok_or_else(|| refuse(Fault::Off(Kind::File).to_string()))?;
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
        if offset.checked_add(bytes).is_none_or(|end| end > region.bytes) {
            return Err(refuse(format!(
                "{bytes} bytes from offset {offset} on are not inside shared memory region '{name}', which has {}",
                region.bytes
            )));
        }
        Ok(Part { region, offset, bytes })
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
    fn read(&self, bytes: usize) -> Result<Bytes, String> {
        let mut data = vec![0; bytes];
        self.region.read(self.offset, &mut data)?;
        Ok(data.into())
    }

    fn check(&self, bytes: u64) -> Result<(), String> {
        if bytes > self.bytes {
            return Err(format!(
                "it has {bytes} bytes, its part of shared memory region '{}' has {}: give it more \
                 (shared_memory_byte_size), or ask for fewer rows",
                self.region.name, self.bytes
            ));
        }
        self.region.check(self.offset, bytes)
    }

    fn write(&self, data: &[u8]) -> Result<(), String> {
        self.region.write(self.offset, data)
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
