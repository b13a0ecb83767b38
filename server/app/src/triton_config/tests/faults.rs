//! Values that are refused, and fields that would change answers.

use expect_test::expect;

use super::*;

#[test]
fn what_would_change_answers_is_refused_by_name() {
    check(
        "platform: 'tensorrt_plan'",
        expect![[
            r#"line 1: platform: only ONNX models are served: expected "onnxruntime_onnx" or nothing, got "tensorrt_plan""#
        ]],
    );
    check(
        "platform: 'ensemble'",
        expect![[
            r#"line 1: platform: only ONNX models are served: expected "onnxruntime_onnx" or nothing, got "ensemble""#
        ]],
    );
    check(
        "backend: 'python'",
        expect![[
            r#"line 1: backend: only ONNX models are served: expected "onnxruntime" or nothing, got "python""#
        ]],
    );
    check(
        "runtime: 'libmine.so'",
        expect![[
            r#"line 1: runtime: only ONNX models are served: expected "libtriton_onnxruntime.so" or nothing, got "libmine.so""#
        ]],
    );
    check(
        "input { name: 'x' data_type: TYPE_FP32 dims: 1\n is_shape_tensor: true }",
        expect![
            "line 2: input[0].is_shape_tensor: only TensorRT's own models have that, and ONNX models are served here; leave it out"
        ],
    );
    check(
        "output { name: 'y' data_type: TYPE_FP32 dims: 1\n is_shape_tensor: true }",
        expect![
            "line 2: output[0].is_shape_tensor: only TensorRT's own models have that, and ONNX models are served here; leave it out"
        ],
    );
    check(
        "input { is_non_linear_format_io: true }",
        expect![
            "line 1: input[0].is_non_linear_format_io: only TensorRT's own models have that, and ONNX models are served here; leave it out"
        ],
    );
    check(
        "output { is_non_linear_format_io: true }",
        expect![
            "line 1: output[0].is_non_linear_format_io: only TensorRT's own models have that, and ONNX models are served here; leave it out"
        ],
    );
    check(
        "input { allow_ragged_batch: true }",
        expect![
            "line 1: input[0].allow_ragged_batch: requests of different shapes are not joined into one batch here; leave it out, and such requests run one after the other"
        ],
    );
    check(
        "batch_input { kind: BATCH_ITEM_SHAPE }",
        expect![
            "line 1: batch_input: requests of different shapes are not joined into one batch here; export the model with an axis for the rows"
        ],
    );
    check(
        "batch_output { target_name: 'y' }",
        expect![
            "line 1: batch_output: requests of different shapes are not joined into one batch here; export the model with an axis for the rows"
        ],
    );
    check(
        "\nsequence_batching { }",
        expect![
            "line 2: sequence_batching: requests are independent here, and no state is kept between them; export the model with its state as inputs and outputs"
        ],
    );
    check(
        "ensemble_scheduling { step { model_name: 'a' } }",
        expect![
            "line 1: ensemble_scheduling: a model is one ONNX file here; join the steps into one graph, or call them in turn"
        ],
    );
    check(
        "instance_group { profile: '1' }",
        expect![
            "line 1: instance_group[0].profile: only TensorRT's own models have profiles, and ONNX models are served here; leave it out"
        ],
    );
    check(
        "cc_model_filenames { key: '7.5' value: 'a.onnx' }",
        expect![
            "line 1: cc_model_filenames: one file serves on every device; name it in default_model_filename"
        ],
    );
    check(
        "model_operations { op_library_filename: 'a.so' }",
        expect![
            "line 1: model_operations.op_library_filename: code beside the model file is not loaded; export the model with standard operators"
        ],
    );
    check(
        "model_transaction_policy { decoupled: true }",
        expect![
            "line 1: model_transaction_policy.decoupled: an ONNX model answers each request exactly once; leave it out"
        ],
    );
    check(
        "model_repository_agents { agents { name: 'checksum' } }",
        expect![
            "line 1: model_repository_agents.agents: there are no agents that change a model on its way; store it as it is to be served"
        ],
    );
}

#[test]
fn tensors_are_checked() {
    check(
        "input { data_type: TYPE_FP32 dims: 1 }",
        expect!["line 1: input[0].name: expected the tensor's name in the model file"],
    );
    check(
        "input { name: 'x' dims: 1 }",
        expect!["line 1: input[0].data_type: expected a type such as TYPE_FP32"],
    );
    check(
        "input { name: 'x' data_type: TYPE_FP32 }",
        expect![
            "line 1: input[0].dims: expected at least one; where a row is one element write [ 1 ] and an empty reshape"
        ],
    );
    check(
        "input { name: 'x' data_type: TYPE_FP32 dims: [ 1,\n 0 ] }",
        expect!["line 2: input[0].dims[1]: expected at least 1, or -1 for any size, got 0"],
    );
    let twice = "input [ { name: 'x' data_type: TYPE_FP32 dims: 1 },\n { name: 'x' } ]";
    check(twice, expect!["line 2: input[1].name: 'x' comes twice"]);
    let reshape = |dims: &str, shape: &str| {
        format!(
            "max_batch_size: 1 input {{ name: 'x' data_type: TYPE_FP32 dims: {dims} reshape {{ {shape} }} }}"
        )
    };
    let huge = "input { name: 'x' data_type: TYPE_FP32 dims: [ 4294967296, -1, 4294967296 ] }";
    check(huge, expect!["line 1: input[0].dims: [4294967296, -1, 4294967296] has too many elements"]);
    check(
        &reshape("[ 2, 3 ]", "shape: 5"),
        expect!["line 1: input[0].reshape: [5] does not hold the elements of dims [2, 3]"],
    );
    check(
        &reshape("[ 2, 4, -1, 6 ]", "shape: [ 8, -1, 2, 3 ]"),
        expect![[r#"
        batching: UpTo(1)
        input: x FP32 [2, 4, -1, 6] as [8, -1, 2, 3]"#]],
    );
    check(
        &reshape("[ 2, -1 ]", "shape: [ -1, 2 ]"),
        expect!["line 1: input[0].reshape: [-1, 2] does not hold the elements of dims [2, -1]"],
    );
    check(
        &reshape("[ -1 ]", ""),
        expect!["line 1: input[0].reshape: [] does not hold the elements of dims [-1]"],
    );
    check(
        &reshape("[ 1 ]", ""),
        expect![[r#"
        batching: UpTo(1)
        input: x FP32 [1] as []"#]],
    );
    let complete = reshape("1", "").replace("max_batch_size: 1", "output { name: 'y' data_type: 1 dims: 1 }");
    check(
        &complete,
        expect![
            "line 1: input[0].reshape: an empty shape needs a max_batch_size above 0, whose rows would remain"
        ],
    );
    let label = |name: &str| {
        format!("output {{ name: 'y' data_type: TYPE_FP32 dims: 1\n label_filename: '{name}' }}")
    };
    check(
        &label("../labels.txt"),
        expect![[
            r#"line 2: output[0].label_filename: expected a relative path without '..', got "../labels.txt""#
        ]],
    );
    check(
        &label("/etc/passwd"),
        expect![[
            r#"line 2: output[0].label_filename: expected a relative path without '..', got "/etc/passwd""#
        ]],
    );
    check(
        "default_model_filename: '..\\\\model.onnx'",
        expect![[
            r#"line 1: default_model_filename: expected a relative path without '..', got "..\\model.onnx""#
        ]],
    );
}

#[test]
fn scheduling_is_checked() {
    check(
        "max_batch_size: 2000000",
        expect!["line 1: max_batch_size: expected 1 to 1048576, or 0 for no batch axis, got 2000000"],
    );
    check(
        "dynamic_batching { max_queue_delay_microseconds: 60000001 }",
        expect![
            "line 1: dynamic_batching.max_queue_delay_microseconds: expected at most 60000000, a minute, got 60000001"
        ],
    );
    check(
        "max_batch_size: 8\ndynamic_batching {\n preferred_batch_size: [ 4, 9 ] }",
        expect!["line 3: dynamic_batching.preferred_batch_size[1]: expected 1 to max_batch_size, 8, got 9"],
    );
    check(
        "dynamic_batching { priority_levels: 2 }",
        expect!["line 1: dynamic_batching.default_priority_level: expected 1 to priority_levels, 2, got 0"],
    );
    check(
        "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        expect!["line 1: dynamic_batching.default_priority_level: expected 1 to priority_levels, 2, got 3"],
    );
    check(
        "dynamic_batching { priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 2 } }",
        expect![
            "line 1: dynamic_batching.priority_queue_policy[2]: expected a level from 1 to priority_levels, 1"
        ],
    );
    check(
        "instance_group { count: -1 }",
        expect!["line 1: instance_group[0].count: expected 1 to 1024, got -1"],
    );
    check(
        "instance_group [ { count: 1000 }, { count: 1000 } ]",
        expect!["line 1: instance_group: expected at most 1024 instances in all groups together"],
    );
    check(
        "instance_group { kind: KIND_CPU gpus: 0 }",
        expect!["line 1: instance_group[0].gpus: cannot be given with KIND_CPU; leave out one of them"],
    );
    check(
        "instance_group { gpus: -1 }",
        expect!["line 1: instance_group[0].gpus: expected a GPU's number from 0, got -1"],
    );
}

#[test]
fn accelerators_and_parameters_are_checked() {
    let gpu = |inside: &str| {
        let text = "optimization { execution_accelerators { gpu_execution_accelerator { INSIDE } } }";
        text.replace("INSIDE", inside)
    };
    check(
        &gpu("name: 'openvino'"),
        expect![
            "line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].name: there is no accelerator 'openvino' here: expected tensorrt or cuda"
        ],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'precision_mode' value: 'INT4' }"),
        expect![[
            r#"line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[precision_mode]: expected FP32, FP16, BF16 or INT8, got "INT4""#
        ]],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'trt_dla_core' value: 'a' }"),
        expect![[
            r#"line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[trt_dla_core]: expected a whole number, got "a""#
        ]],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'trt_sparsity_enable' value: 'on' }"),
        expect![[
            r#"line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[trt_sparsity_enable]: expected "1", "true", "0" or "false", got "on""#
        ]],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'trt_engine_cache_path' }"),
        expect![[
            r#"line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[trt_engine_cache_path]: expected a text without NUL characters, got ""; or leave it out"#
        ]],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'workspace' value: '1' }"),
        expect![
            "line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[workspace]: there is no such parameter of TensorRT; expected one that the ONNX Runtime backend of Triton documents, for example precision_mode or trt_engine_cache_enable"
        ],
    );
    check(
        &gpu("name: 'tensorrt' parameters { key: 'trt_extra_plugin_lib_paths' value: 'a.so' }"),
        expect![
            "line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[trt_extra_plugin_lib_paths]: code beside the model file is not loaded; leave it out"
        ],
    );
    check(
        &gpu("name: 'cuda' parameters { key: 'user_compute_stream' value: '94' }"),
        expect![
            "line 1: optimization.execution_accelerators.gpu_execution_accelerator[0].parameters[user_compute_stream]: the server decides this itself; leave it out"
        ],
    );
    check(
        &gpu("name: 'cuda' } gpu_execution_accelerator { name: 'cuda'"),
        expect![
            "line 1: optimization.execution_accelerators.gpu_execution_accelerator[1].name: 'cuda' comes twice"
        ],
    );
    let openvino = "optimization { execution_accelerators { cpu_execution_accelerator {
        name: 'openvino' parameters { key: 'num_streams' value: '1' } } } }";
    check(
        openvino,
        expect![
            "line 2: optimization.execution_accelerators.cpu_execution_accelerator[0].parameters[num_streams]: the ONNX Runtime backend of Triton takes no parameter for openvino; set it in a model.toml as an option of the provider"
        ],
    );

    let parameter = |key: &str, text: &str| {
        format!("parameters {{\n key: '{key}'\n value: {{ string_value: '{text}' }} }}")
    };
    check(
        &parameter("intra_op_thread_count", "many"),
        expect![[r#"line 2: parameters[intra_op_thread_count]: expected a whole number, got "many""#]],
    );
    check(
        &parameter("intra_op_thread_count", "5000"),
        expect![
            "line 2: parameters[intra_op_thread_count]: expected 1 to 1024, or 0 for the default, got 5000"
        ],
    );
    check(
        &parameter("execution_mode", "2"),
        expect!["line 2: parameters[execution_mode]: expected 0 or 1, got 2"],
    );
    check(
        &parameter("enable_mem_arena", "maybe"),
        expect![[
            r#"line 2: parameters[enable_mem_arena]: expected "1", "true", "0" or "false", got "maybe""#
        ]],
    );
    check(
        &parameter("cudnn_conv_algo_search", "3"),
        expect![
            "line 2: parameters[cudnn_conv_algo_search]: expected 0 to 2, for EXHAUSTIVE, HEURISTIC, DEFAULT, got 3"
        ],
    );
    check(
        &parameter("gpu_mem_limit", "-1"),
        expect![[r#"line 2: parameters[gpu_mem_limit]: expected a number of bytes, got "-1""#]],
    );
}

#[test]
fn warm_up_samples_are_checked() {
    let sample = |batch_size: u32, input: &str| {
        format!(
            "max_batch_size: 4 model_warmup {{ batch_size: {batch_size}\n inputs {{ key: 'x' value {{\n {input} }} }} }}"
        )
    };
    check(
        &sample(5, ""),
        expect!["line 1: model_warmup[0].batch_size: expected at most 4, by max_batch_size, got 5"],
    );
    check(
        &sample(1, "dims: 1 zero_data: true"),
        expect!["line 2: model_warmup[0].inputs[x].data_type: expected a type such as TYPE_FP32"],
    );
    check(
        &sample(1, "data_type: TYPE_FP32 dims: -1 zero_data: true"),
        expect!["line 3: model_warmup[0].inputs[x].dims: expected the size of each dimension, at least 0"],
    );
    check(
        &sample(1, "data_type: TYPE_FP32 dims: 1"),
        expect![
            "line 2: model_warmup[0].inputs[x]: expected one of zero_data, random_data and input_data_file"
        ],
    );
    check(
        &sample(1, "data_type: TYPE_FP32 dims: 1 zero_data: true random_data: true"),
        expect!["line 3: model_warmup[0].inputs[x].random_data: cannot be given together with zero_data"],
    );
    check(
        &sample(1, "data_type: TYPE_FP32 dims: 1 input_data_file: '../x'"),
        expect![[
            r#"line 3: model_warmup[0].inputs[x].input_data_file: expected a relative path without '..', got "../x""#
        ]],
    );
    check(
        &sample(1, "data_type: TYPE_FP32 dims: 1 input_data_file: ''"),
        expect![
            "line 3: model_warmup[0].inputs[x].input_data_file: expected the name of a file in the directory warmup"
        ],
    );
    // It could be counted, and was asked of the system when the model was loaded, which ended the process.
    check(
        &sample(1, "data_type: TYPE_INT8 dims: [ 1099511627776 ] random_data: true"),
        expect![
            "line 3: model_warmup[0].inputs[x].dims: expected at most 268435456 bytes with all rows of the sample, got INT8 of [1099511627776] by 1"
        ],
    );
    check(
        &sample(4, "data_type: TYPE_FP32 dims: [ 4611686018427387904 ] zero_data: true"),
        expect![
            "line 3: model_warmup[0].inputs[x].dims: expected at most 268435456 bytes with all rows of the sample, got FP32 of [4611686018427387904] by 4"
        ],
    );
}
