//! Whose memory a tensor is: outputs borrow the runtime's, outlive the instance, and never alias a batch.

use gristmill_engine::backend::{InputView, Placement};
use gristmill_engine::tensor::DType;

use crate::bench::{Aligned, floats, fp32, load, onnx_runtime, run, runtimes};
use gristmill_onnx::BackendChoice;

#[test]
fn outputs_outlive_the_run_the_instance_and_the_model() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "two_outputs").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let kept: Vec<_> = (0..10)
            .map(|step| {
                let outputs = run(&mut *instance, &[Some(fp32(&[1, 4], &[step as f32; 4]))]).unwrap();
                (step, outputs)
            })
            .collect();
        drop(instance);
        drop(model);
        let on_another_thread = std::thread::spawn(move || {
            for (step, outputs) in kept {
                assert_eq!(floats(&outputs[0]), [2.0 * step as f32; 4]);
                assert_eq!(floats(&outputs[1]), [0.5 * step as f32; 4]);
            }
        });
        on_another_thread.join().unwrap();
    }
}

#[test]
fn an_output_that_is_a_weight_outlives_the_model() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "constant_output").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(run(&mut *instance, &[Some(fp32(&[1, 2], &[1., 2.]))]).unwrap());
        }
        drop(instance);
        drop(model);
        for outputs in kept {
            assert_eq!(floats(&outputs[0]), [2., 4.]);
            assert_eq!(floats(&outputs[1]), [0.25, 0.5, 0.75], "{}", choice.name());
        }
    }
}

#[test]
fn an_output_that_is_an_input_does_not_change_with_the_next_batch() {
    for (choice, runtime) in runtimes() {
        for name in ["passthrough", "input_is_output"] {
            let model = load(&runtime, choice, name).unwrap();
            let mut instance = model.instance(Placement::default()).unwrap();
            let input = fp32(&[1, 3], &[1., 2., 3.]);
            let mut batch = Aligned::new(input.data());
            let view = InputView { dtype: DType::Fp32, shape: &[1, 3], data: batch.data() };
            let outputs = instance.run(&[Some(view)]).unwrap();
            batch.overwrite(0);
            assert_eq!(floats(&outputs[0]), [1., 2., 3.], "{name} on {}", choice.name());
        }
    }
}

#[test]
fn slices_of_an_output_share_its_memory() {
    let Some(runtime) = onnx_runtime() else { return };
    let model = load(&runtime, BackendChoice::OnnxRuntime, "unnamed_batch").unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    let outputs = run(&mut *instance, &[Some(fp32(&[4, 3], &[1.; 12]))]).unwrap();
    let whole = &outputs[0];
    let row = whole.rows(2..3);
    assert_eq!(row.data().as_ptr(), whole.data()[24..].as_ptr());
}

#[test]
fn many_runs_do_not_grow_the_process() {
    /// Half of what the runs below pass through, and more than the tests beside this one take.
    const GROWTH_BYTES_MAX: usize = 200 << 20;
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "unnamed_batch").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        let mut runs = |count: usize| {
            for step in 0..count {
                let rows = 10_000 + step % 7;
                let outputs = run(&mut *instance, &[Some(fp32(&[rows, 3], &vec![1.; rows * 3]))]).unwrap();
                assert_eq!(outputs[0].shape(), [rows, 3]);
            }
        };
        runs(50);
        let before = resident_bytes();
        runs(3500);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{} grew by {grown} bytes", choice.name());
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}
