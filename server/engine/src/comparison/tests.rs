//! Comparisons against a plain reference in f64, and the cases that arithmetic alone does not settle.

use bytes::{Bytes, BytesMut};
use expect_test::{Expect, expect};
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::tensor::push_bytes_element;

fn tensor(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    let data: Vec<u8> = values
        .iter()
        .flat_map(|&value| match dtype {
            DType::Bool => vec![u8::from(value != 0.0)],
            DType::Int8 => (value as i8).to_le_bytes().to_vec(),
            DType::Int16 => (value as i16).to_le_bytes().to_vec(),
            DType::Int32 => (value as i32).to_le_bytes().to_vec(),
            DType::Int64 => (value as i64).to_le_bytes().to_vec(),
            DType::Uint8 => (value as u8).to_le_bytes().to_vec(),
            DType::Uint16 => (value as u16).to_le_bytes().to_vec(),
            DType::Uint32 => (value as u32).to_le_bytes().to_vec(),
            DType::Uint64 => (value as u64).to_le_bytes().to_vec(),
            DType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
            DType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
            DType::Fp32 => (value as f32).to_le_bytes().to_vec(),
            DType::Fp64 => value.to_le_bytes().to_vec(),
            DType::Bytes | DType::Narrow(_) => unreachable!("they are made otherwise"),
        })
        .collect();
    Tensor::new(dtype, shape, data.into()).unwrap()
}

fn texts(texts: &[&str]) -> Tensor {
    let mut data = BytesMut::new();
    for text in texts {
        push_bytes_element(&mut data, text.as_bytes()).unwrap();
    }
    Tensor::new(DType::Bytes, [texts.len()].as_slice(), data.freeze()).unwrap()
}

fn check(expected: &Tensor, got: &Tensor, tolerance: Tolerance, text: Expect) {
    let found = match compare(expected, got, tolerance) {
        Ok(Difference { elements, differing, numbers, scores, .. }) => {
            let numbers = numbers.map(|numbers| [numbers.absolute, numbers.relative]);
            let scores = scores.map(|scores| (scores.agreeing, scores.rows, scores.distance));
            format!("{differing} of {elements}, numbers {numbers:?}, scores {scores:?}")
        }
        Err(why) => why,
    };
    text.assert_eq(&found);
}

const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

#[test]
fn every_dtype_is_compared() {
    for dtype in DType::ALL.into_iter().filter(|dtype| *dtype != DType::Bytes) {
        let (one, other) = (tensor(dtype, &[2], &[1.0, 0.0]), tensor(dtype, &[2], &[1.0, 1.0]));
        let difference = compare(&one, &other, EXACT).unwrap();
        assert_eq!((difference.elements, difference.differing), (2, 1), "{dtype}");
        let numbers = difference.numbers.map(|numbers| (numbers.absolute, numbers.relative));
        assert_eq!(numbers, (dtype != DType::Bool).then_some((1.0, 1.0)), "{dtype}");
        let is_float = matches!(dtype, DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64);
        assert_eq!(difference.scores.is_some(), is_float, "{dtype}");
        assert_eq!(compare(&one, &one, EXACT).unwrap().differing, 0, "{dtype}");
    }
    check(
        &texts(&["a", "", "c"]),
        &texts(&["a", "b", "d"]),
        EXACT,
        expect!["2 of 3, numbers None, scores None"],
    );
}

#[test]
fn what_is_no_number_is_equal_to_its_like_alone() {
    let fp64 = |values: &[f64]| tensor(DType::Fp64, &[values.len(), 1], values);
    let odd = fp64(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    check(&odd, &odd, EXACT, expect!["0 of 3, numbers Some([0.0, 0.0]), scores None"]);
    let other = fp64(&[1.0, f64::INFINITY, f64::INFINITY]);
    let loose = Tolerance { absolute: 1e9, relative: 1e9 };
    check(&odd, &other, loose, expect!["2 of 3, numbers Some([inf, inf]), scores None"]);
    let (huge, opposite) = (fp64(&[f64::MAX]), fp64(&[-f64::MAX]));
    check(&huge, &opposite, EXACT, expect!["1 of 1, numbers Some([inf, 2.0]), scores None"]);
}

#[test]
fn whole_numbers_are_exact_and_dtypes_may_differ_where_values_do_not() {
    let whole = |values: &[i64]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::Int64, [values.len()].as_slice(), data.into()).unwrap()
    };
    let apart = (whole(&[i64::MAX, 5]), whole(&[i64::MAX - 1, 8]));
    check(&apart.0, &apart.1, EXACT, expect!["2 of 2, numbers Some([3.0, 0.375]), scores None"]);
    let by_one = Tolerance { absolute: 1.0, relative: 0.0 };
    check(&apart.0, &apart.1, by_one, expect!["1 of 2, numbers Some([3.0, 0.375]), scores None"]);
    let (fp32, fp16) = (tensor(DType::Fp32, &[1], &[0.1]), tensor(DType::Fp16, &[1], &[0.1]));
    check(
        &fp32,
        &fp16,
        Tolerance { absolute: 1e-4, relative: 0.0 },
        expect!["0 of 1, numbers Some([2.4415552616119385e-5, 0.000244155522522993]), scores None"],
    );
    check(
        &whole(&[2]),
        &tensor(DType::Fp32, &[1], &[2.0]),
        EXACT,
        expect!["0 of 1, numbers Some([0.0, 0.0]), scores None"],
    );
}

#[test]
fn what_cannot_be_compared_says_why() {
    let fp32 = |shape: &[usize], values: &[f64]| tensor(DType::Fp32, shape, values);
    check(&fp32(&[2], &[1.0; 2]), &fp32(&[1, 2], &[1.0; 2]), EXACT, expect!["FP32 [1, 2] against FP32 [2]"]);
    check(&fp32(&[1], &[1.0]), &texts(&["1"]), EXACT, expect!["BYTES [1] against FP32 [1]"]);
    let none = Tensor::new(DType::Fp32, [0usize, 3].as_slice(), Bytes::new()).unwrap();
    check(&none, &none, EXACT, expect!["0 of 0, numbers Some([0.0, 0.0]), scores Some((0, 0, 0.0))"]);
}

#[test]
fn scores_are_probabilities_or_logits() {
    let rows = |values: &[f64]| tensor(DType::Fp64, &[values.len() / 2, 2], values);
    let loose = Tolerance { absolute: 1e9, relative: 0.0 };
    // Of probabilities: half of |0.75 - 0.25| + |0.25 - 0.75|.
    check(
        &rows(&[0.75, 0.25]),
        &rows(&[0.25, 0.75]),
        loose,
        expect!["0 of 2, numbers Some([0.5, 0.6666666666666667]), scores Some((0, 1, 0.5))"],
    );
    // Logits may be moved together: softmax does not see it.
    check(
        &rows(&[1.0, 3.0, -2.0, 0.0]),
        &rows(&[2.0, 4.0, -3.0, -1.0]),
        loose,
        expect!["0 of 4, numbers Some([1.0, 1.0]), scores Some((2, 2, 0.0))"],
    );
    // Equal scores, and none at all.
    check(
        &rows(&[0.5, 0.5]),
        &rows(&[0.5, 0.5]),
        loose,
        expect!["0 of 2, numbers Some([0.0, 0.0]), scores Some((1, 1, 0.0))"],
    );
    check(
        &rows(&[f64::NAN, 1.0]),
        &rows(&[0.0, 1.0]),
        loose,
        expect!["1 of 2, numbers Some([inf, inf]), scores Some((0, 1, 1.0))"],
    );
}

/// Pairs of numbers of one dtype: close, far apart, and odd.
fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
    let number = prop_oneof![-1e4..1e4, -1.0..1.0, Just(0.0), Just(f64::NAN), Just(f64::INFINITY)];
    let pair = (number.clone(), number, 0..3u8).prop_map(|(one, other, how): (f64, f64, u8)| match how {
        0 => (one, one),
        1 => (one, one + one.abs() * 1e-3),
        _ => (one, other),
    });
    prop::collection::vec(pair, 1..40)
}

proptest! {
    #[test]
    fn floats_are_compared_as_the_reference_does(
        pairs in pairs(),
        classes in 1..5usize,
        dtype in prop::sample::select(vec![DType::Fp16, DType::Bf16, DType::Fp32, DType::Fp64]),
        absolute in prop_oneof![Just(0.0), 0.0..10.0],
        relative in prop_oneof![Just(0.0), 0.0..0.1],
    ) {
        let rows = pairs.len().div_ceil(classes);
        let mut pairs = pairs;
        pairs.resize(rows * classes, (0.5, 0.5));
        let side = |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).collect::<Vec<f64>>();
        let shape = [rows, classes];
        let expected = tensor(dtype, &shape, &side(|pair| pair.0));
        let got = tensor(dtype, &shape, &side(|pair| pair.1));
        let (wanted, given) = (rounded(dtype, &side(|pair| pair.0)), rounded(dtype, &side(|pair| pair.1)));
        let found = compare(&expected, &got, Tolerance { absolute, relative }).unwrap();

        let (mut differing, mut excess, mut most, mut most_relative) = (0, 0.0f64, 0.0f64, 0.0f64);
        for index in 0..wanted.len() {
            let (a, b) = (wanted[index], given[index]);
            let same = a == b || (a.is_nan() && b.is_nan());
            let finite = a.is_finite() && b.is_finite();
            if !(same || finite && (b - a).abs() <= absolute + relative * a.abs()) {
                differing += 1;
                let beyond = (b - a).abs() - (absolute + relative * a.abs());
                excess = excess.max(if finite { beyond } else { f64::INFINITY });
            }
            if !same {
                most = most.max(if finite { (a - b).abs() } else { f64::INFINITY });
                let ratio = (a - b).abs() / a.abs().max(b.abs());
                most_relative = most_relative.max(if finite { ratio } else { f64::INFINITY });
            }
        }
        prop_assert_eq!((found.differing, found.excess), (differing, excess));
        let numbers = found.numbers.unwrap();
        prop_assert_eq!(numbers.absolute, most);
        prop_assert!(numbers.relative == most_relative || (numbers.relative - most_relative).abs() < 1e-9);

        let Some(scores) = found.scores else {
            prop_assert_eq!(classes, 1);
            return Ok(());
        };
        let mut farthest = 0.0f64;
        let mut agreeing = 0;
        for row in 0..rows {
            let range = row * classes..(row + 1) * classes;
            let (a, b) = (&wanted[range.clone()], &given[range]);
            agreeing += usize::from(first_largest(a) == first_largest(b));
            farthest = farthest.max(total_variation(a, b));
        }
        prop_assert_eq!((scores.rows, scores.agreeing), (rows, agreeing));
        prop_assert!((scores.distance - farthest).abs() < 1e-9, "{} and {farthest}", scores.distance);
        prop_assert!((0.0..=1.0).contains(&scores.distance));
    }
}

/// What a dtype makes of numbers.
fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    let round = |value: f64| match dtype {
        DType::Fp16 => f16::from_f64(value).to_f64(),
        DType::Bf16 => bf16::from_f64(value).to_f64(),
        DType::Fp32 => f64::from(value as f32),
        _ => value,
    };
    values.iter().map(|&value| round(value)).collect()
}

/// `numpy.argmax`.
fn first_largest(scores: &[f64]) -> usize {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let nan = scores.iter().position(|score| score.is_nan());
    nan.unwrap_or_else(|| scores.iter().position(|score| *score == largest).unwrap_or(0))
}

/// By the largest event: all classes that the first gives more.
fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    if a.iter().chain(b).any(|score| !score.is_finite()) {
        return if a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a == b) { 0.0 } else { 1.0 };
    }
    let is_distribution =
        |p: &[f64]| p.iter().all(|p| *p >= 0.0) && (0.99..=1.01).contains(&p.iter().sum::<f64>());
    let both = is_distribution(a) && is_distribution(b);
    let distribution = |scores: &[f64]| -> Vec<f64> {
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> =
            scores.iter().map(|score| if both { *score } else { (score - largest).exp() }).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    };
    let (p, q) = (distribution(a), distribution(b));
    p.iter().zip(&q).map(|(p, q)| (p - q).max(0.0)).sum()
}
