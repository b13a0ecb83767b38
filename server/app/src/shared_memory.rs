//! System shared memory: the files in /dev/shm that clients have registered, and the parts of them that tensors are in.
//!
//! Files are read and written at a position, and never mapped. A client may truncate its file whenever it likes, and
//! touching a mapped page behind the end of a file raises SIGBUS, which would end the server; `pread` comes back short
//! instead. What was read once does not change either while a model looks at it, whatever the client writes meanwhile.

mod part;
mod regions;

pub(crate) use self::part::write_outputs;
pub use self::part::{Part, PlacedOutput};
pub(crate) use self::part::{Place, Reach};
pub use self::regions::SharedMemory;
pub(crate) use self::regions::{Fault, RegionStatus, check_no_cuda_region};

#[cfg(test)]
mod tests;
