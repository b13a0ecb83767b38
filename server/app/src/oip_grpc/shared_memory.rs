//! Triton's shared memory extensions, as gRPC has them.

use gristmill_proto::inference as pb;
use gristmill_proto::inference::system_shared_memory_status_response::RegionStatus;
use tonic::Status;

use crate::gateway::Gateway;
use crate::shared_memory::{self, Fault, SharedMemory};
use crate::status::{bounded_status, grpc_status};

/// Which regions are registered.
pub(super) fn status(gateway: &Gateway, name: &str) -> Result<pb::SystemSharedMemoryStatusResponse, Status> {
    let regions = memory(gateway).and_then(|memory| memory.status(name)).map_err(refused)?;
    let regions = regions.into_iter().map(|shared_memory::RegionStatus { name, key, offset, bytes }| {
        (name.clone(), RegionStatus { name, key, offset, byte_size: bytes })
    });
    Ok(pb::SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(super) fn register(
    gateway: &Gateway,
    request: &pb::SystemSharedMemoryRegisterRequest,
) -> Result<pb::SystemSharedMemoryRegisterResponse, Status> {
    let pb::SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    let registered = memory(gateway).and_then(|memory| memory.register(name, key, *offset, *byte_size));
    registered.map(|()| pb::SystemSharedMemoryRegisterResponse {}).map_err(refused)
}

pub(super) fn unregister(
    gateway: &Gateway,
    name: &str,
) -> Result<pb::SystemSharedMemoryUnregisterResponse, Status> {
    memory(gateway).map_err(refused)?.unregister(name);
    Ok(pb::SystemSharedMemoryUnregisterResponse {})
}

/// There are never any.
pub(super) fn cuda_status(name: &str) -> Result<pb::CudaSharedMemoryStatusResponse, Status> {
    shared_memory::check_no_cuda_region(name).map_err(refused)?;
    Ok(pb::CudaSharedMemoryStatusResponse::default())
}

pub(super) fn refused(fault: Fault) -> Status {
    match fault {
        Fault::Other(error) => grpc_status(error),
        fault => bounded_status(fault.codes().0, fault.to_string()),
    }
}

fn memory(gateway: &Gateway) -> Result<&SharedMemory, Fault> {
    gateway.shared_memory().ok_or(Fault::Off)
}
