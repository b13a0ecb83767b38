//! Memory that clients have registered, and the parts of it that tensors are in: files in /dev/shm, and allocations on
//! GPUs.

mod cuda;
mod files;
mod part;
mod regions;

pub use self::cuda::Driver;
pub(crate) use self::part::write_outputs;
pub use self::part::{Part, PlacedOutput};
pub(crate) use self::part::{Place, Reach};
pub use self::regions::SharedMemory;
pub(crate) use self::regions::{DeviceRegionStatus, Fault, Kind, RegionStatus, check_no_cuda_region};

#[cfg(test)]
mod tests;
