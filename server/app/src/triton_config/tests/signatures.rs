//! Configurations against the signatures of model files.

use expect_test::expect;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, TensorSpec};

use super::*;

/// A tensor from `x FP32 [n, 3]`: names are symbols, `?` is any size, no brackets mean no known rank.
fn spec(text: &str) -> TensorSpec {
    let (name, rest) = text.split_once(' ').unwrap();
    let (dtype, shape) = rest.split_once(' ').map_or((rest, None), |(dtype, shape)| (dtype, Some(shape)));
    let dim = |text: &str| match text.parse() {
        Ok(size) => Dim::Fixed(size),
        Err(_) if text == "?" => Dim::Dynamic(None),
        Err(_) => Dim::Dynamic(Some(text.to_owned())),
    };
    let shape = shape.map(|shape| {
        let inside = shape.trim_matches(['[', ']']);
        inside.split(", ").filter(|dim| !dim.is_empty()).map(dim).collect()
    });
    TensorSpec {
        name: name.trim_end_matches('?').to_owned(),
        dtype: DType::parse(dtype).unwrap(),
        shape,
        optional: name.ends_with('?'),
        labels: Vec::new(),
    }
}

fn signature(inputs: &[&str], outputs: &[&str], batched: bool) -> Signature {
    let specs = |texts: &[&str]| texts.iter().map(|text| spec(text)).collect();
    let batch = if batched {
        BatchAxis::Rows
    } else {
        BatchAxis::None { reason: "input 'x' has a fixed first dimension 3".into() }
    };
    Signature { inputs: specs(inputs), outputs: specs(outputs), batch }
}

/// The notes, one a line, or the refusal.
fn check_against(config: &str, inputs: &[&str], outputs: &[&str], expected: Expect) {
    let first_dims_are_open = inputs.iter().all(|input| input.contains("[n") || input.contains("[?"));
    let signature = signature(inputs, outputs, first_dims_are_open);
    let config = parse_pbtxt(config).unwrap();
    expected
        .assert_eq(&check_signature(&config, &signature).map_or_else(|why| why, |notes| notes.join("\n")));
}

fn one(max_batch_size: u32, dims: &str) -> String {
    format!(
        "max_batch_size: {max_batch_size} input {{ name: 'x' data_type: TYPE_FP32 dims: {dims} }}
         output {{ name: 'y' data_type: TYPE_FP32 dims: [ 2 ] reshape {{ shape: [ 2, 1 ] }} }}"
    )
}

#[test]
fn what_agrees_is_accepted() {
    let empty = expect![];
    check_against("", &["x FP32 [n, 3]"], &["y FP32"], empty);
    check_against(&one(8, "3"), &["x FP32 [n, 3]"], &["y FP32 [n, 2, 1]"], expect![]);
    check_against(&one(8, "[ 3, -1 ]"), &["x FP32 [n, 3, ?]"], &["y FP32"], expect![]);
    check_against(&one(0, "3"), &["x FP32 [3]"], &["y FP32 [2, 1]"], expect![]);
    check_against(&one(0, "[ -1, 3 ]"), &["x FP32 [n, 3]"], &["y FP32 [2, 1]"], expect![]);
    check_against(
        &one(0, "1"),
        &["x FP32 []"],
        &["y FP32 [2, 1]"],
        expect!["input 'x': requests give it shape [], the model file has no dimensions for it"],
    );
    let partly = "input { name: 'x' data_type: TYPE_FP32 dims: 3 }";
    check_against(partly, &["x FP32 [n, 3]"], &["y FP32"], expect![]);
    check_against(partly, &["x FP32 [3]"], &["y FP32"], expect![]);
    check_against(partly, &["x FP32 [3]", "bias? FP32 [3]"], &["y FP32"], expect![]);
}

#[test]
fn what_a_client_should_know_is_noted() {
    check_against(
        &one(8, "3"),
        &["x FP32 [n, ?]"],
        &["y FP32", "z INT64 [n]"],
        expect![[r#"
        input 'x': dims [3] narrow what the model file takes, x FP32 [n, ?]
        output 'z' is not declared, and is served as the model file has it: z INT64 [n]"#]],
    );
    check_against(
        &one(8, "3"),
        &["x FP32"],
        &["y FP32"],
        expect![[r#"
            max_batch_size has no effect: requests run one at a time, because input 'x' has a fixed first dimension 3
            input 'x': dims [3] narrow what the model file takes, x FP32 [?]"#]],
    );
    check_against(
        "max_batch_size: 8",
        &["x FP32 [3]"],
        &["y FP32"],
        expect![
            "max_batch_size has no effect: requests run one at a time, because input 'x' has a fixed first dimension 3"
        ],
    );
    let optional = one(0, "3").replace("dims: 3", "dims: 3 optional: true");
    check_against(
        &optional,
        &["x FP32 [3]"],
        &["y FP32"],
        expect![
            "input 'x': optional has no effect: the model file has no default for it, so every request must give it"
        ],
    );
    check_against(&optional, &["x? FP32 [3]"], &["y FP32"], expect![]);
}

#[test]
fn what_differs_is_named() {
    check_against(
        &one(8, "3"),
        &["x FP64 [n, 3]"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [-1, 3], the model file has x FP64 [n, 3]"],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [n, 4]"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [-1, 3], the model file has x FP32 [n, 4]"],
    );
    check_against(
        &one(8, "-1"),
        &["x FP32 [n, 4]"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [-1, -1], the model file has x FP32 [n, 4]"],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [n, 3, 1]"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [-1, 3], the model file has x FP32 [n, 3, 1]"],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [1, 3]"],
        &["y FP32"],
        expect![
            "the configuration declares input 'x' as FP32 [-1, 3], the model file has x FP32 [1, 3]: max_batch_size is 8, so the first dimension in the file must be open; set max_batch_size to 0 and give all dimensions in dims"
        ],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 []"],
        &["y FP32"],
        expect![
            "the configuration declares input 'x' as FP32 [-1, 3], the model file has x FP32 []: max_batch_size is 8, so the first dimension in the file must be open; set max_batch_size to 0 and give all dimensions in dims"
        ],
    );
    check_against(
        &one(0, "3"),
        &["x FP32 []"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [3], the model file has x FP32 []"],
    );
    check_against(
        &one(0, "3"),
        &["x FP32 [n, 3]"],
        &["y FP32"],
        expect!["the configuration declares input 'x' as FP32 [3], the model file has x FP32 [n, 3]"],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [n, 3]"],
        &["y FP32 [n, 2]"],
        expect![
            "the configuration declares output 'y' as FP32 [-1, 2], reshaped to [-1, 2, 1], the model file has y FP32 [n, 2]"
        ],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [n, 3]"],
        &["z FP32 [n, 2]"],
        expect!["the configuration declares output 'y', the model file has 'z'"],
    );
    check_against(
        &one(8, "3"),
        &[],
        &["y FP32"],
        expect!["the configuration declares input 'x', the model file has none"],
    );
    check_against(
        &one(8, "3"),
        &["x FP32 [n, 3]", "mask BOOL [n]"],
        &["y FP32"],
        expect![
            "the model file has the input mask BOOL [n], which the configuration does not declare; declare every input without a default, or none"
        ],
    );
}

#[test]
fn warm_up_samples_must_fit() {
    let sample = |batch_size: u32, input: &str| {
        format!("model_warmup {{ name: 'a' batch_size: {batch_size} {input} }}")
    };
    let input = |name: &str, dims: &str| {
        format!("inputs {{ key: '{name}' value {{ data_type: TYPE_FP32 dims: {dims} zero_data: true }} }}")
    };
    let file = ["x FP32 [n, 3]"];
    check_against(&sample(4, &input("x", "3")), &file, &["y FP32"], expect![]);
    check_against(
        &sample(4, &input("x", "4")),
        &file,
        &["y FP32"],
        expect![
            "warm-up sample 0 'a': its input 'x' is FP32 [4], which does not fit x FP32 [n, 3] in the model file"
        ],
    );
    check_against(
        &sample(1, &input("z", "3")),
        &file,
        &["y FP32"],
        expect!["warm-up sample 0 'a': the configuration declares input 'z', the model file has 'x'"],
    );
    check_against(
        &sample(1, ""),
        &file,
        &["y FP32"],
        expect!["warm-up sample 0 'a' lacks the input x FP32 [n, 3]"],
    );
    check_against(
        &sample(2, &input("x", "3")),
        &["x FP32 [3]"],
        &["y FP32"],
        expect![
            "warm-up sample 0 'a' has a batch_size of 2, and the model file does not count rows; write 1"
        ],
    );
    let reshaped = "max_batch_size: 2
        input { name: 'x' data_type: TYPE_FP32 dims: [ 1, 3 ] reshape { shape: 3 } } ";
    check_against(
        &format!("{reshaped}{}", sample(2, &input("x", "[ 1, 3 ]"))),
        &file,
        &["y FP32"],
        expect![],
    );
    check_against(
        &format!("{reshaped}{}", sample(2, &input("x", "3"))),
        &file,
        &["y FP32"],
        expect![
            "warm-up sample 0 'a': its input 'x' is FP32 [3], which does not fit x FP32 [n, 3] in the model file"
        ],
    );
}

#[test]
fn shapes_are_carried_over_a_reshape() {
    let config = "max_batch_size: 8 input {
        name: 'x' data_type: TYPE_FP32 dims: [ 2, 4, -1, 6, -1 ] reshape { shape: [ 8, -1, 1, 6, -1 ] } }";
    let input = &parse_pbtxt(config).unwrap().inputs[0];
    let model = input.model_shape(&[5, 2, 4, 7, 6, 9], true).unwrap();
    assert_eq!(model.as_slice(), [5, 8, 7, 1, 6, 9]);
    assert_eq!(input.client_shape(&model, true).unwrap().as_slice(), [5, 2, 4, 7, 6, 9]);
    assert_eq!(input.model_shape(&[2, 4, 7, 6, 9], false).unwrap().as_slice(), [8, 7, 1, 6, 9]);
    assert_eq!(input.model_shape(&[5, 2, 3, 7, 6, 9], true), None, "4 is fixed");
    assert_eq!(input.model_shape(&[2, 4, 7, 6, 9], true), None, "rows are missing");
    assert_eq!(input.model_shape(&[], true), None);
}
