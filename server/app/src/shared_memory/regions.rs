//! Which files are registered by which names: what a key may lead to, and how much there may be.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use gristmill_engine::error::InferError;
use tonic::Code;

use crate::status::{grpc_code, http_status};

/// Regions that are registered at the same time. Each keeps a file open.
pub(crate) const REGIONS_MAX: usize = 256;
/// Longest region.
pub(crate) const REGION_BYTES_MAX: u64 = 16 << 30;
/// Longest name of a region, and of a file.
const NAME_BYTES_MAX: usize = 255;

/// Where POSIX shared memory objects are files on Linux.
const DIRECTORY: &str = "/dev/shm";

/// What clients have registered.
#[derive(Debug, Default)]
pub struct SharedMemory {
    regions: Mutex<BTreeMap<String, Arc<Region>>>,
}

/// A part of a file. Whoever holds it can use it, whether it is registered still or not.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) status: RegionStatus,
    pub(super) file: File,
}

/// A region as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegionStatus {
    pub(crate) name: String,
    pub(crate) key: String,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Why an order about regions is refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Nobody may register any.
    Off,
    /// The name is taken.
    AlreadyRegistered(String),
    /// It is memory of a GPU.
    Cuda,
    Other(InferError),
}

// === impl SharedMemory ===

impl SharedMemory {
    /// Registers `bytes` of the file with the name `key`, from `offset` on, under `name`.
    ///
    /// # Errors
    /// The name is taken, the key leads nowhere or out of /dev/shm, the file is shorter than that, or there is too
    /// much already.
    pub(crate) fn register(&self, name: &str, key: &str, offset: u64, bytes: u64) -> Result<(), Fault> {
        let refuse = |why: fmt::Arguments<'_>| {
            Fault::from(InferError::InvalidInput(format!("shared memory region '{name}': {why}")))
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(refuse(format_args!(
                "a name has 1 to {NAME_BYTES_MAX} bytes, this one {}",
                name.len()
            )));
        }
        let Some(file_name) = file_name(key) else {
            return Err(refuse(format_args!(
                "key '{key}' is no name of a file in {DIRECTORY}: expected 1 to {NAME_BYTES_MAX} bytes without '/', \
                 which may stand in front of them alone"
            )));
        };
        if bytes == 0 || bytes > REGION_BYTES_MAX {
            return Err(refuse(format_args!("byte_size is {bytes}: expected 1 to {REGION_BYTES_MAX}")));
        }
        let file = open(file_name).map_err(|error| {
            refuse(format_args!(
                "cannot open {DIRECTORY}/{file_name} for reading and writing: {error}; expected a file, not a link, \
                 that belongs to the server's user"
            ))
        })?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| refuse(format_args!("cannot look at its file: {error}")))?;
        if !metadata.is_file() {
            return Err(refuse(format_args!("{DIRECTORY}/{file_name} is not a file")));
        }
        let length = metadata.len();
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            return Err(refuse(format_args!(
                "{bytes} bytes from offset {offset} on do not fit into {DIRECTORY}/{file_name}, which has {length}"
            )));
        }
        let status = RegionStatus { name: name.to_owned(), key: key.to_owned(), offset, bytes };
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
        regions.insert(name.to_owned(), Arc::new(Region { status, file }));
        Ok(())
    }

    /// Forgets one region, or all where `name` is empty. Requests that have found theirs already keep it. One that is
    /// not registered is no error, as in Triton: clients begin with it.
    pub(crate) fn unregister(&self, name: &str) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() {
            regions.clear();
        } else {
            regions.remove(name);
        }
    }

    /// One region, or all by name where `name` is empty.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn status(&self, name: &str) -> Result<Vec<RegionStatus>, Fault> {
        if !name.is_empty() {
            let region = self.find(name).ok_or_else(|| no_region(name))?;
            return Ok(vec![region.status.clone()]);
        }
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(regions.values().map(|region| region.status.clone()).collect())
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }
}

/// # Errors
/// `name` is not empty: there are no regions of GPUs, so none has a name.
pub(crate) fn check_no_cuda_region(name: &str) -> Result<(), Fault> {
    if name.is_empty() { Ok(()) } else { Err(no_region(name)) }
}

fn no_region(name: &str) -> Fault {
    Fault::Other(InferError::NotFound(format!(
        "no shared memory region '{name}' is registered: register it first, or ask for the status of all"
    )))
}

/// The name of the file in the directory: the key without the slash in front that POSIX asks for.
fn file_name(key: &str) -> Option<&str> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0']);
    (is_name && name != "." && name != "..").then_some(name)
}

/// A name without a slash cannot lead out of the directory unless it is a link, which is not followed. A pipe does not
/// make the server wait.
fn open(file_name: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(Path::new(DIRECTORY).join(file_name))
}

// === impl Fault ===

impl Fault {
    /// Triton's codes, in gRPC and in HTTP.
    pub(crate) fn codes(&self) -> (Code, StatusCode) {
        match self {
            Fault::Off | Fault::Cuda => (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED),
            Fault::AlreadyRegistered(_) => (Code::AlreadyExists, StatusCode::BAD_REQUEST),
            Fault::Other(error) => (grpc_code(error), http_status(error)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Off => f.write_str(
                "system shared memory is off: start the server with --allow-system-shared-memory, or send tensors in \
                 requests",
            ),
            Fault::AlreadyRegistered(name) => {
                write!(f, "shared memory region '{name}' is registered already: unregister it first")
            }
            Fault::Cuda => f.write_str(
                "CUDA shared memory is not supported: use system shared memory, or send tensors in requests",
            ),
            Fault::Other(error) => error.fmt(f),
        }
    }
}

impl From<InferError> for Fault {
    fn from(error: InferError) -> Fault {
        Fault::Other(error)
    }
}
