//! Outputs and inputs that are no plain tensors: sequences of tensors as numbered outputs, and optional values.

use gristmill_engine::backend::Placement;
use gristmill_engine::error::RunError;
use gristmill_onnx::BackendChoice;

use crate::bench::{floats, fp32, load, onnx_runtime, run, run_fixture, runtimes};

#[test]
fn a_sequence_of_tensors_comes_as_numbered_outputs() {
    for (choice, runtime) in runtimes() {
        let outputs = run_fixture(&runtime, choice, "two_targets", &[fp32(&[1, 2], &[1., 3.])]).unwrap();
        let values: Vec<_> = outputs.iter().map(floats).collect();
        assert_eq!(values, [[2., 6.], [0.5, 1.5]], "{}", choice.name());
    }
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "two_targets").unwrap();
    let outputs: Vec<_> = model.signature().outputs.iter().map(ToString::to_string).collect();
    assert_eq!(outputs, ["parts_0 FP32 [batch, 2]", "parts_1 FP32 [batch, 2]"]);
    assert!(model.signature().is_batched());
    let x = fp32(&[2, 3], &[0., 1., 2., 3., 4., 5.]);
    let outputs = run_fixture(&runtime, BackendChoice::OnnxRuntime, "split_columns", &[x]).unwrap();
    assert_eq!(outputs, [fp32(&[2, 1], &[0., 3.]), fp32(&[2, 2], &[1., 2., 4., 5.])]);
}

#[test]
fn an_optional_input_may_be_left_out() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "optional_input").unwrap();
    assert!(model.signature().inputs[0].optional);
    assert!(!model.signature().is_batched());
    let mut instance = model.instance(Placement::default()).unwrap();
    for (x, y, has) in [(None, vec![7.], 0), (Some(fp32(&[2], &[1., 2.])), vec![1., 2.], 1)] {
        let outputs = run(&mut *instance, &[x]).unwrap();
        assert_eq!((floats(&outputs[0]), outputs[1].data()[0]), (y, has));
    }
}

#[test]
fn an_optional_output_is_a_tensor_where_it_has_a_value() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "optional_outputs").unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    let (x, z) = (fp32(&[2], &[1., 2.]), fp32(&[1], &[3.]));
    assert_eq!(run(&mut *instance, &[Some(x.clone()), Some(z.clone())]).unwrap(), [x, z.clone()]);
    let error = run(&mut *instance, &[None, Some(z)]).unwrap_err();
    assert!(matches!(error, RunError::Input(_)), "{error:?}");
    assert!(error.to_string().starts_with("output 'maybe' is optional and has no value"), "{error}");
}
