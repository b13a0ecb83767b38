//! Runs that fail: whose fault it is, what is said, and that the instance goes on.

use gristmill_engine::backend::Placement;
use gristmill_engine::error::RunError;
use gristmill_onnx::BackendChoice;

use crate::bench::{floats, fp32, int64, load, onnx_runtime, run, run_fixture, runtimes, texts};

#[test]
fn an_index_out_of_range_fails_its_run_alone() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "gather_rows").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let error = run(&mut *instance, &[Some(int64(&[2, 1], &[3, 77]))]).unwrap_err();
        let message = error.to_string();
        match choice {
            BackendChoice::OnnxRuntime => {
                assert!(matches!(error, RunError::Input(_)), "{error:?}");
                assert!(
                    message.starts_with("operator Gather (node 'gather_value'): indices element"),
                    "{message}"
                );
                assert!(message.contains("idx=77"), "{message}");
            }
            _ => assert!(matches!(error, RunError::Failed(_)), "{error:?}"),
        }
        assert!(!message.contains('\n'), "{message:?}");
        for rows in [1, 3, 2] {
            let outputs = run(&mut *instance, &[Some(int64(&[rows, 1], &vec![4; rows]))]).unwrap();
            assert_eq!(floats(&outputs[0]), vec![40.0; rows], "{} goes on", choice.name());
        }
    }
}

#[test]
fn a_shape_that_the_model_cannot_take_is_an_error() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "mlp").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let error = run(&mut *instance, &[Some(fp32(&[1, 3], &[0.; 3]))]).unwrap_err();
        if choice == BackendChoice::OnnxRuntime {
            assert!(matches!(error, RunError::Input(_)), "{error:?}");
            assert!(error.to_string().contains("Got: 3 Expected: 16"), "{error}");
        }
        assert!(run(&mut *instance, &[Some(fp32(&[2, 16], &[0.; 32]))]).is_ok());
    }
}

#[test]
fn strings_of_any_bytes_go_through_onnx_runtime() {
    let values: [&[u8]; 4] = [b"", b"nul\0inside", b"\xff\xfe not UTF-8", "ж".as_bytes()];
    let input = texts(&[2, 2], &values);
    for (choice, runtime) in runtimes() {
        let result = run_fixture(&runtime, choice, "string_pair", std::slice::from_ref(&input));
        if choice == BackendChoice::OnnxRuntime {
            assert_eq!(result.unwrap(), std::slice::from_ref(&input));
        } else {
            let error = result.unwrap_err();
            assert!(matches!(error, RunError::Input(_)), "{error:?}");
            assert!(error.to_string().contains("input 'text': element 2 is not UTF-8"), "{error}");
        }
    }
}

#[test]
fn more_shapes_than_plans_are_kept_for_run() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "unknown_rank").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        for length in (1..=12).chain(1..=12) {
            let outputs = run(&mut *instance, &[Some(fp32(&[length, 1], &vec![2.0; length]))]).unwrap();
            assert_eq!(floats(&outputs[0]), vec![-2.0; length], "{}", choice.name());
        }
    }
}

#[test]
fn a_long_run_gives_the_rows_back() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "slow_rows").unwrap();
        assert!(model.signature().is_batched());
        let mut instance = model.instance(Placement::default()).unwrap();
        let values: Vec<f32> = (0..16).map(|value| value as f32).collect();
        let outputs = run(&mut *instance, &[Some(fp32(&[2, 8], &values))]).unwrap();
        for (actual, expected) in floats(&outputs[0]).iter().zip(&values) {
            assert!((actual - expected).abs() < 1e-3, "{actual} is not {expected} on {}", choice.name());
        }
    }
}

#[test]
fn a_loop_runs_for_as_many_steps_as_it_is_told() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "slow").unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    for (steps, expected) in [(0, 1.0f32), (1, 0.9999), (1000, 0.9999f32.powi(1000))] {
        let outputs =
            run(&mut *instance, &[Some(fp32(&[1, 1], &[1.])), Some(int64(&[1], &[steps]))]).unwrap();
        assert!((floats(&outputs[0])[0] - expected).abs() < 1e-3);
    }
}

#[test]
fn instances_of_one_model_run_side_by_side() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "unnamed_batch").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let model = &model;
                scope.spawn(move || {
                    let mut instance = model.instance(Placement::default()).unwrap();
                    for step in 0..200 {
                        let value = (thread * 1000 + step) as f32;
                        let rows = step % 5 + 1;
                        let input = fp32(&[rows, 3], &vec![value; rows * 3]);
                        let outputs = run(&mut *instance, &[Some(input)]).unwrap();
                        assert_eq!(floats(&outputs[0]), vec![value + 1.0; rows * 3]);
                    }
                });
            }
        });
    }
}

#[test]
fn a_run_without_end_is_stopped_and_the_instance_goes_on() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "slow").unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    let inputs = |steps| [Some(fp32(&[1, 1], &[1.])), Some(int64(&[1], &[steps]))];
    let stopper = instance.stopper();
    assert_eq!(stopper.obstacle(), None);
    let running = std::thread::spawn(move || {
        let error = run(&mut *instance, &inputs(i64::MAX)).unwrap_err();
        (instance, error)
    });
    stopper.stop();
    let (mut instance, error) = running.join().unwrap();
    assert_eq!(error, RunError::Stopped);
    assert_eq!(run(&mut *instance, &inputs(1)).unwrap_err(), RunError::Stopped, "until it is armed again");
    stopper.rearm();
    assert!((floats(&run(&mut *instance, &inputs(1)).unwrap()[0])[0] - 0.9999).abs() < 1e-6);
}

#[test]
fn every_runtime_stops_before_its_next_operator() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "slow_rows").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let stopper = instance.stopper();
        let input = [Some(fp32(&[1, 8], &[1.; 8]))];
        stopper.stop();
        assert_eq!(run(&mut *instance, &input).unwrap_err(), RunError::Stopped, "{}", choice.name());
        stopper.rearm();
        assert_eq!(run(&mut *instance, &input).unwrap()[0].shape(), [1, 8]);
    }
}
