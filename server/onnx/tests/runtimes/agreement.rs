//! Both runtimes against the arithmetic that the fixtures are made of, and so against each other.

use gristmill_engine::backend::Placement;
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_onnx::BackendChoice;

use crate::bench::{floats, fp32, int64, integers, load, run, run_fixture, runtimes, tensor, texts};

#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{actual} is not {expected}");
    }
}

/// Two rows of three elements with every byte in use.
fn sample(dtype: DType) -> Tensor {
    match dtype {
        DType::Bool => tensor(dtype, &[2, 3], &[[1u8], [0], [1], [1], [0], [0]]),
        DType::Bytes => {
            texts(&[2, 3], &["", "a", "müller", "漢字", "two words", "line\nbreak"].map(str::as_bytes))
        }
        // Halves of bytes differ from each other and from zero, and none makes a NaN.
        dtype => {
            let length = 6 * dtype.size().unwrap();
            let data: Vec<u8> = (0..length).map(|index| (index * 7 % 100 + 1) as u8).collect();
            Tensor::new(dtype, [2usize, 3].as_slice(), data.into()).unwrap()
        }
    }
}

#[test]
fn every_dtype_goes_through_unchanged() {
    for (choice, runtime) in runtimes() {
        for dtype in DType::ALL {
            if (choice, dtype) == (BackendChoice::Tract, DType::Bf16) {
                continue;
            }
            let input = sample(dtype);
            let name = format!("identity_{}", dtype.name().to_lowercase());
            let outputs = run_fixture(&runtime, choice, &name, std::slice::from_ref(&input)).unwrap();
            assert_eq!(outputs, [input], "{name} on {}", choice.name());
        }
    }
}

#[test]
fn two_inputs_add_at_any_shape() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "add_two_inputs").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        for (rows, columns) in [(1, 1), (3, 2), (1, 7), (64, 5), (3, 2)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let left = fp32(&[rows, columns], &values);
            let right = fp32(&[rows, columns], &vec![0.5; rows * columns]);
            let outputs = run(&mut *instance, &[Some(left), Some(right)]).unwrap();
            assert_eq!(outputs[0].shape(), [rows, columns]);
            assert_close(&floats(&outputs[0]), &values.iter().map(|value| value + 0.5).collect::<Vec<_>>());
        }
    }
}

#[test]
fn scalars_fixed_shapes_and_unknown_ranks_run() {
    for (choice, runtime) in runtimes() {
        let x = fp32(&[2, 2], &[1., 2., 3., 4.]);
        let outputs = run_fixture(&runtime, choice, "scalar_input", &[x.clone(), fp32(&[], &[3.])]).unwrap();
        assert_close(&floats(&outputs[0]), &[3., 6., 9., 12.]);

        let outputs = run_fixture(&runtime, choice, "fixed_batch", &[fp32(&[1, 3], &[1., 2., 3.])]).unwrap();
        assert_close(&floats(&outputs[0]), &[2., 4., 6.]);

        let model = load(&runtime, choice, "unknown_rank").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        for shape in [&[][..], &[1], &[1, 1, 1], &[1, 1]] {
            let outputs = run(&mut *instance, &[Some(fp32(shape, &[5.]))]).unwrap();
            assert_eq!(outputs[0].shape(), shape);
            assert_close(&floats(&outputs[0]), &[-5.]);
        }

        let [a, b] = [fp32(&[2, 2], &[1., 0., 0., 1.]), fp32(&[3, 2], &[1., 2., 3., 4., 5., 6.])];
        let outputs = run_fixture(&runtime, choice, "disagreeing_batch", &[a, b]).unwrap();
        assert_eq!(outputs[0].shape(), [2, 3]);
        assert_close(&floats(&outputs[0]), &[1., 3., 5., 2., 4., 6.]);

        let outputs = run_fixture(&runtime, choice, "shape_of", &[fp32(&[2, 4], &[0.; 8])]).unwrap();
        assert_eq!(integers(&outputs[0]), [2, 4]);
    }
}

#[test]
fn several_outputs_come_in_signature_order() {
    for (choice, runtime) in runtimes() {
        let outputs =
            run_fixture(&runtime, choice, "two_outputs", &[fp32(&[1, 4], &[1., 2., 3., 4.])]).unwrap();
        assert_close(&floats(&outputs[0]), &[2., 4., 6., 8.]);
        assert_close(&floats(&outputs[1]), &[0.5, 1., 1.5, 2.]);

        let image = fp32(&[2, 3, 1, 2], &[1., 3., 2., 4., 3., 5., 10., 30., 20., 40., 30., 50.]);
        let tokens = int64(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let outputs = run_fixture(&runtime, choice, "image_and_tokens", &[image, tokens]).unwrap();
        assert_close(&floats(&outputs[0]), &[2., 3., 4., 20., 30., 40.]);
        assert_eq!(integers(&outputs[1]), [6, 15]);

        let outputs = run_fixture(&runtime, choice, "casts", &[fp32(&[1, 2], &[3.0, 100.0])]).unwrap();
        let dtypes: Vec<DType> = outputs.iter().map(Tensor::dtype).collect();
        assert_eq!(dtypes, [DType::Int32, DType::Fp64, DType::Uint8, DType::Fp16]);
        assert_eq!(outputs[0].data()[..], [3, 0, 0, 0, 100, 0, 0, 0]);
        assert_eq!(outputs[2].data()[..], [3, 100]);
    }
}

#[test]
fn classifiers_give_labels_and_probabilities() {
    // Softmax of the fixture's scores: x·coefficients + intercepts.
    let x = [1.0f32, 2.0];
    let scores = [0.5 - 2.0 + 0.1, 1.5 + 0.5 - 0.2, -0.75 + 2.0 + 0.3].map(|score: f32| score.exp());
    let total: f32 = scores.iter().sum();
    let expected = scores.map(|score| score / total);
    for (choice, runtime) in runtimes() {
        let outputs = run_fixture(&runtime, choice, "zipmap_integers", &[fp32(&[1, 2], &x)]).unwrap();
        assert_eq!(integers(&outputs[0]), [20]);
        assert_eq!(outputs[1].shape(), [1, 3]);
        assert_close(&floats(&outputs[1]), &expected);
        let rows = fp32(&[2, 2], &[x[0], x[1], 3.0, -3.0]);
        let outputs = run_fixture(&runtime, choice, "zipmap_strings", &[rows]).unwrap();
        assert_eq!(outputs[0].shape(), [2]);
        assert_eq!(outputs[0].bytes_elements().collect::<Vec<_>>(), [&b"perhaps"[..], b"no"]);
        assert_close(&floats(&outputs[1])[..3], &expected);
        let outputs = run_fixture(&runtime, choice, "zipmap_external_data", &[fp32(&[1, 2], &[0., 0.])]);
        assert_close(&floats(&outputs.unwrap()[0]), &[1. / 3.; 3]);
        let [a, b] = [fp32(&[3, 1], &[0.0, 1.0, 1.0]), fp32(&[3, 1], &[-2.0, -2.0, 0.0])];
        let outputs = run_fixture(&runtime, choice, "trees", &[a, b]).unwrap();
        assert_eq!(integers(&outputs[0]), [0, 1, 1]);
        assert_close(&floats(&outputs[1]), &[0.5, 0.25, 0.25, 0., 0.75, 0.25, 0.3, 0.5, 0.2]);
    }
}

#[test]
fn forests_agree() {
    // On, below and above every threshold, and missing.
    let values = [-2.0, -1.0, 0.0, 0.5, 0.75, 1.0, f32::NAN];
    let pairs: Vec<(f32, f32)> = values.iter().flat_map(|&a| values.map(|b| (a, b))).collect();
    let column =
        |pick: fn(&(f32, f32)) -> f32| fp32(&[pairs.len(), 1], &pairs.iter().map(pick).collect::<Vec<_>>());
    let inputs = [column(|pair| pair.0), column(|pair| pair.1)];
    let all = runtimes();
    for name in ["trees", "trees_two_classes", "trees_logit", "trees_regression"] {
        let results: Vec<Vec<Tensor>> = all
            .iter()
            .map(|(choice, runtime)| run_fixture(runtime, *choice, name, &inputs).unwrap())
            .collect();
        let distinct: std::collections::HashSet<_> = results[0][0].data().chunks(4).collect();
        assert!(distinct.len() > 1, "{name} tells rows apart");
        for outputs in &results[1..] {
            for (actual, expected) in outputs.iter().zip(&results[0]) {
                assert_eq!(actual.shape(), expected.shape(), "{name}");
                match actual.dtype() {
                    DType::Fp32 => assert_close(&floats(actual), &floats(expected)),
                    _ => assert_eq!(actual, expected, "{name}"),
                }
            }
        }
    }
}

#[test]
fn weights_inside_and_beside_the_file_give_the_same_results() {
    let all = runtimes();
    for (name, columns) in [("mlp", 16), ("external_data", 64), ("batch_mixing", 3)] {
        let values: Vec<f32> = (0..5 * columns).map(|value| (value as f32 * 0.37).sin()).collect();
        let results: Vec<Vec<f32>> = all
            .iter()
            .map(|(choice, runtime)| {
                let outputs = run_fixture(runtime, *choice, name, &[fp32(&[5, columns], &values)]).unwrap();
                floats(&outputs[0])
            })
            .collect();
        assert!(results[0].iter().any(|value| *value != 0.0), "{name} computes something");
        for result in &results[1..] {
            assert_close(result, &results[0]);
        }
    }
}

#[test]
fn defaults_apply_where_an_optional_input_is_left_out() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "overridable_default_fixed").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let x = fp32(&[1, 2], &[10., 20.]);
        let optional = model.signature().inputs.len() - 1;
        let mut inputs = vec![Some(x.clone())];
        inputs.extend(vec![None; optional]);
        let outputs = run(&mut *instance, &inputs).unwrap();
        assert_close(&floats(&outputs[0]), &[11., 22.]);
        if choice == BackendChoice::OnnxRuntime {
            let outputs = run(&mut *instance, &[Some(x), Some(fp32(&[2], &[5., 5.]))]).unwrap();
            assert_close(&floats(&outputs[0]), &[15., 25.]);
        }
    }
}
