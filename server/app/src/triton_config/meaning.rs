//! What the fields of Triton's `ModelConfig` mean here: every one is used, noted or refused by its name.
//!
//! Messages are taken apart without `..`, so that a field which joins the .proto file does not compile
//! before somebody has decided about it.

use gristmill_proto::inference as pb;
use pb::model_config::SchedulingChoice;
use pb::model_optimization_policy::ModelPriority;
use pb::model_version_policy::{All, Latest, PolicyChoice, Specific};

use super::accelerators::{Accelerators, accelerators};
use super::batching::{self, batching};
use super::document::Fault;
use super::parameters::parameters;
use super::placement::placement;
use super::tensors;
use super::warm_up::warm_up;
use super::{TritonConfig, VersionPolicy, note, relative_path};

const PLATFORM: &str = "onnxruntime_onnx";
const BACKEND: &str = "onnxruntime";
/// What Triton's own backend is called as a file: the only `runtime` that says nothing new.
const RUNTIME: &str = "libtriton_onnxruntime.so";
/// The share of the cores that PRIORITY_MAX stands for, beside models of weight 1. Triton names the order of
/// priorities and no amounts.
const WEIGHT_OF_PRIORITY_MAX: usize = 4;

/// Checks a configuration whose fields have values of the right types.
pub(super) fn read(config: &pb::ModelConfig) -> Result<TritonConfig, Fault> {
    let pb::ModelConfig {
        name,
        platform,
        version_policy,
        max_batch_size,
        input,
        output,
        instance_group,
        default_model_filename,
        cc_model_filenames,
        metric_tags,
        optimization,
        parameters: backend_parameters,
        model_warmup,
        backend,
        model_operations,
        model_transaction_policy,
        batch_input,
        batch_output,
        model_repository_agents,
        response_cache,
        runtime,
        model_metrics,
        scheduling_choice,
    } = config;
    let mut notes = Vec::new();

    refuse_other_models(platform, backend, runtime, &mut notes)?;
    refuse_ragged_batches(batch_input, batch_output)?;
    if model_transaction_policy.is_some_and(|pb::ModelTransactionPolicy { decoupled }| decoupled) {
        let reason = "an ONNX model answers each request exactly once; leave it out";
        return Err(Fault::new("model_transaction_policy.decoupled", reason));
    }
    if model_operations.as_ref().is_some_and(|operations| !operations.op_library_filename.is_empty()) {
        let reason = "code beside the model file is not loaded; export the model with standard operators";
        return Err(Fault::new("model_operations.op_library_filename", reason));
    }
    if model_repository_agents.as_ref().is_some_and(|agents| !agents.agents.is_empty()) {
        let reason = "there are no agents that change a model on its way; store it as it is to be served";
        return Err(Fault::new("model_repository_agents.agents", reason));
    }
    if !cc_model_filenames.is_empty() {
        let reason = "one file serves on every device; name it in default_model_filename";
        return Err(Fault::new("cc_model_filenames", reason));
    }
    if !metric_tags.is_empty() {
        note(&mut notes, "metric_tags", "metrics have the labels model and version");
    }
    if response_cache.is_some_and(|pb::ModelResponseCache { enable }| enable) {
        note(&mut notes, "response_cache", "every request runs the model");
    }
    if model_metrics.as_ref().is_some_and(|metrics| !metrics.metric_control.is_empty()) {
        note(&mut notes, "model_metrics", "histograms have the server's buckets");
    }

    let batching = batching(*max_batch_size, !input.is_empty() && !output.is_empty())?;
    let inputs = tensors::inputs(input, batching, &mut notes)?;
    let outputs = tensors::outputs(output, batching)?;
    let dynamic_batching = match scheduling_choice {
        None => None,
        Some(SchedulingChoice::DynamicBatching(written)) => {
            Some(batching::dynamic_batching(written, batching, &mut notes)?)
        }
        Some(SchedulingChoice::SequenceBatching(_)) => {
            let reason = "requests are independent here, and no state is kept between them; export the model \
                          with its state as inputs and outputs";
            return Err(Fault::new("sequence_batching", reason));
        }
        Some(SchedulingChoice::EnsembleScheduling(_)) => {
            let reason = "a model is one ONNX file here; join the steps into one graph, or call them in turn";
            return Err(Fault::new("ensemble_scheduling", reason));
        }
    };
    let accelerators = read_optimization(optimization.as_ref(), &mut notes)?;
    let weight = weight(optimization.as_ref(), &mut notes);
    let placement = placement(instance_group, &mut notes)?;
    let mut providers = placement.providers(accelerators, &mut notes);
    let parameters = parameters(backend_parameters, &mut notes)?;
    parameters.apply(&mut providers, &mut notes);
    let warm_up = warm_up(model_warmup, batching, &mut notes)?;

    Ok(TritonConfig {
        name: (!name.is_empty()).then(|| name.clone()),
        model_file: relative_path("default_model_filename", default_model_filename)?,
        version_policy: read_version_policy(version_policy.as_ref())?,
        batching,
        dynamic_batching,
        instances: placement.instances,
        threads: parameters.threads,
        weight,
        providers,
        inputs,
        outputs,
        warm_up,
        notes,
    })
}

fn refuse_other_models(
    platform: &str,
    backend: &str,
    runtime: &str,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    let other = |field: &str, value: &str, ours: &str| {
        let reason = format!("only ONNX models are served: expected \"{ours}\" or nothing, got {value:?}");
        Err(Fault::new(field, reason))
    };
    if !platform.is_empty() && platform != PLATFORM {
        return other("platform", platform, PLATFORM);
    }
    if !backend.is_empty() && backend != BACKEND {
        return other("backend", backend, BACKEND);
    }
    if runtime == RUNTIME {
        note(notes, "runtime", "the server runs ONNX models by itself");
    } else if !runtime.is_empty() {
        return other("runtime", runtime, RUNTIME);
    }
    Ok(())
}

fn refuse_ragged_batches(inputs: &[pb::BatchInput], outputs: &[pb::BatchOutput]) -> Result<(), Fault> {
    let reason = "requests of different shapes are not joined into one batch here; export the model with an \
                  axis for the rows";
    if !inputs.is_empty() {
        return Err(Fault::new("batch_input", reason));
    }
    if !outputs.is_empty() {
        return Err(Fault::new("batch_output", reason));
    }
    Ok(())
}

fn read_version_policy(written: Option<&pb::ModelVersionPolicy>) -> Result<Option<VersionPolicy>, Fault> {
    let Some(pb::ModelVersionPolicy { policy_choice: Some(choice) }) = written else { return Ok(None) };
    Ok(Some(match choice {
        PolicyChoice::Latest(Latest { num_versions }) => {
            VersionPolicy::Latest((*num_versions).max(1) as usize)
        }
        PolicyChoice::All(All {}) => VersionPolicy::All,
        PolicyChoice::Specific(Specific { versions }) => {
            let field = "version_policy.specific.versions";
            if versions.is_empty() {
                return Err(Fault::new(field, "expected at least one version, for example [ 1 ]"));
            }
            let mut specific: Vec<u64> = Vec::with_capacity(versions.len());
            for (index, version) in versions.iter().enumerate() {
                match u64::try_from(*version) {
                    Ok(version) if version > 0 => specific.push(version),
                    _ => {
                        let reason = format!("expected at least 1, got {version}");
                        return Err(Fault::new(format!("{field}[{index}]"), reason));
                    }
                }
            }
            specific.sort_unstable();
            specific.dedup();
            VersionPolicy::Specific(specific)
        }
    }))
}

/// What `optimization.priority` comes to beside other models.
fn weight(written: Option<&pb::ModelOptimizationPolicy>, notes: &mut Vec<String>) -> Option<usize> {
    match written?.priority() {
        ModelPriority::PriorityDefault => None,
        ModelPriority::PriorityMax => Some(WEIGHT_OF_PRIORITY_MAX),
        ModelPriority::PriorityMin => {
            let instead = "a model has no less weight than one that says nothing; raise that of the others";
            note(notes, "optimization.priority", instead);
            None
        }
    }
}

fn read_optimization(
    written: Option<&pb::ModelOptimizationPolicy>,
    notes: &mut Vec<String>,
) -> Result<Accelerators, Fault> {
    let Some(written) = written else { return Ok(Accelerators::default()) };
    let pb::ModelOptimizationPolicy {
        graph,
        priority: _,
        cuda,
        execution_accelerators,
        input_pinned_memory,
        output_pinned_memory,
        gather_kernel_buffer_threshold,
        eager_batching,
    } = written;
    // What Triton writes into a complete configuration by itself is not worth a note.
    let pinned = |memory: &Option<pb::model_optimization_policy::PinnedMemoryBuffer>| {
        memory.as_ref().is_some_and(|memory| !memory.enable)
    };
    let graph_level = graph.as_ref().map_or(0, |graph| graph.level);
    let default_cuda = pb::model_optimization_policy::Cuda::default();
    let cuda_is_given = cuda.as_ref().is_some_and(|cuda| *cuda != default_cuda);
    for (is_given, name, instead) in [
        (graph_level != 0, "graph.level", "ONNX Runtime applies all its graph optimizations"),
        (cuda_is_given, "cuda", "options of CUDA and TensorRT are given under execution_accelerators"),
        (pinned(input_pinned_memory), "input_pinned_memory", "ONNX Runtime decides how inputs are copied"),
        (pinned(output_pinned_memory), "output_pinned_memory", "ONNX Runtime decides how outputs are copied"),
        (
            *gather_kernel_buffer_threshold != 0,
            "gather_kernel_buffer_threshold",
            "inputs are gathered in the host's memory",
        ),
        (*eager_batching, "eager_batching", "a batch is gathered when an instance is free"),
    ] {
        if is_given {
            note(notes, format!("optimization.{name}"), instead);
        }
    }
    execution_accelerators.as_ref().map_or_else(|| Ok(Accelerators::default()), accelerators)
}
