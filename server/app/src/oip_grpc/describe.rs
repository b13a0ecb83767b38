//! What the engine knows about its models, as the protocol's metadata, configuration, statistics and index.

use gristmill_engine::engine::{Engine, IndexEntry, VersionState};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, VersionSelector};
use gristmill_engine::statistics::{BatchStatistics, Counted, Statistics};
use gristmill_engine::tensor::{DType, TensorSpec};
use gristmill_proto::inference as pb;
use gristmill_proto::inference::model_config::SchedulingChoice;
use gristmill_proto::inference::model_metadata_response::TensorMetadata;
use gristmill_proto::inference::repository_index_response::ModelIndex;

use crate::gateway::Gateway;
use crate::shared_memory::Kind;

/// Triton's names for the optional parts of the protocol that are always there, over gRPC or HTTP.
const EXTENSIONS: [&str; 10] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
    "trace",
];

/// And of those that are there when they are switched on.
const SWITCHED: [(Kind, &str); 2] =
    [(Kind::File, "system_shared_memory"), (Kind::Device, "cuda_shared_memory")];

pub(crate) fn server(gateway: &Gateway) -> pb::ServerMetadataResponse {
    let mut extensions: Vec<String> = EXTENSIONS.map(String::from).into();
    let is_on = |kind| gateway.shared_memory().is_some_and(|memory| memory.allows(kind));
    extensions.extend(SWITCHED.iter().filter(|(kind, _)| is_on(*kind)).map(|(_, name)| (*name).to_owned()));
    pb::ServerMetadataResponse {
        name: "gristmill".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions,
    }
}

/// Inputs and outputs of one version, and which versions serve: all when none is asked for by name.
///
/// # Errors
/// As [`Engine::model`], and for a version that is not a number.
pub(crate) fn metadata(
    engine: &Engine,
    name: &str,
    version: &str,
) -> Result<pb::ModelMetadataResponse, InferError> {
    let asked = VersionSelector::parse(version)?;
    let info = engine.model(name, &asked)?;
    let versions = match asked {
        VersionSelector::Number(_) | VersionSelector::Label(_) => vec![info.version.to_string()],
        VersionSelector::Default => {
            let serving = engine.models();
            // None for a route: which version answers is its choice.
            serving.iter().filter(|model| model.name == name).map(|model| model.version.to_string()).collect()
        }
    };
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.dtype.name().to_owned(),
        shape: spec.protocol_shape(),
    };
    Ok(pb::ModelMetadataResponse {
        name: name.to_owned(),
        versions,
        platform: info.platform.clone(),
        inputs: info.signature.inputs.iter().map(tensor).collect(),
        outputs: info.signature.outputs.iter().map(tensor).collect(),
        properties: info.signature.outputs.iter().filter_map(labels_property).collect(),
    })
}

/// Where [`metadata`]'s properties keep the class names of an output.
pub(crate) fn labels_key(output: &str) -> String {
    format!("labels.{output}")
}

fn labels_property(spec: &TensorSpec) -> Option<(String, String)> {
    let labels = serde_json::to_string(&spec.labels).expect("strings are JSON; this is a bug");
    (!spec.labels.is_empty()).then(|| (labels_key(&spec.name), labels))
}

/// How one version is served.
///
/// # Errors
/// As [`metadata`].
pub(crate) fn config(engine: &Engine, name: &str, version: &str) -> Result<pb::ModelConfig, InferError> {
    let info = engine.model(name, &VersionSelector::parse(version)?)?;
    Ok(model_config(&info))
}

/// Statistics of one version, of all versions of a model, or of everything when `name` is empty.
///
/// # Errors
/// As [`metadata`].
pub(crate) fn statistics(
    engine: &Engine,
    name: &str,
    version: &str,
) -> Result<pb::ModelStatisticsResponse, InferError> {
    let name = (!name.is_empty()).then_some(name);
    let statistics = engine.statistics(name, &VersionSelector::parse(version)?)?;
    let model_stats =
        statistics.iter().map(|(info, statistics)| model_statistics(info, statistics)).collect();
    Ok(pb::ModelStatisticsResponse { model_stats })
}

/// Every version in the repository, or only those that serve.
pub(crate) fn index(engine: &Engine, ready_only: bool) -> pb::RepositoryIndexResponse {
    let entry = |entry: IndexEntry| ModelIndex {
        name: entry.model,
        // 0 stands for a model without any usable version.
        version: if entry.version == 0 { String::new() } else { entry.version.to_string() },
        state: entry.state.name().to_owned(),
        reason: entry.reason,
    };
    // Others look for what they have put there, and find why it is not served.
    let passed_over = engine.passed_over();
    let passed_over = passed_over.iter().filter_map(|one| {
        let state = VersionState::Unavailable.name().to_owned();
        Some(ModelIndex {
            name: one.directory.clone(),
            version: one.version.clone()?,
            state,
            reason: format!("it is passed over: {}", one.reason),
        })
    });
    let models = engine.index().into_iter().map(entry).chain(passed_over);
    pb::RepositoryIndexResponse {
        models: models.filter(|model| !ready_only || model.state == "READY").collect(),
    }
}

fn model_config(info: &ModelInfo) -> pb::ModelConfig {
    let batched = info.signature.is_batched();
    let batching = pb::ModelDynamicBatching {
        max_queue_delay_microseconds: saturated(info.batch_delay.as_micros()),
        ..Default::default()
    };
    let threads = pb::ModelParameter { string_value: info.threads.to_string() };
    pb::ModelConfig {
        name: info.name.clone(),
        platform: info.platform.clone(),
        backend: info.platform.trim_end_matches("_onnx").to_owned(),
        max_batch_size: if batched { saturated_i32(info.batch_rows_max) } else { 0 },
        input: info.signature.inputs.iter().map(|spec| input_config(spec, batched)).collect(),
        output: info.signature.outputs.iter().map(|spec| output_config(spec, batched)).collect(),
        instance_group: vec![pb::ModelInstanceGroup {
            name: format!("{}_0", info.name),
            count: saturated_i32(info.instances),
            ..Default::default()
        }],
        default_model_filename: "model.onnx".into(),
        scheduling_choice: batched.then_some(SchedulingChoice::DynamicBatching(batching)),
        parameters: [("intra_op_thread_count".to_owned(), threads)].into(),
        model_transaction_policy: Some(pb::ModelTransactionPolicy { decoupled: false }),
        ..Default::default()
    }
}

fn input_config(spec: &TensorSpec, batched: bool) -> pb::ModelInput {
    pb::ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        dims: row_shape(spec, batched),
        optional: spec.optional,
        ..Default::default()
    }
}

fn output_config(spec: &TensorSpec, batched: bool) -> pb::ModelOutput {
    pb::ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        dims: row_shape(spec, batched),
        ..Default::default()
    }
}

/// Dimensions without the batch axis.
fn row_shape(spec: &TensorSpec, batched: bool) -> Vec<i64> {
    let mut shape = spec.protocol_shape();
    if batched && spec.shape.is_some() && !shape.is_empty() {
        shape.remove(0);
    }
    shape
}

fn data_type(dtype: DType) -> pb::DataType {
    match dtype {
        DType::Bool => pb::DataType::TypeBool,
        DType::Int8 => pb::DataType::TypeInt8,
        DType::Int16 => pb::DataType::TypeInt16,
        DType::Int32 => pb::DataType::TypeInt32,
        DType::Int64 => pb::DataType::TypeInt64,
        DType::Uint8 => pb::DataType::TypeUint8,
        DType::Uint16 => pb::DataType::TypeUint16,
        DType::Uint32 => pb::DataType::TypeUint32,
        DType::Uint64 => pb::DataType::TypeUint64,
        DType::Fp16 => pb::DataType::TypeFp16,
        DType::Bf16 => pb::DataType::TypeBf16,
        DType::Fp32 => pb::DataType::TypeFp32,
        DType::Fp64 => pb::DataType::TypeFp64,
        DType::Bytes => pb::DataType::TypeString,
        // Triton's configuration has none; the metadata has ONNX's name.
        DType::Narrow(_) => pb::DataType::TypeInvalid,
    }
}

fn model_statistics(info: &ModelInfo, statistics: &Statistics) -> pb::ModelStatistics {
    pb::ModelStatistics {
        name: info.name.clone(),
        version: info.version.to_string(),
        last_inference: statistics.last_inference_ms,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: duration(statistics.success),
            fail: duration(statistics.fail),
            queue: duration(statistics.queue),
            compute_input: duration(statistics.compute_input),
            compute_infer: duration(statistics.compute_infer),
            compute_output: duration(statistics.compute_output),
            cache_hit: duration(Counted::default()),
            cache_miss: duration(Counted::default()),
        }),
        batch_stats: statistics.batches.iter().map(batch_statistics).collect(),
        ..Default::default()
    }
}

fn batch_statistics(batch: &BatchStatistics) -> pb::InferBatchStatistics {
    pb::InferBatchStatistics {
        batch_size: batch.rows as u64,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    }
}

fn duration(counted: Counted) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count: counted.count, ns: saturated(counted.total.as_nanos()) })
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn saturated_i32(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
