//! Models in which sizes decide: what only a run knows of them is right on both runtimes, for every size.

use gristmill_engine::backend::Placement;

use crate::bench::{floats, fp32, load, run, runtimes};

#[test]
fn what_sizes_decide_is_decided_in_each_run() {
    for (choice, runtime) in runtimes() {
        let model = load(&runtime, choice, "decided_by_sizes").unwrap();
        let mut instance = model.instance(Placement::default()).unwrap();
        for rows in [1usize, 2, 5, 4, 7, 5, 12] {
            let values: Vec<f32> = (1..=rows * 2).map(|value| value as f32).collect();
            let outputs = run(&mut *instance, &[Some(fp32(&[rows, 2], &values))]).unwrap();
            let sign = |is_so: bool| if is_so { 1.0 } else { -1.0 };
            let half = ((rows as i64 - 5) / 2) as f32;
            for (output, factor) in outputs.iter().zip([sign(rows == 5), sign(rows % 2 == 1), half]) {
                let expected: Vec<f32> = values.iter().map(|value| value * factor).collect();
                assert_eq!(floats(output), expected, "{rows} rows on {}", choice.name());
            }
        }
    }
}
