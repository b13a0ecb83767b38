//! The handlers of `/v2/systemsharedmemory` and `/v2/cudasharedmemory`: Triton's shared memory extensions as JSON.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Door;
use super::admin::read;
use super::reply::{self, Refusal};
use crate::shared_memory::{self, Fault, RegionStatus, SharedMemory};

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
    let memory = memory(&door)?;
    let Registration { key, offset, byte_size } = read(&door, request, EXPECTED).await?;
    memory.register(&region, &key, offset, byte_size)?;
    done()
}

pub(super) async fn unregister_all(State(door): State<Arc<Door>>) -> Answer {
    memory(&door)?.unregister("");
    done()
}

pub(super) async fn unregister(State(door): State<Arc<Door>>, Path(region): Path<String>) -> Answer {
    memory(&door)?.unregister(&region);
    done()
}

pub(super) async fn all_cuda() -> Response {
    reply::json(StatusCode::OK, &json!([]))
}

pub(super) async fn one_cuda(Path(region): Path<String>) -> Answer {
    shared_memory::check_no_cuda_region(&region)?;
    Ok(all_cuda().await)
}

pub(super) async fn register_cuda() -> Refusal {
    Fault::Cuda.into()
}

/// There is nothing to forget.
pub(super) async fn unregister_cuda() -> Answer {
    done()
}

fn memory(door: &Door) -> Result<&SharedMemory, Fault> {
    door.gateway.shared_memory().ok_or(Fault::Off)
}

fn status(door: &Door, region: &str) -> Answer {
    let regions = memory(door)?.status(region)?;
    let regions = regions.into_iter().map(|RegionStatus { name, key, offset, bytes }| {
        json!({"name": name, "key": key, "offset": offset, "byte_size": bytes})
    });
    Ok(reply::json(StatusCode::OK, &regions.collect::<Value>()))
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
