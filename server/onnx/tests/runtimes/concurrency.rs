//! Instances of one model that run at the same time: each gets its own answers, whatever the others send, stop or fail at.

use gristmill_engine::backend::{Instance, Placement};
use gristmill_engine::error::RunError;
use gristmill_engine::tensor::Tensor;

use crate::bench::{fp32, int64, load, run, runtimes};

const THREADS: usize = 4;
const RUNS: usize = 300;

/// Requests that differ in their rows and values.
fn requests(name: &str) -> Vec<Tensor> {
    let rows = [1usize, 3, 2, 8, 1, 5, 64];
    let numbers = |rows: usize, step: usize| -> Vec<f32> {
        (0..rows * 16).map(|element| ((element * 7 + step * 13) % 29) as f32 / 8.0 - 1.5).collect()
    };
    let indices =
        |rows: usize, step: usize| -> Vec<i64> { (0..rows).map(|row| ((row + step) % 5) as i64).collect() };
    rows.into_iter()
        .enumerate()
        .map(|(step, rows)| match name {
            "gather_rows" => int64(&[rows, 1], &indices(rows, step)),
            _ => fp32(&[rows, 16], &numbers(rows, step)),
        })
        .collect()
}

/// What fails on this model.
fn faulty(name: &str) -> Tensor {
    match name {
        "gather_rows" => int64(&[2, 1], &[3, 77]),
        _ => fp32(&[1, 3], &[0.; 3]),
    }
}

fn answer(instance: &mut dyn Instance, request: &Tensor) -> Vec<Tensor> {
    run(instance, &[Some(request.clone())]).unwrap()
}

#[test]
fn runs_at_the_same_time_do_not_disturb_each_other() {
    for (choice, runtime) in runtimes() {
        for name in ["mlp", "gather_rows"] {
            let model = load(&runtime, choice, name).unwrap();
            let (requests, faulty) = (requests(name), faulty(name));
            let mut alone = model.instance(Placement::default()).unwrap();
            let expected: Vec<_> = requests.iter().map(|request| answer(&mut *alone, request)).collect();
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let mut instance = model.instance(Placement::default()).unwrap();
                    let (requests, expected, faulty) = (&requests, &expected, &faulty);
                    scope.spawn(move || {
                        let stopper = instance.stopper();
                        for step in 0..RUNS {
                            let index = (step * (thread + 1) + thread) % requests.len();
                            // The last thread's runs are stopped or fail between those that are compared.
                            if thread == THREADS - 1 && step % 2 == 0 {
                                stopper.stop();
                                let stopped = run(&mut *instance, &[Some(requests[index].clone())]);
                                assert!(matches!(stopped, Err(RunError::Stopped)), "{stopped:?}");
                                stopper.rearm();
                                assert!(run(&mut *instance, &[Some(faulty.clone())]).is_err());
                            }
                            let outputs = answer(&mut *instance, &requests[index]);
                            assert_eq!(outputs, expected[index], "{name} on {}", choice.name());
                        }
                    });
                }
            });
            // Answers of a session outlive whoever else ran it.
            let kept = answer(&mut *alone, &requests[0]);
            drop((alone, model));
            assert_eq!(kept, expected[0]);
        }
    }
}
