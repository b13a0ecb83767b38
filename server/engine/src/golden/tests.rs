//! Golden cases against scripted models: what matches, and what each kind of fault is called.

use std::path::PathBuf;

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::*;
use crate::backend::{Artifact, Backend as _, Placement};
use crate::error::RunError;
use crate::tensor::{BatchAxis, DType, Dim};
use crate::testing::{FakeBackend, batched_signature, copy};

fn fp64(shape: &[usize], values: &[f64]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Fp64, shape, data.into()).unwrap()
}

fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Fp32, shape, data.into()).unwrap()
}

fn int64(shape: &[usize], values: &[i64]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Int64, shape, data.into()).unwrap()
}

fn int32(shape: &[usize], values: &[i32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Int32, shape, data.into()).unwrap()
}

fn named(name: &str, tensor: Tensor) -> Vec<NamedTensor> {
    vec![NamedTensor { name: name.into(), tensor }]
}

fn case(x: Tensor, y: Tensor) -> GoldenCase {
    GoldenCase {
        name: "golden.json".into(),
        inputs: named("x", x),
        outputs: named("y", y),
        tolerance: Tolerance::default(),
    }
}

fn run_cases(backend: &FakeBackend, cases: Vec<GoldenCase>) -> String {
    let artifact = Artifact { model: "m".into(), version: 1, path: PathBuf::new(), threads: 1 };
    let model = backend.load(&artifact).unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    match check(&Golden { cases }, model.signature(), &mut *instance) {
        Ok(note) => format!("ok: {note}"),
        Err(error) => format!("error: {error}"),
    }
}

fn expect_one(backend: &FakeBackend, case: GoldenCase, expected: Expect) {
    expected.assert_eq(&run_cases(backend, vec![case]));
}

/// Gives `answer` whatever it is asked.
fn answers(signature: Signature, answer: Tensor) -> FakeBackend {
    FakeBackend::new(signature, move |_| Ok(vec![answer.clone()]))
}

#[test]
fn cases_that_match_are_counted() {
    let identity = FakeBackend::identity(DType::Fp32, &[2]);
    let one = case(fp32(&[1, 2], &[1., 2.]), fp32(&[1, 2], &[1., 2.]));
    let three = case(fp32(&[3, 2], &[1., 2., 3., 4., 5., 6.]), fp32(&[3, 2], &[1., 2., 3., 4., 5., 6.00003]));
    assert_eq!(run_cases(&identity, vec![one.clone()]), "ok: golden inputs: 1 case, 1 row match");
    assert_eq!(run_cases(&identity, vec![one, three]), "ok: golden inputs: 2 cases, 4 rows match");
}

#[test]
fn a_golden_file_without_a_case_or_an_output_proves_nothing() {
    let identity = FakeBackend::identity(DType::Fp32, &[]);
    assert_eq!(run_cases(&identity, vec![]), "error: golden inputs: no case is given; expected one at least");
    let mut silent = case(fp32(&[1], &[1.]), fp32(&[1], &[1.]));
    silent.outputs.clear();
    expect_one(
        &identity,
        silent,
        expect![
            "error: golden inputs, golden.json: no output is given; expected one of the model's at least"
        ],
    );
}

#[test]
fn a_difference_names_the_place_the_numbers_and_the_extent() {
    let identity = FakeBackend::identity(DType::Fp32, &[2]);
    expect_one(
        &identity,
        case(fp32(&[3, 2], &[1., 2., 3., 4., 5., 6.]), fp32(&[3, 2], &[1., 2., 3., 4.5, 5., 7.])),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 2 of 6 elements: row 1 at [1] is expected to be 4.5, got 4.0; the largest difference is 1, row 2 at [1] is expected to be 7.0, got 6.0 (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
    expect_one(
        &FakeBackend::identity(DType::Fp32, &[]),
        case(fp32(&[2], &[1., 0.1]), fp32(&[2], &[1., 0.2])),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 1 of 2 elements: row 1 is expected to be 0.2, got 0.1; the largest difference is 0.1 (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
}

#[test]
fn a_model_without_a_batch_axis_is_compared_by_index() {
    let mut signature = batched_signature(DType::Fp32, &[]);
    signature.batch = BatchAxis::None { reason: "for this test".into() };
    let identity = FakeBackend::new(signature.clone(), |inputs| Ok(vec![copy(&inputs[0])]));
    let matching = case(fp32(&[2], &[1., 2.]), fp32(&[2], &[1., 2.]));
    assert_eq!(run_cases(&identity, vec![matching]), "ok: golden inputs: 1 case match");
    expect_one(
        &identity,
        case(fp32(&[2], &[1., 2.]), fp32(&[2], &[1., 3.])),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 1 of 2 elements: the element at [1] is expected to be 3.0, got 2.0; the largest difference is 1 (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
    signature.outputs[0].shape = Some(vec![]);
    expect_one(
        &answers(signature, fp32(&[], &[2.])),
        case(fp32(&[1], &[1.]), fp32(&[], &[3.])),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 1 of 1 elements: the scalar is expected to be 3.0, got 2.0; the largest difference is 1 (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
}

#[test]
fn the_tolerance_is_that_of_allclose() {
    let signature = batched_signature(DType::Fp64, &[]);
    let matches = |got: f64, expected: f64, absolute: f64, relative: f64| {
        let mut case = case(fp64(&[1], &[0.]), fp64(&[1], &[expected]));
        case.tolerance = Tolerance { absolute, relative };
        run_cases(&answers(signature.clone(), fp64(&[1], &[got])), vec![case]).starts_with("ok")
    };
    assert!(matches(1.5, 1.0, 0.5, 0.0));
    assert!(!matches(1.5000001, 1.0, 0.5, 0.0));
    assert!(matches(110.0, 100.0, 0.0, 0.1));
    // Relative to the expected value, not to the answer.
    assert!(!matches(100.0, 90.0, 0.0, 0.1));
    assert!(matches(-0.0, 0.0, 0.0, 0.0));
    assert!(matches(f64::NAN, f64::NAN, 0.0, 0.0));
    assert!(!matches(f64::NAN, 1.0, 1e9, 1e9));
    assert!(!matches(1.0, f64::NAN, 1e9, 1e9));
    assert!(matches(f64::INFINITY, f64::INFINITY, 0.0, 0.0));
    assert!(!matches(f64::NEG_INFINITY, f64::INFINITY, 1.0, 1.0));
    assert!(!matches(1.0, f64::INFINITY, 1.0, 1.0));
}

#[test]
fn an_answer_that_is_no_number_is_infinitely_far() {
    let signature = batched_signature(DType::Fp32, &[]);
    expect_one(
        &answers(signature, fp32(&[2], &[9., f32::NAN])),
        case(fp32(&[2], &[0., 0.]), fp32(&[2], &[1., 2.])),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 2 of 2 elements: row 0 is expected to be 1.0, got 9.0; the largest difference is inf, row 1 is expected to be 2.0, got NaN (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
}

#[test]
fn whole_numbers_are_exact_unless_a_whole_tolerance_is_given() {
    let identity = FakeBackend::identity(DType::Int64, &[]);
    let mut near = case(int64(&[2], &[1_000_000_000, 5]), int64(&[2], &[1_000_000_001, 5]));
    expect_one(
        &identity,
        near.clone(),
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 1 of 2 elements: row 0 is expected to be 1000000001, got 1000000000; the largest difference is 1 (tolerance: absolute 1e-5, relative 1e-5)"
        ],
    );
    near.tolerance.absolute = 1.0;
    assert_eq!(run_cases(&identity, vec![near]), "ok: golden inputs: 1 case, 2 rows match");
    let mut far = case(int64(&[1], &[i64::MIN]), int64(&[1], &[i64::MAX]));
    far.tolerance.absolute = 1.0;
    assert!(run_cases(&identity, vec![far]).contains("the largest difference is 1.84467e19"));
}

#[test]
fn truth_values_and_text_are_exact() {
    let tolerance = Tolerance { absolute: 10.0, relative: 10.0 };
    let truth = |value: bool| Tensor::new(DType::Bool, [1].as_slice(), vec![u8::from(value)].into()).unwrap();
    let mut different = case(truth(true), truth(false));
    different.tolerance = tolerance;
    expect_one(
        &FakeBackend::identity(DType::Bool, &[]),
        different,
        expect![
            "error: golden inputs, golden.json: output 'y' differs in 1 of 1 elements: row 0 is expected to be false, got true"
        ],
    );
    let text = |texts: &[&str]| Tensor::from_elements([texts.len()].as_slice(), texts).unwrap();
    let identity = FakeBackend::identity(DType::Bytes, &[]);
    let same = case(text(&["a", ""]), text(&["a", ""]));
    assert_eq!(run_cases(&identity, vec![same]), "ok: golden inputs: 1 case, 2 rows match");
    expect_one(
        &identity,
        case(text(&["a", "spam\n"]), text(&["a", &"x".repeat(50)])),
        expect![[
            r#"error: golden inputs, golden.json: output 'y' differs in 1 of 2 elements: row 1 is expected to be "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…", got "spam\n""#
        ]],
    );
}

#[test]
fn numbers_of_general_dtypes_become_the_models() {
    for dtype in DType::ALL.into_iter().filter(|dtype| *dtype != DType::Bytes) {
        let identity = FakeBackend::identity(dtype, &[]);
        for one in [int64(&[2], &[0, 1]), fp64(&[2], &[0., 1.])] {
            let note = run_cases(&identity, vec![case(one.clone(), one)]);
            assert_eq!(note, "ok: golden inputs: 1 case, 2 rows match", "{dtype}");
        }
    }
    // Rounded once, to what the model gives for the same digits.
    let mut exact = case(fp64(&[1], &[0.1]), fp64(&[1], &[0.1]));
    exact.tolerance = Tolerance { absolute: 0.0, relative: 0.0 };
    assert!(run_cases(&FakeBackend::identity(DType::Fp32, &[]), vec![exact]).starts_with("ok"));
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let check = |dtype: DType, x: Tensor, expected: Expect| {
        expect_one(&FakeBackend::identity(dtype, &[]), case(x.clone(), x), expected);
    };
    check(
        DType::Int32,
        fp64(&[2], &[1., 0.5]),
        expect![
            "error: golden inputs, golden.json: input 'x': the element at [1] is 0.5, which INT32 cannot hold"
        ],
    );
    check(
        DType::Uint8,
        int64(&[1], &[-1]),
        expect![
            "error: golden inputs, golden.json: input 'x': the element at [0] is -1, which UINT8 cannot hold"
        ],
    );
    check(
        DType::Bool,
        int64(&[1], &[2]),
        expect![
            "error: golden inputs, golden.json: input 'x': the element at [0] is 2, which BOOL cannot hold"
        ],
    );
    check(
        DType::Fp16,
        int64(&[1], &[70_000]),
        expect![
            "error: golden inputs, golden.json: input 'x': the element at [0] is 70000, which FP16 cannot hold"
        ],
    );
    check(
        DType::Int64,
        fp64(&[1], &[f64::NAN]),
        expect![
            "error: golden inputs, golden.json: input 'x': the element at [0] is NaN, which INT64 cannot hold"
        ],
    );
    check(
        DType::Bytes,
        int64(&[1], &[1]),
        expect!["error: golden inputs, golden.json: input 'x': expected datatype BYTES, got INT64"],
    );
    check(
        DType::Fp32,
        int32(&[1], &[1]),
        expect!["error: golden inputs, golden.json: input 'x': expected datatype FP32, got INT32"],
    );
}

#[test]
fn wrong_names_shapes_and_outputs_are_told() {
    let identity = FakeBackend::identity(DType::Fp32, &[2]);
    let sound = case(fp32(&[1, 2], &[1., 2.]), fp32(&[1, 2], &[1., 2.]));
    let mut wrong = sound.clone();
    wrong.inputs[0].name = "z".into();
    expect_one(
        &identity,
        wrong,
        expect!["error: golden inputs, golden.json: unexpected input 'z': the model takes 'x'"],
    );
    let mut wrong = sound.clone();
    wrong.inputs.clear();
    expect_one(
        &identity,
        wrong,
        expect!["error: golden inputs, golden.json: missing input 'x' (FP32 [-1, 2]): the model takes 'x'"],
    );
    let mut wrong = sound.clone();
    wrong.outputs[0].name = "z".into();
    expect_one(
        &identity,
        wrong,
        expect!["error: golden inputs, golden.json: unexpected output 'z': the model gives 'y'"],
    );
    let mut wrong = sound.clone();
    wrong.outputs.push(wrong.outputs[0].clone());
    expect_one(&identity, wrong, expect!["error: golden inputs, golden.json: output 'y' is given twice"]);
    let mut wrong = sound.clone();
    wrong.inputs[0].tensor = fp32(&[2], &[1., 2.]);
    expect_one(
        &identity,
        wrong,
        expect!["error: golden inputs, golden.json: input 'x': expected shape [-1, 2], got [2]"],
    );
    let mut wrong = sound.clone();
    wrong.outputs[0].tensor = fp32(&[2, 1], &[1., 2.]);
    expect_one(
        &identity,
        wrong,
        expect!["error: golden inputs, golden.json: output 'y' differs: expected shape [2, 1], got [1, 2]"],
    );
    let mut wrong = sound;
    wrong.outputs[0].tensor = int32(&[1, 2], &[1, 2]);
    expect_one(
        &identity,
        wrong,
        expect![
            "error: golden inputs, golden.json: output 'y' is not comparable: expected datatype FP32, got INT32"
        ],
    );
}

#[test]
fn a_failing_run_and_a_missing_output_are_told() {
    let signature = batched_signature(DType::Fp32, &[]);
    let sound = case(fp32(&[1], &[1.]), fp32(&[1], &[1.]));
    let failing = FakeBackend::new(signature.clone(), |_| Err(RunError::Failed("out of memory".into())));
    expect_one(
        &failing,
        sound.clone(),
        expect!["error: golden inputs, golden.json: the model does not run: out of memory"],
    );
    let silent = FakeBackend::new(signature.clone(), |_| Ok(vec![]));
    expect_one(
        &silent,
        sound.clone(),
        expect!["error: golden inputs, golden.json: output 'y' is missing: the run gave 0 outputs"],
    );
    expect_one(
        &answers(signature, int32(&[1], &[1])),
        sound,
        expect![
            "error: golden inputs, golden.json: output 'y' is INT32 in a run, FP32 in the model's signature"
        ],
    );
}

#[test]
fn inputs_are_aligned_and_matched_by_name() {
    let mut signature = batched_signature(DType::Fp32, &[]);
    let mut second = signature.inputs[0].clone();
    second.name = "w".into();
    second.shape = Some(vec![Dim::Dynamic(Some("batch".into()))]);
    signature.inputs.push(second);
    let subtract = FakeBackend::new(signature, |inputs| {
        let value = |index: usize| {
            let view = inputs[index].unwrap();
            assert_eq!(view.data.as_ptr().align_offset(64), 0);
            f32::from_le_bytes(view.data[..4].try_into().unwrap())
        };
        Ok(vec![fp32(&[1], &[value(0) - value(1)])])
    });
    let mut case = case(fp32(&[1], &[5.]), fp32(&[1], &[3.]));
    // One byte into an allocation, which no number wants.
    let unaligned = Bytes::from([&[0u8][..], &2f32.to_le_bytes()].concat()).slice(1..);
    let tensor = Tensor::new(DType::Fp32, [1].as_slice(), unaligned).unwrap();
    case.inputs.insert(0, NamedTensor { name: "w".into(), tensor });
    assert_eq!(run_cases(&subtract, vec![case]), "ok: golden inputs: 1 case, 1 row match");
}

#[test]
fn empty_answers_have_a_shape_to_match() {
    let mut signature = batched_signature(DType::Fp32, &[]);
    signature.outputs[0].dtype = DType::Bytes;
    signature.batch = BatchAxis::None { reason: "for this test".into() };
    let none = Tensor::from_elements([0].as_slice(), [""; 0]).unwrap();
    let model = answers(signature, none);
    let empty = case(fp32(&[1], &[1.]), fp64(&[0], &[]));
    assert_eq!(run_cases(&model, vec![empty]), "ok: golden inputs: 1 case match");
    let full = case(fp32(&[1], &[1.]), Tensor::from_elements([1].as_slice(), ["a"]).unwrap());
    assert!(run_cases(&model, vec![full]).ends_with("expected shape [1], got [0]"));
}
