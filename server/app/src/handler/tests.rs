//! Tests of the sections against signatures, and of what is made of pictures and scores; the numbers are compared
//! with Pillow's in `tests/python/test_handlers.py`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use expect_test::{Expect, expect};
use gristmill_engine::companions::Companions;
use gristmill_engine::request::{ModelInfo, Response, Timing};
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};

use super::{Handler, Input, JsonBodies, Output};
use crate::config::parse_model_toml;

/// Negative sizes are dynamic.
fn spec(name: &str, dtype: DType, shape: &[i64]) -> TensorSpec {
    let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed);
    let shape = Some(shape.iter().map(dim).collect());
    TensorSpec { name: name.into(), dtype, shape, optional: false, labels: Vec::new() }
}

fn signature(input: &[i64], output: &[i64]) -> Signature {
    Signature {
        inputs: vec![spec("image", DType::Fp32, input)],
        outputs: vec![spec("class", DType::Int64, &[-1]), spec("scores", DType::Fp32, output)],
        batch: BatchAxis::Rows,
    }
}

fn bind(toml: &str, signature: &Signature) -> Result<Handler, String> {
    let model_directory = Path::new("/nowhere");
    parse_model_toml(toml)?.sections.bind(signature, &model_directory.join("1"), model_directory)
}

fn check(toml: &str, input: &[i64], expected: Expect) {
    expected.assert_eq(&match bind(toml, &signature(input, &[-1, 3])) {
        Ok(handler) => {
            let input = handler.input.map(|input| match input {
                Input::Picture(input) => {
                    format!("{:?}", (input.shape, input.color, input.layout, input.shorter_side))
                }
                other => format!("{other:?}"),
            });
            let input = input.unwrap_or_default();
            let output = handler.output.map(|output| match output {
                Output::Classes(classes) => {
                    format!("{:?}", (classes.output, classes.softmax, classes.answer))
                }
                rows => format!("{rows:?}"),
            });
            format!("{input} {}", output.as_deref().unwrap_or("None"))
        }
        Err(why) => why,
    });
}

#[test]
fn most_follows_from_the_model() {
    let image = "input = { kind = \"image\" }";
    check(image, &[-1, 3, 4, 5], expect!["([1, 3, 4, 5], Rgb, Planes, None) None"]);
    check(image, &[-1, 4, 5, 1], expect!["([1, 4, 5, 1], Gray, Interleaved, None) None"]);
    check(image, &[1, 4, 5], expect!["([1, 4, 5], Gray, Planes, None) None"]);
    check(
        "input = { kind = \"image\", size = [4, 5], resize = 7 }",
        &[-1, 3, -1, -1],
        expect!["([1, 3, 4, 5], Rgb, Planes, Some(7)) None"],
    );
    check("output = { kind = \"classes\" }", &[-1, 3, 4, 5], expect![" (1, false, Best(5))"]);
    check(
        "output = { kind = \"label\", softmax = true, tensor = \"scores\" }",
        &[-1, 3, 4, 5],
        expect![" (1, true, Label)"],
    );
}

#[test]
fn rows_are_outputs_as_they_are() {
    check("output = { kind = \"rows\" }", &[-1, 3], expect![" Rows(None)"]);
    check("output = { kind = \"rows\", tensor = \"class\" }", &[-1, 3], expect![" Rows(Some(0))"]);
    check(
        "output = { kind = \"rows\", tensor = \"other\" }",
        &[-1, 3],
        expect!["output.tensor is 'other': expected one of 'class', 'scores'"],
    );
    check(
        "output = { kind = \"rows\", top = 2 }",
        &[-1, 3],
        expect![[r#"output.top is for classes, and output.kind is "rows": leave it out"#]],
    );
    check(
        "output = { kind = \"rows\", softmax = true }",
        &[-1, 3],
        expect![[r#"output.softmax is for classes, and output.kind is "rows": leave it out"#]],
    );
}

#[test]
fn bytes_are_rows_of_the_only_input() {
    let bytes = "input = { kind = \"bytes\" }";
    check(
        bytes,
        &[-1, 3, 4, 5],
        expect![[
            r#"Elements(Elements { name: "image", dtype: Fp32, element_bytes: 4, row: [Fixed(3), Fixed(4), Fixed(5)], has_rows: true }) None"#
        ]],
    );
    check(
        bytes,
        &[-1, 3, -1],
        expect![[
            r#"Elements(Elements { name: "image", dtype: Fp32, element_bytes: 4, row: [Fixed(3), Dynamic(None)], has_rows: true }) None"#
        ]],
    );
    check(
        "input = { kind = \"bytes\", shape = [3, 4, 5] }",
        &[-1, 3, -1, -1],
        expect![[
            r#"Elements(Elements { name: "image", dtype: Fp32, element_bytes: 4, row: [Fixed(3), Fixed(4), Fixed(5)], has_rows: true }) None"#
        ]],
    );
    check(
        bytes,
        &[-1, 3, -1, -1],
        expect![
            "input.shape is not said: expected the sizes of a row, of which input 'image', [-1, 3, -1, -1], leaves several open"
        ],
    );
    check(
        "input = { kind = \"bytes\", shape = [4, 4] }",
        &[-1, 3, -1],
        expect!["input.shape is [4, 4]: expected the sizes of a row of input 'image', which is [-1, 3, -1]"],
    );
    check(
        "input = { kind = \"bytes\", shape = [0] }",
        &[-1, -1],
        expect!["input 'image' has rows without elements: expected sizes of at least 1"],
    );
    check(
        "input = { kind = \"bytes\", tensor = \"x\" }",
        &[-1, 3],
        expect!["input.tensor is 'x': expected one of 'image'"],
    );
    let mut other = signature(&[-1], &[-1, 3]);
    other.inputs[0].dtype = DType::Bytes;
    let why = bind(bytes, &other).unwrap_err();
    assert_eq!(
        why,
        "input 'image' is BYTES, whose elements are no fixed number of bytes: leave the section out"
    );
    other.inputs.push(spec("mask", DType::Fp32, &[-1]));
    let why = bind("input = { kind = \"bytes\", tensor = \"mask\" }", &other).unwrap_err();
    assert_eq!(why, "input.kind is \"bytes\": expected a model with no other input than 'mask'");
}

#[test]
fn bytes_are_whole_rows() {
    let read = |input: &[i64], bytes: usize| {
        let signature = signature(input, &[-1, 3]);
        let handler = bind("input = { kind = \"bytes\" }", &signature).unwrap();
        let Some(Input::Elements(elements)) = handler.input else { panic!("bytes are elements") };
        match elements.read(&vec![0; bytes].into()) {
            Ok(features) => format!("{:?} {}", features.inputs[0].tensor, features.listed),
            Err(error) => error.to_string(),
        }
    };
    expect!["FP32 [1, 3] (12 bytes) false"].assert_eq(&read(&[-1, 3], 12));
    expect!["FP32 [3, 3] (36 bytes) true"].assert_eq(&read(&[-1, 3], 36));
    expect!["input 'image' takes bytes: expected 12, or a multiple, as many as a row has, got 0"]
        .assert_eq(&read(&[-1, 3], 0));
    expect!["input 'image' takes bytes: expected 12, or a multiple, as many as a row has, got 13"]
        .assert_eq(&read(&[-1, 3], 13));
    expect!["FP32 [1, 3, 2] (24 bytes) false"].assert_eq(&read(&[-1, 3, -1], 24));
    expect!["input 'image' takes bytes: expected 12, or a multiple, as many as a step of the dimension that is open has, got 25"].assert_eq(&read(&[-1, 3, -1], 25));
}

#[test]
fn which_bodies_are_json() {
    let bodies = |toml: &str| bind(toml, &signature(&[-1, 3], &[-1, 3])).unwrap().json_bodies();
    assert_eq!(bodies("output = { kind = \"label\" }"), JsonBodies::Begun);
    assert_eq!(bodies("input = { kind = \"csv\", header = false }"), JsonBodies::Whole);
    assert_eq!(bodies("input = { kind = \"bytes\" }"), JsonBodies::None);
    assert_eq!(bodies("input = { kind = \"rows\" }"), JsonBodies::All);
}

#[test]
fn what_does_not_fit_is_refused() {
    let image = "input = { kind = \"image\" }";
    check(
        image,
        &[-1, 7],
        expect!["input 'image' is FP32 [-1, 7]: expected an image, with three dimensions or four"],
    );
    check(image, &[-1, -1, 4, -1], expect![[r#"input.layout is not said: expected "CHW" or "HWC""#]]);
    check(
        image,
        &[-1, 3, -1, -1],
        expect!["input.size is not said, nor by the model: expected [height, width]"],
    );
    check(
        "input = { kind = \"image\", size = [4, 6] }",
        &[-1, 3, 4, 5],
        expect!["input 'image' has 5 columns: expected 6, as input.size and input.color say"],
    );
    check(
        "input = { kind = \"image\", color = \"gray\" }",
        &[-1, 3, 4, 5],
        expect!["input 'image' has 3 channels: expected 1, as input.size and input.color say"],
    );
    check(
        "input = { kind = \"image\", resize = 4 }",
        &[-1, 3, 4, 5],
        expect!["input.resize is 4: expected 5, which is cut out, to 16384"],
    );
    check(
        "input = { kind = \"image\", mean = [0.5] }",
        &[-1, 3, 4, 5],
        expect!["input.mean is [0.5]: expected 3 numbers, one for each channel"],
    );
    check(
        "input = { kind = \"image\", std = [1, 0, 1] }",
        &[-1, 3, 4, 5],
        expect!["input.std is [1.0, 0.0, 1.0]: expected numbers that are not 0"],
    );
    check(
        "input = { kind = \"image\", tensor = \"x\" }",
        &[-1, 3, 4, 5],
        expect!["input.tensor is 'x': expected one of 'image'"],
    );
    check(
        "output = { kind = \"classes\", tensor = \"class\" }",
        &[-1, 3, 4, 5],
        expect!["output 'class' is INT64 [-1]: expected scores of classes by row, FP32 or FP64"],
    );
    check(
        "output = { kind = \"classes\", top = 0 }",
        &[-1, 3, 4, 5],
        expect!["output.top is 0: expected at least 1"],
    );
    check(
        "output = { kind = \"label\", top = 2 }",
        &[-1, 3, 4, 5],
        expect![[r#"output.top is for output.kind = "classes": leave it out"#]],
    );
    check(
        "output = { kind = \"label\", labels = [\"a\"] }",
        &[-1, 3, 4, 5],
        expect!["output.labels has 1: expected 3, one for each class"],
    );
    check(
        "output = { kind = \"label\", labels = \"../labels.txt\" }",
        &[-1, 3, 4, 5],
        expect![[
            r#"output.labels is "../labels.txt": expected a file in the model's directory, or the version's"#
        ]],
    );
    check(
        "output = { kind = \"label\", labels = \"labels.txt\" }",
        &[-1, 3, 4, 5],
        expect![[
            r#"output.labels is "labels.txt": cannot read /nowhere/labels.txt: No such file or directory (os error 2)"#
        ]],
    );
}

fn png(width: u32, height: u32, color: png::ColorType, values: &[u8]) -> Bytes {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(values).unwrap();
    file.into()
}

fn read(toml: &str, input: &[i64], file: &Bytes) -> Result<Vec<f32>, String> {
    let handler = bind(toml, &signature(input, &[-1, 3])).unwrap();
    let Some(Input::Picture(picture)) = handler.input else { panic!("a body is a picture") };
    let tensor = picture.read(file).map_err(|error| error.to_string())?.tensor;
    Ok(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[test]
fn values_are_in_the_models_order() {
    let file = png(2, 1, png::ColorType::Rgb, &[255, 0, 51, 0, 255, 102]);
    let image = "input = { kind = \"image\" }";
    assert_eq!(read(image, &[-1, 3, 1, 2], &file).unwrap(), [1.0, 0.0, 0.0, 1.0, 0.2, 0.4]);
    let interleaved = "input = { kind = \"image\", layout = \"HWC\" }";
    assert_eq!(read(interleaved, &[-1, 1, 2, 3], &file).unwrap(), [1.0, 0.0, 0.2, 0.0, 1.0, 0.4]);
    let bgr = "input = { kind = \"image\", layout = \"HWC\", color = \"BGR\" }";
    assert_eq!(read(bgr, &[-1, 1, 2, 3], &file).unwrap(), [0.2, 0.0, 1.0, 0.4, 1.0, 0.0]);
    let normalized =
        "input = { kind = \"image\", layout = \"HWC\", mean = [0.5, 0, 0], std = [0.5, 1, 0.5] }";
    assert_eq!(read(normalized, &[-1, 1, 2, 3], &file).unwrap(), [1.0, 0.0, 0.4, -1.0, 1.0, 0.8]);
}

#[test]
fn what_is_no_picture_is_refused() {
    let image = "input = { kind = \"image\" }";
    let fault = |file: &[u8]| read(image, &[-1, 1, 2, 2], &Bytes::copy_from_slice(file)).unwrap_err();
    assert_eq!(fault(b"GIF89a"), "input 'image' takes a JPEG or PNG file: it begins like neither");
    assert_eq!(fault(b""), "input 'image' takes a JPEG or PNG file: it begins like neither");
    let whole = png(9, 9, png::ColorType::Grayscale, &[7; 81]);
    assert!(fault(&whole[..20]).starts_with("input 'image' takes a JPEG or PNG file: "));
    let long = png(40_000, 1, png::ColorType::Grayscale, &[7; 40_000]);
    assert!(fault(&long).starts_with("input 'image' takes a JPEG or PNG file: "));
}

/// However long a picture is, only what is cut out of it is made.
#[test]
fn a_long_picture_is_cut_cheaply() {
    let long = png(30_000, 2, png::ColorType::Grayscale, &[7; 60_000]);
    let toml = "input = { kind = \"image\", resize = 256, size = [224, 224] }";
    assert_eq!(read(toml, &[-1, 1, -1, -1], &long).unwrap().len(), 224 * 224);
}

#[test]
fn more_classes_than_there_are_can_be_asked_for() {
    let signature = signature(&[-1, 3, 4, 5], &[-1, 3]);
    let handler = bind("output = { kind = \"classes\", top = 9223372036854775807 }", &signature).unwrap();
    let model = ModelInfo {
        name: "m".into(),
        version: 1,
        signature,
        platform: "none".into(),
        batch_rows_max: 1,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        companions: Companions::default(),
        notes: Vec::new(),
    };
    let scores: Vec<u8> = [0.5f32, 2.0, 1.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let scores = Tensor::new(DType::Fp32, [1, 3].as_slice(), scores.into()).unwrap();
    let response = Response {
        model: Arc::new(model),
        degraded_from: None,
        routed: None,
        rows: 1,
        outputs: [(1, scores)].into_iter().collect(),
        timing: Timing::default(),
        batches: Vec::new(),
        answer_limit: None,
    };
    let mut json = Vec::new();
    handler.writer(&response).unwrap().rows(&mut json).unwrap();
    expect![[r#"[{"1":2.0,"2":1.0,"0":0.5}]"#]].assert_eq(std::str::from_utf8(&json).unwrap());
}
