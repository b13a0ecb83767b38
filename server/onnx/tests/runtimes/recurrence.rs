//! Recurrent models: a run begins with the state that the model states, whatever was run, failed or stopped before it.

use gristmill_engine::backend::{Instance, Placement};
use gristmill_engine::error::RunError;
use gristmill_engine::tensor::Tensor;
use gristmill_onnx::BackendChoice;

use crate::bench::{floats, fp32, load, run, runtimes};

const MODELS: [&str; 4] = ["gru", "lstm", "rnn", "running_sum"];

/// Made-up values, other ones for another `seed`.
fn request(name: &str, rows: usize, steps: usize, seed: usize) -> Tensor {
    let shape: &[usize] = if name == "running_sum" { &[steps, 2] } else { &[rows, steps, 2] };
    let elements = shape.iter().product();
    let values: Vec<f32> =
        (0..elements).map(|element: usize| ((element * 5 + seed * 11) % 17) as f32 / 8.0 - 1.0).collect();
    fp32(shape, &values)
}

fn answer(instance: &mut dyn Instance, request: &Tensor) -> Vec<Vec<f32>> {
    let outputs = run(instance, &[Some(request.clone())]).unwrap();
    outputs.iter().map(floats).collect()
}

#[test]
fn a_request_gets_the_same_answer_whatever_came_before_it() {
    for (choice, runtime) in runtimes() {
        for name in MODELS {
            let model = load(&runtime, choice, name).unwrap();
            let fresh = || model.instance(Placement::default()).unwrap();
            let (mine, other) = (request(name, 1, 4, 1), request(name, 1, 4, 2));
            let expected = answer(&mut *fresh(), &mine);
            let expected_other = answer(&mut *fresh(), &other);
            assert_ne!(expected, expected_other);

            let mut instance = fresh();
            let context = format!("{name} on {}", choice.name());
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: cold");
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: again");
            assert_eq!(answer(&mut *instance, &other), expected_other, "{context}: another caller");
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: after another caller");
            answer(&mut *instance, &request(name, 3, 7, 3));
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: after another shape");

            let faulty =
                if name == "running_sum" { fp32(&[1, 5], &[1.; 5]) } else { fp32(&[2, 2], &[1.; 4]) };
            assert!(run(&mut *instance, &[Some(faulty)]).is_err(), "{context}");
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: after a failure");
            instance.stopper().stop();
            let stopped = run(&mut *instance, &[Some(other.clone())]);
            assert!(matches!(stopped, Err(RunError::Stopped)), "{context}: {stopped:?}");
            instance.stopper().rearm();
            assert_eq!(answer(&mut *instance, &mine), expected, "{context}: after a run that was stopped");
        }
    }
}

#[test]
fn a_run_that_is_stopped_at_any_moment_leaves_nothing() {
    for (choice, runtime) in runtimes() {
        for name in MODELS {
            let model = load(&runtime, choice, name).unwrap();
            let mut instance = model.instance(Placement::default()).unwrap();
            let long = request(name, 4, 400, 6);
            let expected = answer(&mut *instance, &long);
            let stopper = instance.stopper();
            for _ in 0..8 {
                // The stop comes before, in or after the run.
                let stopping = std::thread::spawn({
                    let stopper = stopper.clone();
                    move || stopper.stop()
                });
                let context = format!("{name} on {}", choice.name());
                match run(&mut *instance, &[Some(long.clone())]) {
                    Ok(outputs) => assert_eq!(outputs.iter().map(floats).collect::<Vec<_>>(), expected),
                    Err(error) => assert_eq!(error, RunError::Stopped, "{context}"),
                }
                stopping.join().unwrap();
                stopper.rearm();
                assert_eq!(answer(&mut *instance, &long), expected, "{context}");
            }
        }
    }
}

#[test]
fn rows_of_a_recurrent_model_stay_apart() {
    for (choice, runtime) in runtimes() {
        for name in ["gru", "lstm", "rnn"] {
            let model = load(&runtime, choice, name).unwrap();
            let mut instance = model.instance(Placement::default()).unwrap();
            let together = request(name, 3, 4, 5);
            let stacked = answer(&mut *instance, &together);
            for row in 0..3 {
                let alone = answer(&mut *instance, &together.rows(row..row + 1));
                let of_row = &stacked[0][row * 3..row * 3 + 3];
                let close = alone[0].iter().zip(of_row).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(close, "{name} on {}: {alone:?} and {of_row:?}", choice.name());
            }
        }
    }
}

#[test]
fn both_runtimes_agree_on_recurrent_models() {
    let runtimes = runtimes();
    let [(_, tract), (BackendChoice::OnnxRuntime, onnx)] = &runtimes[..] else { return };
    for name in MODELS {
        let request = request(name, 2, 5, 4);
        let answers =
            [(BackendChoice::Tract, tract), (BackendChoice::OnnxRuntime, onnx)].map(|(choice, runtime)| {
                let model = load(runtime, choice, name).unwrap();
                answer(&mut *model.instance(Placement::default()).unwrap(), &request)
            });
        let [ours, theirs] = &answers;
        for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            assert!((a - b).abs() < 1e-5, "{name}: {ours:?} and {theirs:?}");
        }
    }
}
