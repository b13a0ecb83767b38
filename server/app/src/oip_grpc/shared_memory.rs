//! Triton's shared memory extensions, as gRPC has them.

use gristmill_proto::inference as pb;
use gristmill_proto::inference::{cuda_shared_memory_status_response, system_shared_memory_status_response};
use tonic::Status;

use crate::gateway::Gateway;
use crate::shared_memory::{
    DeviceRegionStatus, Fault, Kind, RegionStatus, SharedMemory, check_no_cuda_region,
};
use crate::status::{bounded_status, grpc_status};

/// Which files are registered.
pub(super) fn status(gateway: &Gateway, name: &str) -> Result<pb::SystemSharedMemoryStatusResponse, Status> {
    let regions = memory(gateway, Kind::File).and_then(|memory| memory.files(name)).map_err(refused)?;
    let regions = regions.into_iter().map(|RegionStatus { name, key, offset, bytes }| {
        let status =
            system_shared_memory_status_response::RegionStatus { name, key, offset, byte_size: bytes };
        (status.name.clone(), status)
    });
    Ok(pb::SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(super) fn register(
    gateway: &Gateway,
    request: &pb::SystemSharedMemoryRegisterRequest,
) -> Result<pb::SystemSharedMemoryRegisterResponse, Status> {
    let pb::SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    let registered =
        memory(gateway, Kind::File).and_then(|memory| memory.register_file(name, key, *offset, *byte_size));
    registered.map(|()| pb::SystemSharedMemoryRegisterResponse {}).map_err(refused)
}

pub(super) fn unregister(
    gateway: &Gateway,
    name: &str,
) -> Result<pb::SystemSharedMemoryUnregisterResponse, Status> {
    memory(gateway, Kind::File).map_err(refused)?.unregister(Kind::File, name);
    Ok(pb::SystemSharedMemoryUnregisterResponse {})
}

/// Which memory of GPUs is registered: none where that is off, as in a Triton without CUDA.
pub(super) fn cuda_status(
    gateway: &Gateway,
    name: &str,
) -> Result<pb::CudaSharedMemoryStatusResponse, Status> {
    let Ok(memory) = memory(gateway, Kind::Device) else {
        check_no_cuda_region(name).map_err(refused)?;
        return Ok(pb::CudaSharedMemoryStatusResponse::default());
    };
    let regions = memory.devices(name).map_err(refused)?;
    let regions = regions.into_iter().map(|DeviceRegionStatus { name, device, bytes }| {
        // A number of type uint64 here, and int64 where it is registered.
        let device_id = device.unsigned_abs();
        let status = cuda_shared_memory_status_response::RegionStatus { name, device_id, byte_size: bytes };
        (status.name.clone(), status)
    });
    Ok(pb::CudaSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(super) fn register_cuda(
    gateway: &Gateway,
    request: &pb::CudaSharedMemoryRegisterRequest,
) -> Result<pb::CudaSharedMemoryRegisterResponse, Status> {
    let pb::CudaSharedMemoryRegisterRequest { name, raw_handle, device_id, byte_size } = request;
    let registered = memory(gateway, Kind::Device)
        .and_then(|memory| memory.register_device(name, raw_handle, *device_id, *byte_size));
    registered.map(|()| pb::CudaSharedMemoryRegisterResponse {}).map_err(refused)
}

/// There is nothing to forget where it is off.
pub(super) fn unregister_cuda(gateway: &Gateway, name: &str) -> pb::CudaSharedMemoryUnregisterResponse {
    if let Ok(memory) = memory(gateway, Kind::Device) {
        memory.unregister(Kind::Device, name);
    }
    pb::CudaSharedMemoryUnregisterResponse {}
}

fn refused(fault: Fault) -> Status {
    match fault {
        Fault::Other(error) => grpc_status(error),
        fault => bounded_status(fault.codes().0, fault.to_string()),
    }
}

fn memory(gateway: &Gateway, kind: Kind) -> Result<&SharedMemory, Fault> {
    gateway.shared_memory().filter(|memory| memory.allows(kind)).ok_or(Fault::Off(kind))
}
