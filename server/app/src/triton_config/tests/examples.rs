//! Configurations as Triton publishes them for ONNX models, with its names and values.

use expect_test::expect;

use gristmill_engine::tuning::{Priorities, TimeoutAction};

use super::*;

#[test]
fn densenet_onnx() {
    let text = r#"
        name: "densenet_onnx"
        platform: "onnxruntime_onnx"
        max_batch_size : 0
        input [
          {
            name: "data_0"
            data_type: TYPE_FP32
            format: FORMAT_NCHW
            dims: [ 3, 224, 224 ]
            reshape { shape: [ 1, 3, 224, 224 ] }
          }
        ]
        output [
          {
            name: "fc6_1"
            data_type: TYPE_FP32
            dims: [ 1000 ]
            reshape { shape: [ 1, 1000, 1, 1 ] }
            label_filename: "densenet_labels.txt"
          }
        ]"#;
    check(
        text,
        expect![[r#"
        name: densenet_onnx
        batching: Never
        input: data_0 FP32 [3, 224, 224] as [1, 3, 224, 224]
        output: fc6_1 FP32 [1000] as [1, 1000, 1, 1], labels in densenet_labels.txt
        note: input[0].format has no effect: FORMAT_NCHW moves no data, and dims say the layout"#]],
    );
}

#[test]
fn inception_onnx() {
    let text = r#"
        name: "inception_onnx"
        platform: "onnxruntime_onnx"
        max_batch_size: 0
        input [ { name: "input:0", data_type: TYPE_FP32, format: FORMAT_NHWC
                  dims: [ 299, 299, 3 ] reshape { shape: [ 1, 299, 299, 3 ] } } ]
        output [ { name: "InceptionV3/Predictions/Softmax:0" data_type: TYPE_FP32
                   dims: [ 1001 ] reshape { shape: [ 1, 1001 ] }
                   label_filename: "inception_labels.txt" } ]
    "#;
    check(
        text,
        expect![[r#"
        name: inception_onnx
        batching: Never
        input: input:0 FP32 [299, 299, 3] as [1, 299, 299, 3]
        output: InceptionV3/Predictions/Softmax:0 FP32 [1001] as [1, 1001], labels in inception_labels.txt
        note: input[0].format has no effect: FORMAT_NHWC moves no data, and dims say the layout"#]],
    );
}

#[test]
fn simple() {
    let text = r#"
        name: "simple"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
        ]
        output [
          { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
        ]
    "#;
    check(
        text,
        expect![[r#"
        name: simple
        batching: UpTo(8)
        input: INPUT0 INT32 [16]
        input: INPUT1 INT32 [16]
        output: OUTPUT0 INT32 [16]
        output: OUTPUT1 INT32 [16]"#]],
    );
}

#[test]
fn simple_string() {
    let text = r#"
        name: "simple_string"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input { name: "INPUT0" data_type: TYPE_STRING dims: 16 }
        input { name: "INPUT1" data_type: TYPE_STRING dims: 16 }
        output < name: "OUTPUT0"; data_type: TYPE_STRING; dims: 16; >
    "#;
    check(
        text,
        expect![[r#"
        name: simple_string
        batching: UpTo(8)
        input: INPUT0 BYTES [16]
        input: INPUT1 BYTES [16]
        output: OUTPUT0 BYTES [16]"#]],
    );
}

/// Of the MLflow plug-in: no name, tensors in blocks of their own, a version policy.
#[test]
fn onnx_float32_int32_int32() {
    let text = r#"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        version_policy: { latest { num_versions: 1 }}
        input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
        input [ { name: "INPUT1" data_type: TYPE_FP32 dims: [ 16 ] } ]
        output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] } ]
        output [ { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
    "#;
    check(
        text,
        expect![[r#"
        versions: Latest(1)
        batching: UpTo(8)
        input: INPUT0 FP32 [16]
        input: INPUT1 FP32 [16]
        output: OUTPUT0 INT32 [16]
        output: OUTPUT1 INT32 [16]"#]],
    );
}

#[test]
fn simple_sequence() {
    let text = r#"
        name: "simple_sequence"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        sequence_batching {
          control_input [
            { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
            { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1.0f ] } ] }
          ]
          direct { minimum_slot_utilization: 5e-1 }
        }
        input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
        output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
        instance_group [ { kind: KIND_CPU } ]
    "#;
    check(
        text,
        expect![
            "line 5: sequence_batching: requests are independent here, and no state is kept between them; export the model with its state as inputs and outputs"
        ],
    );
}

/// The user guide's optimization with TensorRT, without its one brace too many.
#[test]
fn tensorrt() {
    let text = r#"
        backend: "onnxruntime"
        default_model_filename: "model_fp16.onnx"
        optimization { execution_accelerators {
          gpu_execution_accelerator : [ {
            name : "tensorrt"
            parameters { key: "precision_mode" value: "FP16" }
            parameters { key: "max_workspace_size_bytes" value: "1073741824" }
            parameters { key: "trt_engine_cache_enable" value: "true" }
            parameters { key: "trt_engine_cache_path" value: "/tmp/cache" }
          } ]
        }}
    "#;
    check(
        text,
        expect![[r#"
        model file: model_fp16.onnx
        batching: Derived
        provider: tensorrt {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "/tmp/cache", "trt_fp16_enable": "1", "trt_max_workspace_size": "1073741824"}
        provider: cuda {}
        provider: cpu {}"#]],
    );
}

#[test]
fn cuda_on_chosen_devices() {
    let text = r#"
        optimization { execution_accelerators {
          gpu_execution_accelerator : [ {
            name : "cuda"
            parameters { key: "cudnn_conv_use_max_workspace" value: "0" }
            parameters { key: "use_ep_level_unified_stream" value: "True" }
          }, { name: "tensorrt" } ]
        }}
        instance_group [
          { count: 1 kind: KIND_GPU gpus: [ 2 ] },
          { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] },
          { count: 4 kind: KIND_CPU }
        ]
        parameters { key: "cudnn_conv_algo_search" value: { string_value: "1" } }
        parameters { key: "gpu_mem_limit" value: { string_value: "4294967200" } }
    "#;
    check(
        text,
        expect![[r#"
            batching: Derived
            instances: 5
            provider: tensorrt {"device_id": "2,0,1"}
            provider: cuda {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "0", "device_id": "2,0,1", "gpu_mem_limit": "4294967200", "use_ep_level_unified_stream": "1"}
            note: instance_group[2] has no effect: a model runs on GPUs or on the CPU, and another group has it on GPUs
            note: instance_group: the instances are spread evenly over the GPUs of all groups"#]],
    );
}

#[test]
fn openvino_and_threads() {
    let text = r#"
        optimization { graph : { level : 1 } execution_accelerators {
          cpu_execution_accelerator : [ { name : "openvino" } ]
        }}
        parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
        parameters { key: "execution_mode" value: { string_value: "0" } }
        parameters { key: "inter_op_thread_count" value: { string_value: "0" } }
    "#;
    check(
        text,
        expect![[r#"
        batching: Derived
        threads: 2
        provider: openvino {}
        note: optimization.graph.level has no effect: ONNX Runtime applies all its graph optimizations"#]],
    );
}

#[test]
fn instances_on_the_cpu() {
    let text = r#"
        instance_group [
          { count: 2 kind: KIND_CPU host_policy: "policy_0" },
          { count: 3 kind: KIND_CPU rate_limiter {
              resources [ { name: "R1" count: 4 }, { name: "R2" global: True count: 2 } ] priority: 2 } },
          { count: 9 kind: KIND_CPU passive: true }
        ]
        parameters { key: "enable_mem_arena" value: { string_value: "0" } }
    "#;
    check(
        text,
        expect![[r#"
        batching: Derived
        instances: 5
        provider: cpu {"use_arena": "0"}
        note: instance_group[0].host_policy has no effect: the server shares its cores among the instances
        note: instance_group[1].rate_limiter has no effect: each instance runs when it is free
        note: instance_group[2].passive has no effect: its instances would get no requests and are not made"#]],
    );
}

#[test]
fn dynamic_batching() {
    let text = r#"
        name: "identity"
        max_batch_size: 64
        input [ { name: "x" data_type: TYPE_BF16 dims: [ -1, 0x10 ] } ]
        output [ { name: "y" data_type: TYPE_BF16 dims: [ - 1, 020 ] } ]
        dynamic_batching {
          preferred_batch_size: [ 32, 16, 16 ]
          max_queue_delay_microseconds: 100
          preserve_ordering: true
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5000
                                 allow_timeout_override: true max_queue_size: 16 }
          priority_queue_policy { key: 1 value: { max_queue_size: 4 } }
          priority_queue_policy [ { key: 3 value { timeout_action: REJECT } } ]
        }
    "#;
    check(
        text,
        expect![[r#"
            name: identity
            batching: UpTo(64)
            dynamic batching: DynamicBatching { delay: 100µs, preferred_rows: [16, 32], preserve_ordering: true, queue: QueuePolicy { requests_max: Some(16), timeout: Some(5ms), timeout_action: Delay, timeout_can_be_shortened: true }, priorities: Some(Priorities { levels: 3, default_level: 2 }), level_policies: {1: QueuePolicy { requests_max: Some(4), timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }, 3: QueuePolicy { requests_max: None, timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }} }
            input: x BF16 [-1, 16]
            output: y BF16 [-1, 16]
            note: dynamic_batching.preserve_ordering has no effect: requests of one stream are answered in their order, and others as soon as they are done"#]],
    );
    let tuning = parse_pbtxt(text).unwrap().tuning();
    let delay = std::time::Duration::from_micros(100);
    assert_eq!((tuning.batch_rows_max, tuning.batch_delay), (Some(64), Some(delay)));
    assert_eq!((tuning.preferred_rows, tuning.queue_rows_max), (vec![16, 32], None));
    assert_eq!(tuning.priorities, Some(Priorities { levels: 3, default_level: 2 }));
    assert_eq!(tuning.queue_policy.timeout_action, TimeoutAction::Delay);
    assert_eq!(tuning.level_policies[&1].requests_max, Some(4));
    let without = parse_pbtxt("dynamic_batching { default_queue_policy { max_queue_size: 5000 } }");
    let tuning = without.unwrap().tuning();
    assert_eq!(tuning.batch_delay, None, "the cost model decides");
    assert_eq!(tuning.queue_rows_max, Some(5000), "as many rows as requests may wait");
}

#[test]
fn versions() {
    let versions = |text: &str| parse_pbtxt(text).unwrap().version_policy;
    assert_eq!(versions(""), None);
    assert_eq!(versions("version_policy: { all { }}"), Some(VersionPolicy::All));
    assert_eq!(versions("version_policy: { all: {}}"), Some(VersionPolicy::All));
    assert_eq!(versions("version_policy: { latest: { num_versions: 2}}"), Some(VersionPolicy::Latest(2)));
    assert_eq!(versions("version_policy { latest {} }"), Some(VersionPolicy::Latest(1)));
    assert_eq!(
        versions("version_policy: { specific: { versions: [3,1,3]}}"),
        Some(VersionPolicy::Specific(vec![1, 3]))
    );
    check(
        "version_policy { specific { } }",
        expect!["line 1: version_policy.specific.versions: expected at least one version, for example [ 1 ]"],
    );
    check(
        "version_policy { specific { versions: [ 1, 0 ] } }",
        expect!["line 1: version_policy.specific.versions[1]: expected at least 1, got 0"],
    );
    check(
        "version_policy {\n all {}\n latest {}\n}",
        expect!["line 3: version_policy.latest: cannot be given together with all"],
    );
}

#[test]
fn warm_up() {
    let text = r#"
        max_batch_size: 4
        model_warmup [
          {
            name: "zeros"
            batch_size: 1
            inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } }
          },
          {
            name: "mixed"
            batch_size: 4
            inputs { key: "x" value: { data_type: TYPE_FP32 dims: 2 dims: 3 random_data: false } }
            inputs { key: "text" value: { data_type: TYPE_STRING dims: 1 random_data: true } }
            inputs { key: "raw" value: { data_type: TYPE_INT64 dims: [ ] input_data_file: "raw" } }
            count: 3
          },
          { name: "off" }
        ]
    "#;
    check(
        text,
        expect![[r#"
        batching: UpTo(4)
        warm-up: WarmUpSample { name: "zeros", rows: 1, runs: 1, inputs: [WarmUpInput { name: "x", dtype: Fp32, dims: [2, 3], data: Zeros }] }
        warm-up: WarmUpSample { name: "mixed", rows: 4, runs: 3, inputs: [WarmUpInput { name: "raw", dtype: Int64, dims: [], data: File("raw") }, WarmUpInput { name: "text", dtype: Bytes, dims: [1], data: Zeros }, WarmUpInput { name: "x", dtype: Fp32, dims: [2, 3], data: Random }] }
        note: model_warmup[2] has no effect: its batch_size is 0; write 1 to have it run"#]],
    );
}
