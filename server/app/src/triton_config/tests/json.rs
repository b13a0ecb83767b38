//! The JSON form of a configuration.

use expect_test::expect;

use super::*;

/// As Triton answers a request for a configuration: every field, most with their defaults.
#[test]
fn a_complete_configuration_is_read() {
    let text = r#"{
        "name": "simple", "platform": "onnxruntime_onnx", "backend": "onnxruntime", "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 8,
        "input": [{"name": "INPUT0", "data_type": "TYPE_INT32", "format": "FORMAT_NONE", "dims": [16],
            "is_shape_tensor": false, "allow_ragged_batch": false, "optional": false,
            "is_non_linear_format_io": false}],
        "output": [{"name": "OUTPUT0", "data_type": "TYPE_INT32", "dims": [16], "label_filename": "",
            "is_shape_tensor": false, "is_non_linear_format_io": false}],
        "batch_input": [], "batch_output": [],
        "optimization": {"priority": "PRIORITY_DEFAULT", "input_pinned_memory": {"enable": true},
            "output_pinned_memory": {"enable": true}, "gather_kernel_buffer_threshold": 0,
            "eager_batching": false},
        "dynamic_batching": {"preferred_batch_size": [8], "max_queue_delay_microseconds": 0,
            "preserve_ordering": false, "priority_levels": 0, "default_priority_level": 0,
            "priority_queue_policy": {}},
        "instance_group": [{"name": "simple_0", "kind": "KIND_CPU", "count": 2, "gpus": [],
            "secondary_devices": [], "profile": [], "passive": false, "host_policy": ""}],
        "default_model_filename": "model.onnx", "cc_model_filenames": {}, "metric_tags": {},
        "parameters": {}, "model_warmup": []
    }"#;
    check_json(
        text,
        expect![[r#"
            name: simple
            model file: model.onnx
            versions: Latest(1)
            batching: UpTo(8)
            dynamic batching: DynamicBatching { delay: 0ns, preferred_rows: [8], preserve_ordering: false, queue: QueuePolicy { requests_max: None, timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }, priorities: None, level_policies: {} }
            instances: 2
            provider: cpu {}
            input: INPUT0 INT32 [16]
            output: OUTPUT0 INT32 [16]"#]],
    );
}

#[test]
fn both_cases_strings_for_integers_and_nulls_are_read() {
    let text = r#"{
        "maxBatchSize": "16", "versionPolicy": {"specific": {"versions": ["2", 1]}},
        "input": [{"name": "x", "dataType": "type_fp32", "dims": ["-1", 3.0], "reshape": null}],
        "output": null,
        "dynamicBatching": {"maxQueueDelayMicroseconds": "500", "defaultPriorityLevel": 1,
            "priorityLevels": 2, "priorityQueuePolicy": {"2": {"timeoutAction": 1}}},
        "parameters": {"intra_op_thread_count": {"stringValue": "3"}},
        "modelWarmup": [{"name": "a", "batchSize": 1, "inputs": {
            "x": {"dataType": 11, "dims": [2, 3], "inputDataFile": "x.bin"}}}],
        "optimization": {"executionAccelerators": {"cpuExecutionAccelerator": [{"name": "openvino"}]}}
    }"#;
    check_json(
        text,
        expect![[r#"
            versions: Specific([1, 2])
            batching: UpTo(16)
            dynamic batching: DynamicBatching { delay: 500µs, preferred_rows: [], preserve_ordering: false, queue: QueuePolicy { requests_max: None, timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }, priorities: Some(Priorities { levels: 2, default_level: 1 }), level_policies: {2: QueuePolicy { requests_max: None, timeout: None, timeout_action: Delay, timeout_can_be_shortened: false }} }
            threads: 3
            provider: openvino {}
            input: x FP32 [-1, 3]
            warm-up: WarmUpSample { name: "a", rows: 1, runs: 1, inputs: [WarmUpInput { name: "x", dtype: Fp32, dims: [2, 3], data: File("x.bin") }] }"#]],
    );
}

#[test]
fn faults_name_the_field() {
    check_json("{", expect!["not JSON: EOF while parsing an object at line 1 column 1"]);
    check_json("[]", expect!["expected a JSON object, got a list"]);
    check_json(
        r#"{"max_batchsize": 8}"#,
        expect![
            "max_batchsize: there is no such field: expected one of name, platform, version_policy, max_batch_size, input, output, instance_group, default_model_filename, cc_model_filenames, metric_tags, dynamic_batching, optimization, sequence_batching, parameters, ensemble_scheduling, model_warmup, backend, model_operations, model_transaction_policy, batch_input, batch_output, model_repository_agents, response_cache, runtime, model_metrics"
        ],
    );
    check_json(r#"{"max_batch_size": 8, "maxBatchSize": 8}"#, expect!["max_batch_size: comes twice"]);
    check_json(r#"{"input": [], "input": []}"#, expect!["input: comes twice"]);
    check_json(
        r#"{"max_batch_size": 8.5}"#,
        expect!["max_batch_size: expected a whole number from -2147483648 to 2147483647, got 8.5"],
    );
    check_json(
        r#"{"max_batch_size": "eight"}"#,
        expect![[r#"max_batch_size: expected a whole number from -2147483648 to 2147483647, got "eight""#]],
    );
    check_json(
        r#"{"max_batch_size": true}"#,
        expect!["max_batch_size: expected a whole number from -2147483648 to 2147483647, got true"],
    );
    check_json(r#"{"name": 8}"#, expect!["name: expected a string in quotes, got 8"]);
    check_json(r#"{"input": {"name": "x"}}"#, expect!["input: expected a list, got a group of fields"]);
    check_json(r#"{"input": [null]}"#, expect!["input[0]: expected a group of fields in braces, got null"]);
    check_json(
        r#"{"input": [{"name": "x", "optional": 1}]}"#,
        expect!["input[0].optional: expected true or false, got 1"],
    );
    check_json(
        r#"{"input": [{"name": "x", "data_type": "FP32"}]}"#,
        expect![[
            r#"input[0].data_type: expected one of TYPE_INVALID, TYPE_BOOL, TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16, got "FP32""#
        ]],
    );
    check_json(r#"{"parameters": [{"key": "a"}]}"#, expect!["parameters: expected an object, got a list"]);
    check_json(
        r#"{"dynamic_batching": {"priority_queue_policy": {"high": {}}}}"#,
        expect![[
            r#"dynamic_batching.priority_queue_policy[high]: expected a whole number from 0 to 18446744073709551615, got "high""#
        ]],
    );
    check_json(
        r#"{"dynamic_batching": {}, "sequence_batching": {}}"#,
        expect!["sequence_batching: cannot be given together with dynamic_batching"],
    );
    check_json(
        r#"{"sequence_batching": {}}"#,
        expect![
            "sequence_batching: requests are independent here, and no state is kept between them; export the model with its state as inputs and outputs"
        ],
    );
}
