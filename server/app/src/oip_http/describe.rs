//! Metadata, configuration, statistics and index as the JSON that Triton writes, from the messages that gRPC sends.

use gristmill_proto::inference as pb;
use gristmill_proto::inference::model_config::SchedulingChoice;
use gristmill_proto::inference::model_metadata_response::TensorMetadata;
use serde_json::{Value, json};

use crate::oip_grpc::describe as messages;

pub(super) fn server(message: &pb::ServerMetadataResponse) -> Value {
    json!({"name": message.name, "version": message.version, "extensions": message.extensions})
}

pub(super) fn metadata(message: &pb::ModelMetadataResponse) -> Value {
    let tensor = |tensor: &TensorMetadata| json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape});
    let output = |spec: &TensorMetadata| {
        let mut output = tensor(spec);
        let labels = message.properties.get(&messages::labels_key(&spec.name));
        if let Some(labels) = labels.and_then(|labels| serde_json::from_str(labels).ok()) {
            output["labels"] = labels;
        }
        output
    };
    json!({
        "name": message.name,
        "versions": message.versions,
        "platform": message.platform,
        "inputs": message.inputs.iter().map(tensor).collect::<Value>(),
        "outputs": message.outputs.iter().map(output).collect::<Value>(),
    })
}

/// The fields of a configuration that say something here; Triton leaves none of its own out, clients
/// look for these.
pub(super) fn config(message: &pb::ModelConfig) -> Value {
    let data_type = |tag: i32| pb::DataType::try_from(tag).unwrap_or_default().as_str_name();
    let input = |input: &pb::ModelInput| {
        json!({
            "name": input.name,
            "data_type": data_type(input.data_type),
            "format": "FORMAT_NONE",
            "dims": input.dims,
            "is_shape_tensor": false,
            "allow_ragged_batch": false,
            "optional": input.optional,
        })
    };
    let output = |output: &pb::ModelOutput| {
        json!({
            "name": output.name,
            "data_type": data_type(output.data_type),
            "dims": output.dims,
            "label_filename": output.label_filename,
            "is_shape_tensor": false,
        })
    };
    let instance_group = |group: &pb::ModelInstanceGroup| {
        json!({
            "name": group.name,
            "kind": pb::model_instance_group::Kind::try_from(group.kind).unwrap_or_default().as_str_name(),
            "count": group.count,
            "gpus": group.gpus,
        })
    };
    let parameters: serde_json::Map<_, _> = message
        .parameters
        .iter()
        .map(|(name, parameter)| (name.clone(), json!({"string_value": parameter.string_value})))
        .collect();
    let mut config = json!({
        "name": message.name,
        "platform": message.platform,
        "backend": message.backend,
        "max_batch_size": message.max_batch_size,
        "input": message.input.iter().map(input).collect::<Value>(),
        "output": message.output.iter().map(output).collect::<Value>(),
        "instance_group": message.instance_group.iter().map(instance_group).collect::<Value>(),
        "default_model_filename": message.default_model_filename,
        "parameters": parameters,
        "model_transaction_policy": {"decoupled": false},
    });
    if let Some(SchedulingChoice::DynamicBatching(batching)) = &message.scheduling_choice {
        config["dynamic_batching"] = json!({
            "preferred_batch_size": batching.preferred_batch_size,
            "max_queue_delay_microseconds": batching.max_queue_delay_microseconds,
        });
    }
    config
}

pub(super) fn statistics(message: &pb::ModelStatisticsResponse) -> Value {
    json!({"model_stats": message.model_stats.iter().map(model_statistics).collect::<Value>()})
}

pub(super) fn index(message: &pb::RepositoryIndexResponse) -> Value {
    message
        .models
        .iter()
        .map(|model| {
            json!({"name": model.name, "version": model.version, "state": model.state, "reason": model.reason})
        })
        .collect()
}

fn model_statistics(message: &pb::ModelStatistics) -> Value {
    let stats = message.inference_stats.unwrap_or_default();
    let batch = |batch: &pb::InferBatchStatistics| {
        json!({
            "batch_size": batch.batch_size,
            "compute_input": duration(&batch.compute_input),
            "compute_infer": duration(&batch.compute_infer),
            "compute_output": duration(&batch.compute_output),
        })
    };
    json!({
        "name": message.name,
        "version": message.version,
        "last_inference": message.last_inference,
        "inference_count": message.inference_count,
        "execution_count": message.execution_count,
        "inference_stats": {
            "success": duration(&stats.success),
            "fail": duration(&stats.fail),
            "queue": duration(&stats.queue),
            "compute_input": duration(&stats.compute_input),
            "compute_infer": duration(&stats.compute_infer),
            "compute_output": duration(&stats.compute_output),
            "cache_hit": duration(&stats.cache_hit),
            "cache_miss": duration(&stats.cache_miss),
        },
        "batch_stats": message.batch_stats.iter().map(batch).collect::<Value>(),
        "response_stats": {},
        "memory_usage": [],
    })
}

fn duration(message: &Option<pb::StatisticDuration>) -> Value {
    let message = message.unwrap_or_default();
    json!({"count": message.count, "ns": message.ns})
}
