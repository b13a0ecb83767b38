//! What is noted, because it has no effect or another one.

use expect_test::expect;

use super::*;

#[test]
fn what_only_changes_the_speed_is_noted_by_name() {
    let text = r#"
        runtime: "libtriton_onnxruntime.so"
        metric_tags { key: "team" value: "a" }
        response_cache { enable: true }
        model_metrics { metric_control { metric_identifier { family: "nv_inference_first_response_histogram_ms" }
                                         histogram_options { buckets: [ 1, 2.5 ] } } }
        optimization {
          graph { level: -1 }
          priority: PRIORITY_MIN
          cuda { graphs: true graph_spec { batch_size: 1 input { key: "x" value { dim: [ 1 ] } }
                                           graph_lower_bound { batch_size: 1 } } }
          input_pinned_memory { enable: false }
          output_pinned_memory { enable: false }
          gather_kernel_buffer_threshold: 8
          eager_batching: true
          execution_accelerators { gpu_execution_accelerator { name: "cuda" } }
        }
        instance_group [
          { kind: KIND_CPU secondary_devices { kind: KIND_NVDLA device_id: 1 } },
          { kind: KIND_MODEL }
        ]
        parameters { key: "inter_op_thread_count" value: { string_value: "4" } }
        parameters { key: "execution_mode" value: { string_value: "1" } }
        parameters { key: "enable_mem_pattern" value: { string_value: "1" } }
        parameters { key: "memory.enable_memory_arena_shrinkage" value: { string_value: "cpu:0" } }
        parameters { key: "session.use_device_allocator_for_initializers" value: { string_value: "1" } }
        parameters { key: "arena_extend_strategy" value: { string_value: "1" } }
        parameters { key: "do_copy_in_default_stream" value: { string_value: "0" } }
        parameters { key: "owner" value: { string_value: "a" } }
    "#;
    check(
        text,
        expect![[r#"
        batching: Derived
        provider: cpu {}
        note: runtime has no effect: the server runs ONNX models by itself
        note: metric_tags has no effect: metrics have the labels model and version
        note: response_cache has no effect: every request runs the model
        note: model_metrics has no effect: histograms have the server's buckets
        note: optimization.graph.level has no effect: ONNX Runtime applies all its graph optimizations
        note: optimization.cuda has no effect: options of CUDA and TensorRT are given under execution_accelerators
        note: optimization.input_pinned_memory has no effect: ONNX Runtime decides how inputs are copied
        note: optimization.output_pinned_memory has no effect: ONNX Runtime decides how outputs are copied
        note: optimization.gather_kernel_buffer_threshold has no effect: inputs are gathered in the host's memory
        note: optimization.eager_batching has no effect: a batch is gathered when an instance is free
        note: optimization.priority has no effect: a model has no less weight than one that says nothing; raise that of the others
        note: instance_group[0].secondary_devices has no effect: set NVDLA by TensorRT's trt_dla_core
        note: instance_group[1].kind has no effect: KIND_MODEL is taken as KIND_AUTO: ONNX files name no device
        note: optimization.execution_accelerators.gpu_execution_accelerator[cuda] has no effect: instance_group places the model on the CPU
        note: parameters[enable_mem_pattern] has no effect: memory is planned ahead where every dimension of the inputs is fixed
        note: parameters[execution_mode] has no effect: operators of a model run one after the other
        note: parameters[inter_op_thread_count] has no effect: operators of a model run one after the other
        note: parameters[memory.enable_memory_arena_shrinkage] has no effect: memory is given back after runs that were much larger than others, and when nobody asks
        note: parameters[owner] has no effect: the ONNX Runtime backend has no such parameter
        note: parameters[session.use_device_allocator_for_initializers] has no effect: ONNX Runtime's default holds
        note: parameters[arena_extend_strategy] has no effect: nothing here places the model on a GPU; add an instance_group of KIND_GPU
        note: parameters[do_copy_in_default_stream] has no effect: nothing here places the model on a GPU; add an instance_group of KIND_GPU"#]],
    );
}

#[test]
fn the_device_decides_what_holds_of_the_rest() {
    check(
        "instance_group { kind: KIND_GPU }",
        expect![[r#"
        batching: Derived
        provider: cuda {}
        note: instance_group[0].kind: all instances run on the first GPU, where Triton makes some on each; list them in gpus"#]],
    );
    check(
        "instance_group { gpus: 1 }",
        expect![[r#"
        batching: Derived
        provider: cuda {"device_id": "1"}
        provider: cpu {}"#]],
    );
    check(
        "instance_group [ { kind: KIND_CPU }, { count: 2 } ]",
        expect![[r#"
        batching: Derived
        instances: 3
        provider: cpu {}"#]],
    );
    check(
        "instance_group [ { gpus: 1 }, { gpus: 0 } ]",
        expect![[r#"
        batching: Derived
        provider: cuda {"device_id": "1,0"}
        provider: cpu {}"#]],
    );
    check(
        "instance_group { count: 2 gpus: [ 0, 1, 3 ] }",
        expect![[r#"
        batching: Derived
        instances: 6
        provider: cuda {"device_id": "0,1,3"}
        provider: cpu {}"#]],
    );
    check(
        "parameters { key: 'enable_mem_arena' value: { string_value: '0' } }",
        expect![[r#"
        batching: Derived
        note: parameters[enable_mem_arena] has no effect: nothing here names the CPU; add an instance_group of KIND_CPU"#]],
    );
    check(
        "parameters { key: 'enable_mem_arena' value: { string_value: '1' } }",
        expect!["batching: Derived"],
    );
    check(
        "dynamic_batching { priority_queue_policy { key: 1 } }",
        expect![[r#"
            batching: Derived
            dynamic batching: DynamicBatching { delay: 0ns, preferred_rows: [], preserve_ordering: false, queue: QueuePolicy { requests_max: None, timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }, priorities: None, level_policies: {} }
            note: dynamic_batching.priority_queue_policy[1] has no effect: priority_levels is 0, so no request has a priority"#]],
    );
    let complete = "input { name: 'x' data_type: TYPE_FP32 dims: 1 }
                    output { name: 'y' data_type: TYPE_FP32 dims: 1 }
                    dynamic_batching { }";
    check(
        complete,
        expect![[r#"
            batching: Never
            dynamic batching: DynamicBatching { delay: 0ns, preferred_rows: [], preserve_ordering: false, queue: QueuePolicy { requests_max: None, timeout: None, timeout_action: Reject, timeout_can_be_shortened: false }, priorities: None, level_policies: {} }
            input: x FP32 [1]
            output: y FP32 [1]
            note: dynamic_batching has no effect: max_batch_size is 0, so requests run one at a time"#]],
    );
}

#[test]
fn the_highest_priority_is_a_greater_weight() {
    check(
        "optimization { priority: PRIORITY_MAX }",
        expect![[r#"
            batching: Derived
            weight: 4"#]],
    );
    check("optimization { priority: PRIORITY_DEFAULT }", expect!["batching: Derived"]);
}
