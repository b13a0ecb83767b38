//! Tests of the sections against signatures, and of what is made of pictures and scores; the numbers are compared
//! with Pillow's in `tests/python/test_handlers.py`.

use std::path::Path;

use bytes::Bytes;
use expect_test::{Expect, expect};
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, TensorSpec};

use super::{Handler, Input};
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
                Input::Picture(input) => (input.shape, input.color, input.layout, input.shorter_side),
                Input::Text(text) => panic!("a picture became {text:?}"),
            });
            let output = handler.output.map(|output| (output.output, output.softmax, output.answer));
            format!("{input:?} {output:?}")
        }
        Err(why) => why,
    });
}

#[test]
fn most_follows_from_the_model() {
    let image = "input = { kind = \"image\" }";
    check(image, &[-1, 3, 4, 5], expect!["Some(([1, 3, 4, 5], Rgb, Planes, None)) None"]);
    check(image, &[-1, 4, 5, 1], expect!["Some(([1, 4, 5, 1], Gray, Interleaved, None)) None"]);
    check(image, &[1, 4, 5], expect!["Some(([1, 4, 5], Gray, Planes, None)) None"]);
    check(
        "input = { kind = \"image\", size = [4, 5], resize = 7 }",
        &[-1, 3, -1, -1],
        expect!["Some(([1, 3, 4, 5], Rgb, Planes, Some(7))) None"],
    );
    check("output = { kind = \"classes\" }", &[-1, 3, 4, 5], expect!["None Some((1, false, Best(5)))"]);
    check(
        "output = { kind = \"label\", softmax = true, tensor = \"scores\" }",
        &[-1, 3, 4, 5],
        expect!["None Some((1, true, Label))"],
    );
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
    let inputs = handler.read(file).unwrap().map_err(|error| error.to_string())?;
    let [NamedTensor { tensor, .. }] = inputs.as_slice() else { panic!("one input") };
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
