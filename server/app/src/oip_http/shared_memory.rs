//! The handlers of `/v2/systemsharedmemory` and `/v2/cudasharedmemory`: Triton's shared memory extensions as JSON.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gristmill_engine::error::InferError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Door;
use super::admin::read;
use super::reply::{self, Refusal};
use crate::shared_memory::{
    DeviceRegionStatus, Fault, Kind, RegionStatus, SharedMemory, check_no_cuda_region,
};

type Answer = Result<Response, Refusal>;

/// What a region is to be.
#[derive(Default, Deserialize)]
struct Registration {
    #[serde(default)]
    key: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    byte_size: u64,
}

/// What a region of a GPU's memory is to be.
#[derive(Default, Deserialize)]
struct DeviceRegistration {
    #[serde(default)]
    raw_handle: RawHandle,
    #[serde(default)]
    device_id: i64,
    #[serde(default)]
    byte_size: u64,
}

#[derive(Default, Deserialize)]
struct RawHandle {
    #[serde(default)]
    b64: String,
}

const EXPECTED_OF_DEVICE: &str =
    "{\"raw_handle\": {\"b64\": \"...\"}, \"device_id\": 0, \"byte_size\": 4096}";
const EXPECTED: &str = "{\"key\": \"/input\", \"offset\": 0, \"byte_size\": 4096}";

pub(super) async fn all(State(door): State<Arc<Door>>) -> Answer {
    status(&door, "")
}

pub(super) async fn one(State(door): State<Arc<Door>>, Path(region): Path<String>) -> Answer {
    status(&door, &region)
}

pub(super) async fn register(
    State(door): State<Arc<Door>>,
    Path(region): Path<String>,
    request: Request,
) -> Answer {
    let memory = memory(&door, Kind::File)?;
    let Registration { key, offset, byte_size } = read(&door, request, EXPECTED).await?;
    memory.register_file(&region, &key, offset, byte_size)?;
    done()
}

pub(super) async fn unregister_all(State(door): State<Arc<Door>>) -> Answer {
    memory(&door, Kind::File)?.unregister(Kind::File, "");
    done()
}

pub(super) async fn unregister(State(door): State<Arc<Door>>, Path(region): Path<String>) -> Answer {
    memory(&door, Kind::File)?.unregister(Kind::File, &region);
    done()
}

pub(super) async fn all_cuda(State(door): State<Arc<Door>>) -> Answer {
    cuda_status(&door, "")
}

pub(super) async fn one_cuda(State(door): State<Arc<Door>>, Path(region): Path<String>) -> Answer {
    cuda_status(&door, &region)
}

pub(super) async fn register_cuda(
    State(door): State<Arc<Door>>,
    Path(region): Path<String>,
    request: Request,
) -> Answer {
    let memory = memory(&door, Kind::Device)?;
    let DeviceRegistration { raw_handle, device_id, byte_size } =
        read(&door, request, EXPECTED_OF_DEVICE).await?;
    let handle = STANDARD.decode(&raw_handle.b64).map_err(|error| {
        InferError::InvalidInput(format!("raw_handle.b64 of shared memory region '{region}': {error}"))
    })?;
    memory.register_device(&region, &handle, device_id, byte_size)?;
    done()
}

pub(super) async fn unregister_all_cuda(State(door): State<Arc<Door>>) -> Answer {
    forget_cuda(&door, "")
}

pub(super) async fn unregister_cuda(State(door): State<Arc<Door>>, Path(region): Path<String>) -> Answer {
    forget_cuda(&door, &region)
}

fn memory(door: &Door, kind: Kind) -> Result<&SharedMemory, Fault> {
    door.gateway.shared_memory().filter(|memory| memory.allows(kind)).ok_or(Fault::Off(kind))
}

fn status(door: &Door, region: &str) -> Answer {
    let regions = memory(door, Kind::File)?.files(region)?;
    let regions = regions.into_iter().map(|RegionStatus { name, key, offset, bytes }| {
        json!({"name": name, "key": key, "offset": offset, "byte_size": bytes})
    });
    Ok(reply::json(StatusCode::OK, &regions.collect::<Value>()))
}

/// There are none where that is off, as in a Triton without CUDA.
fn cuda_status(door: &Door, region: &str) -> Answer {
    let regions = match memory(door, Kind::Device) {
        Ok(memory) => memory.devices(region)?,
        Err(_) => check_no_cuda_region(region).map(|()| Vec::new())?,
    };
    let regions = regions.into_iter().map(|DeviceRegionStatus { name, device, bytes }| {
        json!({"name": name, "device_id": device, "byte_size": bytes})
    });
    Ok(reply::json(StatusCode::OK, &regions.collect::<Value>()))
}

/// There is nothing to forget where that is off.
fn forget_cuda(door: &Door, region: &str) -> Answer {
    if let Ok(memory) = memory(door, Kind::Device) {
        memory.unregister(Kind::Device, region);
    }
    done()
}

fn done() -> Answer {
    Ok(reply::json(StatusCode::OK, &json!({})))
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        match fault {
            Fault::Other(error) => error.into(),
            fault => Refusal::new(fault.codes().1, fault.to_string()),
        }
    }
}
