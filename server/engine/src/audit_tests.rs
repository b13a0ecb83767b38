//! Which batches are chosen, what that may take, and what a row that is run again shows.

use super::*;
use crate::tensor::{BatchAxis, DType, Dim, TensorSpec};

fn signature(output: DType) -> Signature {
    let spec = |name: &str, dtype| TensorSpec {
        name: name.into(),
        dtype,
        shape: Some(vec![Dim::Dynamic(None), Dim::Fixed(1)]),
        optional: false,
        labels: Vec::new(),
    };
    Signature {
        inputs: vec![spec("x", DType::Fp32)],
        outputs: vec![spec("y", output)],
        batch: BatchAxis::Rows,
    }
}

fn column(values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Fp32, [values.len(), 1].as_slice(), data.into()).unwrap()
}

fn inputs(values: &[f32]) -> Inputs {
    std::iter::once(Some(column(values))).collect()
}

fn value(inputs: &Inputs) -> f32 {
    let [Some(tensor)] = &inputs[..] else { panic!("one input") };
    f32::from_le_bytes(tensor.data().as_ref().try_into().unwrap())
}

/// A batch of requests with these rows, which gave `outputs`.
fn batch(requests: &[&[f32]], outputs: &[f32], first: usize) -> Option<AuditedBatch> {
    let requests: Vec<(Inputs, usize)> = requests.iter().map(|rows| (inputs(rows), rows.len())).collect();
    let requests = requests.iter().map(|(inputs, rows)| (inputs, *rows));
    AuditedBatch::new(requests, &[column(outputs)], first)
}

/// What a model that doubles rows shows of a batch that gave `outputs`, and the rows that were run.
fn judge(requests: &[&[f32]], outputs: &[f32], first: usize) -> (Finding, Vec<f32>) {
    let signature = signature(DType::Fp32);
    let mut ran = Vec::new();
    let mut run = |inputs: &Inputs| {
        ran.push(value(inputs));
        Some(Ok(vec![column(&[value(inputs) * 2.0])]))
    };
    let batch = batch(requests, outputs, first).unwrap();
    (batch.judge(&signature, RowTolerance::of(&signature), &mut run), ran)
}

#[test]
fn rows_that_give_the_same_alone_are_equal() {
    let (finding, mut ran) = judge(&[&[1.0], &[2.0, 3.0]], &[2.0, 4.0, 6.001], 1);
    ran.sort_by(f32::total_cmp);
    assert_eq!((finding, ran), (Finding::Equal, vec![1.0, 2.0, 3.0]));
}

#[test]
fn a_difference_is_told_by_its_row_and_without_values() {
    let (Finding::Different(difference), _) = judge(&[&[1.0], &[2.0, 3.0]], &[2.0, 4.0, 7.0], 2) else {
        panic!("it differs")
    };
    assert_eq!(
        difference.to_string(),
        "output 'y' of row 2 of a batch of 3 rows was not what the row gives alone: element 0 differs by 25.000 % of \
         the output's scale, and 0.1 % is allowed"
    );
}

#[test]
fn an_extreme_row_hides_nothing() {
    let (finding, _) = judge(&[&[1.0], &[2.0], &[5e5]], &[2.0, 4.1, 1e6], 0);
    assert!(matches!(finding, Finding::Different(Difference { row: 1, .. })), "{finding:?}");
}

#[test]
fn rows_of_large_batches_are_run_from_some_place_on() {
    let rows: Vec<f32> = (0..100).map(|row| row as f32).collect();
    let outputs: Vec<f32> = rows.iter().map(|row| row * 2.0).collect();
    let (halves, first) = (rows.split_at(50), 95);
    let (finding, mut ran) = judge(&[halves.0, halves.1], &outputs, first);
    ran.sort_by(f32::total_cmp);
    let wanted: Vec<f32> = rows[..11].iter().chain(&rows[95..]).copied().collect();
    assert_eq!((finding, ran), (Finding::Equal, wanted));
}

#[test]
fn what_cannot_be_compared_is_left_out() {
    assert!(batch(&[&[1.0]], &[2.0], 0).is_none(), "one row");
    assert!(batch(&[&[1.0], &[2.0]], &[2.0], 0).is_none(), "an output without rows");
    let broadcast = inputs(&[1.0]);
    let batch_of = AuditedBatch::new(std::iter::once((&broadcast, 2)), &[column(&[2.0, 2.0])], 0);
    assert!(batch_of.is_none(), "an input that has other rows");
    let large = vec![0.0; BYTES_MAX / 8 + 1];
    assert!(batch(&[&large], &large, 0).is_none(), "too large to be held");
}

#[test]
fn runs_that_fail_or_end_early_show_nothing() {
    let signature = signature(DType::Fp32);
    let tolerance = RowTolerance::of(&signature);
    let batch = batch(&[&[1.0], &[2.0]], &[2.0, 5.0], 0).unwrap();
    assert_eq!(batch.judge(&signature, tolerance, &mut |_| None), Finding::Nothing);
    let mut failing = |_: &Inputs| Some(Err(RunError::Failed("no memory".into())));
    assert_eq!(batch.judge(&signature, tolerance, &mut failing), Finding::Nothing);
}

#[test]
fn by_the_owners_word_labels_may_be_others_and_numbers_nearly_so() {
    let signature = signature(DType::Fp32);
    let batch = batch(&[&[1.0], &[2.0]], &[2.02, 4.0], 0).unwrap();
    let mut run = |inputs: &Inputs| Some(Ok(vec![column(&[value(inputs) * 2.0])]));
    let live = RowTolerance::of_rounding_live();
    assert_eq!(batch.judge(&signature, live, &mut run), Finding::Equal);
    let strict = RowTolerance::of(&signature);
    assert!(matches!(batch.judge(&signature, strict, &mut run), Finding::Different(_)));
}

#[test]
fn each_batch_has_the_same_chance() {
    for share in [0.001, 0.1, 0.5, 1.0] {
        let mut sampling = Sampling::new(share, 7);
        let batches = 200_000;
        let taken = (0..batches).filter(|_| sampling.takes()).count() as f64;
        let expected = share * f64::from(batches);
        assert!((taken - expected).abs() < 5.0 * expected.sqrt() + 1.0, "{share}: {taken}");
    }
}

#[test]
fn audits_take_at_most_a_two_hundredth_of_the_cores() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut allowance = Allowance::new(2);
    assert!(allowance.allows(start), "the first may begin at once");
    allowance.take(start, Duration::from_millis(10));
    assert!(!allowance.allows(at(999)));
    assert!(allowance.allows(at(1000)), "10 ms of 2000 ms of cores");
    // Whatever comes when: never more than the part, but for the last one.
    let mut allowance = Allowance::new(1);
    let mut taken = 0;
    for ms in 0..1_000_000 {
        if allowance.allows(at(ms)) {
            allowance.take(at(ms), Duration::from_millis(7));
            taken += 7;
        }
    }
    assert!(taken <= 5_000 + 7, "{taken} ms of 1000 s");
}
