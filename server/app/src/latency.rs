//! What the scheduler knows of a model's run times, over gRPC and as JSON: the same names in both.

use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::capacity::LatencyModel;
use gristmill_engine::cost::{CostSource, CostTable, SizeCost};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use gristmill_proto::admin as pb;
use gristmill_proto::admin::latency_server::Latency as LatencyService;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::status::grpc_status;

/// The service on an engine.
pub(crate) struct Latency {
    pub(crate) engine: Arc<Engine>,
}

/// # Errors
/// As [`Engine::model`].
pub(crate) fn describe(
    engine: &Engine,
    model: &str,
    version: &VersionSelector,
) -> Result<pb::LatencyModelResponse, InferError> {
    let (info, latency) = engine.latency_model(model, version)?;
    let LatencyModel { tables, margin, wait_margin, batch_rows_max, batch_rows_why, workers, slo, capacity } =
        latency;
    Ok(pb::LatencyModelResponse {
        model: info.name.clone(),
        version: info.version,
        platform: info.platform.clone(),
        workers: workers as u64,
        batch_rows_max: batch_rows_max as u64,
        batch_rows_why,
        margin: rounded(margin),
        wait_margin: rounded(wait_margin),
        slo_ms: slo.map_or(0.0, |slo| slo.as_secs_f64() * 1e3),
        capacity: capacity.map(|capacity| pb::Capacity {
            rows_per_s: rounded(capacity.rows_per_s),
            batch_rows: capacity.batch_rows as u64,
            utilization: rounded(capacity.utilization),
        }),
        tables: tables.into_iter().map(table).collect(),
    })
}

fn table(table: CostTable) -> pb::CostTable {
    let micros = |duration: Duration| rounded(duration.as_secs_f64() * 1e6);
    let size = |size: SizeCost| pb::SizeCost {
        rows: size.rows as u64,
        count: size.count,
        source: match size.source {
            CostSource::Runs => "runs",
            CostSource::Sweep => "sweep",
            CostSource::Estimate => "estimate",
        }
        .to_owned(),
        p50_us: micros(size.p50),
        p90_us: micros(size.p90),
        p99_us: micros(size.p99),
        typical_us: micros(size.typical),
        high_us: micros(size.high),
    };
    pb::CostTable {
        shape: table.shape.unwrap_or_default(),
        sizes: table.sizes.into_iter().map(size).collect(),
    }
}

/// Three digits after the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The same as JSON, with the names of the message.
pub(crate) fn to_json(message: &pb::LatencyModelResponse) -> Value {
    let size = |size: &pb::SizeCost| {
        json!({
            "rows": size.rows,
            "count": size.count,
            "source": size.source,
            "p50_us": size.p50_us,
            "p90_us": size.p90_us,
            "p99_us": size.p99_us,
            "typical_us": size.typical_us,
            "high_us": size.high_us,
        })
    };
    let table = |table: &pb::CostTable| json!({"shape": table.shape, "sizes": table.sizes.iter().map(size).collect::<Value>()});
    let capacity = message.capacity.as_ref().map(|capacity| {
        json!({
            "rows_per_s": capacity.rows_per_s,
            "batch_rows": capacity.batch_rows,
            "utilization": capacity.utilization,
        })
    });
    json!({
        "model": message.model,
        "version": message.version,
        "platform": message.platform,
        "workers": message.workers,
        "batch_rows_max": message.batch_rows_max,
        "batch_rows_why": message.batch_rows_why,
        "margin": message.margin,
        "wait_margin": message.wait_margin,
        "slo_ms": (message.slo_ms > 0.0).then_some(message.slo_ms),
        "capacity": capacity,
        "tables": message.tables.iter().map(table).collect::<Value>(),
    })
}

#[tonic::async_trait]
impl LatencyService for Latency {
    async fn latency_model(
        &self,
        request: Request<pb::LatencyModelRequest>,
    ) -> Result<Response<pb::LatencyModelResponse>, Status> {
        let pb::LatencyModelRequest { model, version } = request.into_inner();
        let version = VersionSelector::parse(&version).map_err(grpc_status)?;
        describe(&self.engine, &model, &version).map(Response::new).map_err(grpc_status)
    }
}
