//! What is derived from a model file: names, dtypes, shapes, labels, optional inputs, the batch axis.

use gristmill_engine::backend::Model;
use gristmill_engine::tensor::{BatchAxis, DType, Dim};
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions};

use crate::bench::{artifact, fixture, load, onnx_runtime, runtimes};

fn describe(model: &dyn Model) -> String {
    let signature = model.signature();
    let specs = |specs: &[gristmill_engine::tensor::TensorSpec]| {
        let texts: Vec<String> =
            specs.iter().map(|spec| format!("{spec}{}", if spec.optional { "?" } else { "" })).collect();
        texts.join(", ")
    };
    let batch = match &signature.batch {
        BatchAxis::Rows => "rows".to_owned(),
        BatchAxis::None { reason } => reason.clone(),
    };
    format!("{} -> {} | {batch}", specs(&signature.inputs), specs(&signature.outputs))
}

#[test]
fn signatures_come_from_the_file() {
    let expected = [
        ("add_two_inputs", "left FP32 [batch, seq], right FP32 [batch, seq] -> sum FP32 [batch, seq] | rows"),
        ("unnamed_batch", "x FP32 [?, 3] -> y FP32 [?, 3] | rows"),
        (
            "scalar_input",
            "x FP32 [batch, 2], factor FP32 [] -> y FP32 [batch, 2] | input 'factor' is a scalar",
        ),
        ("fixed_batch", "x FP32 [1, 3] -> y FP32 [1, 3] | input 'x' has a fixed first dimension 1"),
        (
            "disagreeing_batch",
            "a FP32 [n, 2], b FP32 [m, 2] -> y FP32 [n, m] | \
             inputs 'a' and 'b' name their first dimensions differently, 'n' and 'm'",
        ),
        ("unknown_rank", "x FP32 [?] -> y FP32 [?] | input 'x' has no stated number of dimensions"),
        (
            "image_and_tokens",
            "image FP32 [batch, 3, h, w], tokens INT64 [batch, seq] -> pooled FP32 [batch, 3], lengths INT64 [batch] \
             | rows",
        ),
        ("shape_of", "x FP32 [batch, seq] -> dims INT64 [2] | output 'dims' depends on the number of rows"),
        ("string_pair", "text BYTES [batch, 2] -> same BYTES [batch, 2] | rows"),
        ("zipmap_strings", "x FP32 [?, 2] -> label BYTES [?], probabilities FP32 [?, 3] | rows"),
        ("zipmap_integers", "x FP32 [?, 2] -> label INT64 [?], probabilities FP32 [?, 3] | rows"),
        ("trees", "a FP32 [?, 1], b FP32 [?, 1] -> label INT64 [?], probabilities FP32 [?, 3] | rows"),
        ("weights_as_inputs", "x FP32 [batch, 2] -> y FP32 [batch, 2] | rows"),
        (
            "batch_mixing",
            "x FP32 [batch, 3] -> y FP32 [batch, 3] | \
             ReduceMean 'reducemean_mean' averages over axis 0, which counts the rows",
        ),
    ];
    for (choice, runtime) in runtimes() {
        for (name, expected) in expected {
            let model = load(&runtime, choice, name).unwrap();
            assert_eq!(describe(&*model), expected, "{name} on {}", choice.name());
        }
    }
}

#[test]
fn every_dtype_is_known() {
    let Some(runtime) = onnx_runtime() else { return };
    for dtype in DType::ALL {
        let model =
            load(&runtime, BackendChoice::OnnxRuntime, &format!("identity_{}", dtype.name().to_lowercase()));
        let model = model.unwrap();
        assert_eq!(model.signature().inputs[0].dtype, dtype);
        assert_eq!(model.signature().outputs[0].dtype, dtype);
        assert_eq!(model.platform(), "onnxruntime_onnx");
    }
}

#[test]
fn class_labels_are_on_the_probabilities() {
    let expected: [(&str, &[&str]); 4] = [
        ("zipmap_strings", &["no", "perhaps", "yes"]),
        ("zipmap_integers", &["10", "20", "30"]),
        ("classifier_without_zipmap", &["7", "8"]),
        ("trees", &["0", "1", "2"]),
    ];
    for (choice, runtime) in runtimes() {
        for (name, labels) in expected {
            let model = load(&runtime, choice, name).unwrap();
            let outputs = &model.signature().outputs;
            assert_eq!(outputs[1].labels, labels, "{name}");
            assert!(
                outputs[0].labels.is_empty(),
                "{name}: values of the label output are the labels themselves"
            );
        }
    }
}

#[test]
fn an_input_with_a_default_is_optional_or_keeps_it() {
    let Some(runtime) = onnx_runtime() else { return };
    let fixed = load(&runtime, BackendChoice::OnnxRuntime, "overridable_default_fixed").unwrap();
    assert_eq!(
        describe(&*fixed),
        "x FP32 [1, 2], bias FP32 [2]? -> y FP32 [1, 2] | input 'x' has a fixed first dimension 1"
    );
    let batched = load(&runtime, BackendChoice::OnnxRuntime, "overridable_default").unwrap();
    assert_eq!(describe(&*batched), "x FP32 [batch, 2] -> y FP32 [batch, 2] | rows");
    let notes = batched.notes().join("\n");
    assert!(
        notes.contains("input 'bias' keeps its default: its first dimension does not count rows"),
        "{notes}"
    );

    let tract = load(&runtime, BackendChoice::Tract, "overridable_default_fixed").unwrap();
    assert_eq!(tract.signature().inputs.len(), 1);
    let notes = tract.notes().join("\n");
    assert!(notes.contains("input 'bias' keeps its default: tract cannot take it from a request"), "{notes}");
}

#[test]
fn a_dimension_of_any_size_keeps_its_symbol() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "image_and_tokens").unwrap();
        let dims = model.signature().inputs[0].shape.clone().unwrap();
        let symbol = |name: &str| Dim::Dynamic(Some(name.into()));
        assert_eq!(dims, [symbol("batch"), Dim::Fixed(3), symbol("h"), symbol("w")]);
    }
}

#[test]
fn an_owner_says_that_there_is_no_batch_axis() {
    for (choice, runtime) in runtimes() {
        let options = OnnxOptions { backend: choice, is_unbatched: true, ..OnnxOptions::default() };
        let model = OnnxBackend::new(&runtime, options).load(&artifact(&fixture("unnamed_batch"))).unwrap();
        assert_eq!(
            describe(&*model),
            "x FP32 [?, 3] -> y FP32 [?, 3] | model.toml has batch_axis = \"none\""
        );
    }
}
