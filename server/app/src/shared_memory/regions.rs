//! Which memory is registered by which names, and how much there may be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use gristmill_engine::error::InferError;
use tonic::Code;

use super::cuda::{DeviceMemory, Driver};
use super::files::SharedFile;
use crate::status::{grpc_code, http_status};

/// Regions that are registered at the same time. Each keeps a file open, or an allocation of a GPU mapped.
pub(crate) const REGIONS_MAX: usize = 256;
/// Longest region.
pub(crate) const REGION_BYTES_MAX: u64 = 16 << 30;
/// Longest name of a region.
const NAME_BYTES_MAX: usize = 255;

/// What clients have registered, and what they may.
#[derive(Debug)]
pub struct SharedMemory {
    allows_files: bool,
    /// There where memory of GPUs may be registered.
    driver: Option<Driver>,
    regions: Mutex<BTreeMap<String, Arc<Region>>>,
}

/// A part of some memory. Whoever holds it can use it, whether it is registered still or not.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) memory: Memory,
}

/// Whose memory a region is in.
#[derive(Debug)]
pub(super) enum Memory {
    File(SharedFile),
    Device(DeviceMemory),
}

/// Which regions an order is about: each of Triton's two extensions knows its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Device,
}

/// A region of a file as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionStatus {
    pub(crate) name: String,
    pub(crate) key: String,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// A region of a GPU's memory as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRegionStatus {
    pub(crate) name: String,
    /// As CUDA counts them.
    pub(crate) device: i64,
    pub(crate) bytes: u64,
}

/// Why an order about regions is refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Nobody may register any of this kind.
    Off(Kind),
    /// The name is taken.
    AlreadyRegistered(String),
    Other(InferError),
}

// === impl SharedMemory ===

impl SharedMemory {
    /// Files may be registered where `allows_files`, and memory of GPUs where there is a driver to ask for it.
    pub fn new(allows_files: bool, driver: Option<Driver>) -> SharedMemory {
        SharedMemory { allows_files, driver, regions: Mutex::default() }
    }

    /// Whether regions of that kind may be registered.
    pub(crate) fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::File => self.allows_files,
            Kind::Device => self.driver.is_some(),
        }
    }

    /// Registers `bytes` of the file with the name `key`, from `offset` on, under `name`.
    ///
    /// # Errors
    /// It is switched off, the name is taken, the key leads nowhere or out of /dev/shm, the file is shorter than that,
    /// or there is too much already.
    pub(crate) fn register_file(&self, name: &str, key: &str, offset: u64, bytes: u64) -> Result<(), Fault> {
        if !self.allows_files {
            return Err(Fault::Off(Kind::File));
        }
        self.register(name, bytes, || SharedFile::open(key, offset, bytes).map(Memory::File))
    }

    /// Registers `bytes` of an allocation on a GPU, which `handle` is CUDA's for other processes of, under `name`.
    ///
    /// # Errors
    /// It is switched off, the name is taken, the driver does not open the handle, the allocation is smaller than that,
    /// or there is too much already.
    pub(crate) fn register_device(
        &self,
        name: &str,
        handle: &[u8],
        device: i64,
        bytes: u64,
    ) -> Result<(), Fault> {
        let Some(driver) = &self.driver else { return Err(Fault::Off(Kind::Device)) };
        self.register(name, bytes, || driver.open(handle, device, bytes).map(Memory::Device))
    }

    fn register(
        &self,
        name: &str,
        bytes: u64,
        open: impl FnOnce() -> Result<Memory, String>,
    ) -> Result<(), Fault> {
        let refuse = |why: fmt::Arguments<'_>| {
            Fault::from(InferError::InvalidInput(format!("shared memory region '{name}': {why}")))
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(refuse(format_args!(
                "a name has 1 to {NAME_BYTES_MAX} bytes, this one {}",
                name.len()
            )));
        }
        if bytes == 0 || bytes > REGION_BYTES_MAX {
            return Err(refuse(format_args!("byte_size is {bytes}: expected 1 to {REGION_BYTES_MAX}")));
        }
        let memory = open().map_err(|why| refuse(format_args!("{why}")))?;
        let region = Region { name: name.to_owned(), bytes, memory };
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if regions.contains_key(name) {
            return Err(Fault::AlreadyRegistered(name.to_owned()));
        }
        if regions.len() == REGIONS_MAX {
            return Err(Fault::Other(InferError::TooLarge(format!(
                "shared memory region '{name}': {REGIONS_MAX} regions are registered, which is the most: unregister \
                 those that are not needed any more"
            ))));
        }
        regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets one region of that kind, or all where `name` is empty. Requests that have found theirs already keep it.
    /// One that is not registered is no error, as in Triton: clients begin with it.
    pub(crate) fn unregister(&self, kind: Kind, name: &str) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|_, region| region.kind() != kind || !(name.is_empty() || region.name == name));
    }

    /// One region of a file, or all by name where `name` is empty.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn files(&self, name: &str) -> Result<Vec<RegionStatus>, Fault> {
        self.which(name, |region| match &region.memory {
            Memory::File(file) => Some(RegionStatus {
                name: region.name.clone(),
                key: file.key().to_owned(),
                offset: file.offset(),
                bytes: region.bytes,
            }),
            Memory::Device(_) => None,
        })
    }

    /// One region of a GPU's memory, or all by name where `name` is empty.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn devices(&self, name: &str) -> Result<Vec<DeviceRegionStatus>, Fault> {
        self.which(name, |region| match &region.memory {
            Memory::Device(memory) => Some(DeviceRegionStatus {
                name: region.name.clone(),
                device: memory.device(),
                bytes: region.bytes,
            }),
            Memory::File(_) => None,
        })
    }

    fn which<T>(&self, name: &str, describe: impl Fn(&Region) -> Option<T>) -> Result<Vec<T>, Fault> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() {
            return Ok(regions.values().filter_map(|region| describe(region)).collect());
        }
        let found = regions.get(name).and_then(|region| describe(region));
        found.map(|status| vec![status]).ok_or_else(|| no_region(name))
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }
}

// === impl Region ===

impl Region {
    fn kind(&self) -> Kind {
        match self.memory {
            Memory::File(_) => Kind::File,
            Memory::Device(_) => Kind::Device,
        }
    }

    /// Copies what is there from `offset` on.
    ///
    /// # Errors
    /// The text says why it is not all there any more.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), String> {
        let done = match &self.memory {
            Memory::File(file) => file.read(offset, data),
            Memory::Device(memory) => memory.read(offset, data),
        };
        done.map_err(|why| self.named(&why))
    }

    /// # Errors
    /// As [`Region::read`], for `bytes` from `offset` on.
    pub(super) fn check(&self, offset: u64, bytes: u64) -> Result<(), String> {
        match &self.memory {
            Memory::File(file) => file.check(offset, bytes).map_err(|why| self.named(&why)),
            Memory::Device(_) => Ok(()),
        }
    }

    /// # Errors
    /// The text says why it cannot be written.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), String> {
        let done = match &self.memory {
            Memory::File(file) => file.write(offset, data),
            Memory::Device(memory) => memory.write(offset, data),
        };
        done.map_err(|why| self.named(&why))
    }

    fn named(&self, why: &str) -> String {
        format!("shared memory region '{}': {why}", self.name)
    }
}

/// # Errors
/// `name` is not empty: where no regions of GPUs can be registered, none has a name.
pub(crate) fn check_no_cuda_region(name: &str) -> Result<(), Fault> {
    if name.is_empty() { Ok(()) } else { Err(no_region(name)) }
}

fn no_region(name: &str) -> Fault {
    Fault::Other(InferError::NotFound(format!(
        "no shared memory region '{name}' is registered: register it first, or ask for the status of all"
    )))
}

// === impl Fault ===

impl Fault {
    /// Triton's codes, in gRPC and in HTTP.
    pub(crate) fn codes(&self) -> (Code, StatusCode) {
        match self {
            Fault::Off(_) => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED),
            Fault::AlreadyRegistered(_) => (Code::AlreadyExists, StatusCode::BAD_REQUEST),
            Fault::Other(error) => (grpc_code(error), http_status(error)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Off(Kind::File) => f.write_str(
                "system shared memory is off: start the server with --allow-system-shared-memory, or send tensors in \
                 requests",
            ),
            Fault::Off(Kind::Device) => f.write_str(
                "CUDA shared memory is off: start the server with --allow-cuda-shared-memory where there is a GPU, or \
                 send tensors in requests",
            ),
            Fault::AlreadyRegistered(name) => {
                write!(f, "shared memory region '{name}' is registered already: unregister it first")
            }
            Fault::Other(error) => error.fmt(f),
        }
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Fault {
        Fault::Other(error)
    }
}
