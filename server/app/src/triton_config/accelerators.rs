//! `optimization.execution_accelerators`: the accelerators that the ONNX Runtime backend of Triton knows,
//! and the options of ONNX Runtime's providers that their parameters stand for.

use std::collections::{BTreeMap, HashMap};

use gristmill_onnx::{Provider, ProviderKind};
use gristmill_proto::inference as pb;
use pb::model_optimization_policy::ExecutionAccelerators;
use pb::model_optimization_policy::execution_accelerators::Accelerator;

use super::document::Fault;

pub(super) const GPU_FIELD: &str = "optimization.execution_accelerators.gpu_execution_accelerator";
const CPU_FIELD: &str = "optimization.execution_accelerators.cpu_execution_accelerator";

/// Providers in the order in which ONNX Runtime offers operators to them.
#[derive(Debug, Default)]
pub(super) struct Accelerators {
    pub(super) gpu: Vec<Provider>,
    pub(super) cpu: Vec<Provider>,
}

#[derive(Clone, Copy)]
enum Value {
    Flag,
    Whole,
    Text,
}

/// Parameters of TensorRT that ONNX Runtime has by another name. `precision_mode` is one of three options.
const TENSORRT_RENAMED: [(&str, &str, Value); 3] = [
    ("max_workspace_size_bytes", "trt_max_workspace_size", Value::Whole),
    ("int8_calibration_table_name", "trt_int8_calibration_table_name", Value::Text),
    ("int8_use_native_calibration_table", "trt_int8_use_native_calibration_table", Value::Flag),
];

/// Parameters of TensorRT by their own names. `trt_extra_plugin_lib_paths` is refused.
const TENSORRT: [(&str, Value); 27] = [
    ("trt_max_partition_iterations", Value::Whole),
    ("trt_min_subgraph_size", Value::Whole),
    ("trt_dla_enable", Value::Flag),
    ("trt_dla_core", Value::Whole),
    ("trt_engine_cache_enable", Value::Flag),
    ("trt_engine_cache_path", Value::Text),
    ("trt_engine_cache_prefix", Value::Text),
    ("trt_dump_subgraphs", Value::Flag),
    ("trt_force_sequential_engine_build", Value::Flag),
    ("trt_context_memory_sharing_enable", Value::Flag),
    ("trt_layer_norm_fp32_fallback", Value::Flag),
    ("trt_timing_cache_enable", Value::Flag),
    ("trt_timing_cache_path", Value::Text),
    ("trt_force_timing_cache", Value::Flag),
    ("trt_detailed_build_log", Value::Flag),
    ("trt_build_heuristics_enable", Value::Flag),
    ("trt_sparsity_enable", Value::Flag),
    ("trt_builder_optimization_level", Value::Whole),
    ("trt_auxiliary_streams", Value::Whole),
    ("trt_tactic_sources", Value::Text),
    ("trt_profile_min_shapes", Value::Text),
    ("trt_profile_max_shapes", Value::Text),
    ("trt_profile_opt_shapes", Value::Text),
    ("trt_cuda_graph_enable", Value::Flag),
    ("trt_dump_ep_context_model", Value::Flag),
    ("trt_ep_context_file_path", Value::Text),
    ("trt_ep_context_embed_mode", Value::Whole),
];

/// Options of the CUDA provider that are addresses in memory, or that the server itself decides.
const CUDA_REFUSED: [&str; 7] = [
    "device_id",
    "user_compute_stream",
    "has_user_compute_stream",
    "default_memory_arena_cfg",
    "gpu_external_alloc",
    "gpu_external_free",
    "gpu_external_empty_cache",
];

/// Checks the accelerators.
pub(super) fn accelerators(written: &ExecutionAccelerators) -> Result<Accelerators, Fault> {
    let ExecutionAccelerators { gpu_execution_accelerator, cpu_execution_accelerator } = written;
    let gpu =
        providers(GPU_FIELD, gpu_execution_accelerator, |field, accelerator| match &*accelerator.name {
            "tensorrt" => Ok(Some((ProviderKind::TensorRt, tensorrt(field, &accelerator.parameters)?))),
            "cuda" => Ok(Some((ProviderKind::Cuda, cuda(field, &accelerator.parameters)?))),
            _ => Ok(None),
        })?;
    let cpu =
        providers(CPU_FIELD, cpu_execution_accelerator, |field, accelerator| match &*accelerator.name {
            "openvino" => Ok(Some((ProviderKind::OpenVino, openvino(field, &accelerator.parameters)?))),
            _ => Ok(None),
        })?;
    Ok(Accelerators { gpu, cpu })
}

type Options = BTreeMap<String, String>;

fn providers(
    field: &str,
    accelerators: &[Accelerator],
    read: impl Fn(&str, &Accelerator) -> Result<Option<(ProviderKind, Options)>, Fault>,
) -> Result<Vec<Provider>, Fault> {
    let mut providers: Vec<Provider> = Vec::new();
    for (index, accelerator) in accelerators.iter().enumerate() {
        let name = &accelerator.name;
        let expected = if field == CPU_FIELD { "openvino" } else { "tensorrt or cuda" };
        let (kind, options) = read(&format!("{field}[{index}]"), accelerator)?.ok_or_else(|| {
            let reason = format!("there is no accelerator '{name}' here: expected {expected}");
            Fault::new(format!("{field}[{index}].name"), reason)
        })?;
        if providers.iter().any(|provider| provider.kind == kind) {
            return Err(Fault::new(format!("{field}[{index}].name"), format!("'{name}' comes twice")));
        }
        providers.push(Provider { kind, options });
    }
    // Whatever their order in the file: TensorRT first, and CUDA for what it leaves.
    providers.sort_by_key(|provider| provider.kind != ProviderKind::TensorRt);
    Ok(providers)
}

fn tensorrt(field: &str, parameters: &HashMap<String, String>) -> Result<Options, Fault> {
    let mut options = Options::new();
    for (key, text) in sorted(parameters) {
        let field = format!("{field}.parameters[{key}]");
        if key == "precision_mode" {
            let option = match text.as_str() {
                "FP32" => continue,
                "FP16" => "trt_fp16_enable",
                "BF16" => "trt_bf16_enable",
                "INT8" => "trt_int8_enable",
                _ => {
                    let reason = format!("expected FP32, FP16, BF16 or INT8, got {text:?}");
                    return Err(Fault::new(field, reason));
                }
            };
            options.insert(option.to_owned(), "1".to_owned());
            continue;
        }
        if key == "trt_extra_plugin_lib_paths" {
            return Err(Fault::new(field, "code beside the model file is not loaded; leave it out"));
        }
        let renamed =
            TENSORRT_RENAMED.iter().find(|(name, ..)| name == key).map(|(_, to, kind)| (*to, *kind));
        let same = TENSORRT.iter().find(|(name, _)| name == key).map(|(name, kind)| (*name, *kind));
        match renamed.or(same) {
            Some((option, kind)) => {
                options.insert(option.to_owned(), checked(&field, text, kind)?);
            }
            None => {
                let reason = "there is no such parameter of TensorRT; expected one that the ONNX Runtime backend \
                              of Triton documents, for example precision_mode or trt_engine_cache_enable";
                return Err(Fault::new(field, reason));
            }
        }
    }
    Ok(options)
}

/// Parameters of CUDA are the provider's options; ONNX Runtime refuses those that it lacks.
fn cuda(field: &str, parameters: &HashMap<String, String>) -> Result<Options, Fault> {
    let mut options = Options::new();
    for (key, text) in sorted(parameters) {
        let field = format!("{field}.parameters[{key}]");
        if CUDA_REFUSED.contains(&key.as_str()) {
            return Err(Fault::new(field, "the server decides this itself; leave it out"));
        }
        let kind = match key.as_str() {
            "do_copy_in_default_stream" | "use_ep_level_unified_stream" => Value::Flag,
            _ => Value::Text,
        };
        options.insert(key.clone(), checked(&field, text, kind)?);
    }
    Ok(options)
}

/// Triton gives OpenVINO no parameter.
fn openvino(field: &str, parameters: &HashMap<String, String>) -> Result<Options, Fault> {
    match sorted(parameters).next() {
        None => Ok(Options::new()),
        Some((key, _)) => {
            let reason = "the ONNX Runtime backend of Triton takes no parameter for openvino; set it in a \
                          model.toml as an option of the provider";
            Err(Fault::new(format!("{field}.parameters[{key}]"), reason))
        }
    }
}

fn sorted(parameters: &HashMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    parameters.iter().collect::<BTreeMap<_, _>>().into_iter()
}

fn checked(field: &str, text: &str, kind: Value) -> Result<String, Fault> {
    match kind {
        Value::Text if text.is_empty() || text.contains('\0') => Err(Fault::new(
            field,
            format!("expected a text without NUL characters, got {text:?}; or leave it out"),
        )),
        Value::Text => Ok(text.to_owned()),
        Value::Flag => flag(field, text).map(|value| if value { "1" } else { "0" }.to_owned()),
        Value::Whole => whole(field, text).map(|value| value.to_string()),
    }
}

/// A parameter that is true or false, as Triton's backends read it.
pub(super) fn flag(field: &str, text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Fault::new(field, format!("expected \"1\", \"true\", \"0\" or \"false\", got {text:?}"))),
    }
}

/// A parameter that is a whole number.
pub(super) fn whole(field: &str, text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::new(field, format!("expected a whole number, got {text:?}")))
}
