//! What goes in comes out: requests of every dtype, and what each malformed one is told.

use bytes::{BufMut, Bytes, BytesMut};
use expect_test::{Expect, expect};
use gristmill_engine::tensor::{DType, Tensor};
use proptest::prelude::*;

use super::decode_infer;
use super::write::write_data;

fn decode(json: &str) -> Result<Vec<(String, Tensor)>, String> {
    decode_infer(Bytes::copy_from_slice(json.as_bytes()), None)
        .map(|request| request.inputs.into_iter().map(|input| (input.name, input.tensor)).collect())
        .map_err(|error| error.to_string())
}

/// The one input of `json`, as dtype, shape and elements.
fn show(json: &str) -> String {
    match decode(json) {
        Err(error) => error,
        Ok(inputs) => {
            let (name, tensor) = &inputs[0];
            let mut data = Vec::new();
            write_data(name, tensor, None, &mut data).unwrap();
            format!("{} {:?} {}", tensor.dtype(), tensor.shape(), String::from_utf8(data).unwrap())
        }
    }
}

fn check(json: &str, expected: Expect) {
    expected.assert_eq(&show(json));
}

fn data(datatype: &str, shape: &str, data: &str) -> String {
    show(&format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#))
}

#[test]
fn flat_and_nested_data_in_any_key_order() {
    let expected = "FP32 [2, 3] [1.0,2.0,3.0,4.0,5.0,6.0]";
    assert_eq!(data("FP32", "[2,3]", "[1, 2, 3, 4, 5.0, 6e0]"), expected);
    assert_eq!(data("FP32", "[2,3]", "[[1,2,3],[4,5,6]]"), expected);
    assert_eq!(data("FP32", "[2,3]", " [ [ 1 , 2 , 3 ] , [ 4 , 5 , 6 ] ] "), expected);
    assert_eq!(
        show(r#"{"inputs":[{"data":[[1,2,3],[4,5,6]],"shape":[2,3],"name":"x","datatype":"FP32"}]}"#),
        expected
    );
    assert_eq!(
        show(
            r#"{"model_name":"m","id":null,"parameters":null,"outputs":null,"inputs":[{"parameters":{},"datatype":"FP32","data":[1,2,3,4,5,6],"shape":[2,3],"name":"x"}]}"#
        ),
        expected
    );
}

#[test]
fn scalars_and_empty_tensors() {
    assert_eq!(data("INT32", "[]", "7"), "INT32 [] [7]");
    assert_eq!(data("INT32", "[]", "[7]"), "INT32 [] [7]");
    assert_eq!(data("INT32", "[0,4]", "[]"), "INT32 [0, 4] []");
    assert_eq!(data("INT32", "[2,0]", "[[],[]]"), "INT32 [2, 0] []");
    assert_eq!(
        data("INT32", "[]", "[[7]]"),
        "input 'x': 'data' for the scalar shape [] must be one value, got a list"
    );
}

#[test]
fn every_dtype_over_its_whole_range() {
    assert_eq!(data("BOOL", "[4]", "[true,false,1,0]"), "BOOL [4] [true,false,true,false]");
    assert_eq!(data("INT8", "[2]", "[-128,127]"), "INT8 [2] [-128,127]");
    assert_eq!(data("UINT8", "[2]", "[0,255]"), "UINT8 [2] [0,255]");
    assert_eq!(
        data("INT64", "[3]", "[-9223372036854775808,9223372036854775807,9007199254740993]"),
        "INT64 [3] [-9223372036854775808,9223372036854775807,9007199254740993]"
    );
    assert_eq!(data("UINT64", "[2]", "[18446744073709551615,-0]"), "UINT64 [2] [18446744073709551615,0]");
    assert_eq!(data("INT32", "[3]", "[1.0,2e3,-0.0]"), "INT32 [3] [1,2000,0]");
    assert_eq!(data("BYTES", "[3]", r#"["a","é\n",""]"#), r#"BYTES [3] ["a","é\n",""]"#);
    assert_eq!(data("FP64", "[2]", "[0.1,1.7976931348623157e308]"), "FP64 [2] [0.1,1.7976931348623157e+308]");
    assert_eq!(data("FP32", "[3]", "[NaN,Infinity,-Infinity]"), "FP32 [3] [NaN,Infinity,-Infinity]");
}

#[test]
fn fp32_is_rounded_once() {
    // Just above the midpoint of 1 and the next FP32: FP64 rounds it onto the midpoint, and a second
    // rounding then goes to the even neighbour below.
    assert_eq!(data("FP32", "[1]", "[1.00000005960464477540]"), "FP32 [1] [1.0000001]");
}

#[test]
fn elements_that_do_not_fit() {
    let check = |datatype: &str, element: &str, expected: Expect| {
        expected.assert_eq(&data(datatype, "[3]", &format!("[1,1,{element}]")));
    };
    check("UINT8", "256", expect!["input 'x': element 2: 256 is out of range for UINT8 (0 to 255)"]);
    check("UINT8", "-1", expect!["input 'x': element 2: -1 is out of range for UINT8 (0 to 255)"]);
    check(
        "INT64",
        "9223372036854775808",
        expect![
            "input 'x': element 2: 9223372036854775808 is out of range for INT64 (-9223372036854775808 to 9223372036854775807)"
        ],
    );
    check(
        "INT32",
        "2147483648.0",
        expect!["input 'x': element 2: 2147483648.0 is out of range for INT32 (-2147483648 to 2147483647)"],
    );
    check(
        "INT64",
        "9007199254740992.5",
        expect!["input 'x': element 2: expected an integer, got 9007199254740992.5"],
    );
    check("INT32", "1.5", expect!["input 'x': element 2: expected an integer, got 1.5"]);
    check("INT32", "NaN", expect!["input 'x': element 2: expected an integer, got NaN"]);
    check("INT32", "\"7\"", expect![[r#"input 'x': element 2: expected an integer, got "7""#]]);
    check("FP32", "1e39", expect!["input 'x': element 2: 1e39 is out of range for FP32"]);
    check("FP64", "1e400", expect!["input 'x': element 2: 1e400 is out of range for FP64"]);
    check("FP32", "null", expect!["input 'x': element 2: expected a number, got null"]);
    check("FP32", "{\"a\":1}", expect!["input 'x': element 2: expected a number, got an object"]);
    check(
        "FP32",
        "[1]",
        expect!["input 'x': element 2 is a list: 'data' must be flat, or nested as shape [3] says"],
    );
    check("BOOL", "2", expect!["input 'x': element 2: expected true, false, 1 or 0, got 2"]);
    check("FP32", "01", expect!["malformed JSON at byte 65 (line 1, column 66): expected a value, found 01"]);
    assert_eq!(data("BYTES", "[1]", "[3]"), "input 'x': element 0: expected a string, got 3");
}

#[test]
fn counts_and_nesting_that_disagree_with_the_shape() {
    let check = |shape: &str, text: &str, expected: Expect| expected.assert_eq(&data("FP32", shape, text));
    check("[2,2]", "[1,2,3]", expect!["input 'x': expected 4 elements for FP32 [2, 2], got 3"]);
    check("[2,2]", "[1,2,3,4,5,6]", expect!["input 'x': expected 4 elements for FP32 [2, 2], got 6"]);
    check(
        "[2,2]",
        "[[1,2],[3]]",
        expect![
            "input 'x': 'data' is not nested as shape [2, 2] says: a list for dimension 1 has 1 entries, expected 2"
        ],
    );
    check(
        "[2,2]",
        "[[1,2],[3,4,5]]",
        expect![
            "input 'x': 'data' is not nested as shape [2, 2] says: a list for dimension 1 has 3 entries, expected 2"
        ],
    );
    check(
        "[2,2]",
        "[[1,2]]",
        expect![
            "input 'x': 'data' is not nested as shape [2, 2] says: a list for dimension 0 has 1 entries, expected 2"
        ],
    );
    check(
        "[2,2]",
        "[[1,2],[3,4],[5,6]]",
        expect![
            "input 'x': 'data' is not nested as shape [2, 2] says: a list for dimension 0 has 3 entries, expected 2"
        ],
    );
    check(
        "[2,2]",
        "[[1,2],3]",
        expect!["input 'x': 'data' is not nested as shape [2, 2] says: expected a list at depth 2, got 3"],
    );
    check(
        "[2,2]",
        "[1,[2,3],4]",
        expect!["input 'x': element 1 is a list: 'data' must be flat, or nested as shape [2, 2] says"],
    );
    check("[2]", "5", expect!["input 'x': 'data' must be a list, got 5"]);
    check(
        "[4294967296,4294967296]",
        "[1]",
        expect!["input 'x': shape [4294967296, 4294967296] has too many elements"],
    );
    check(
        "[4611686018427387904]",
        "[1]",
        expect!["input 'x': expected 4611686018427387904 elements for FP32 [4611686018427387904], got 1"],
    );
    check("[2]", "[1,", expect!["malformed JSON at byte 63 (line 1, column 64): expected a value, found }"]);
    check("[-1]", "[1]", expect!["dimension 0 of input 'x' must be a non-negative integer, got -1"]);
}

#[test]
fn requests_that_are_not_understood() {
    check(
        "",
        expect!["malformed JSON at byte 0 (line 1, column 1): expected a value, found the end of the text"],
    );
    check("[]", expect!["the request must be an object, got a list"]);
    check(
        "{}",
        expect![[r#"the request has no 'inputs': expected a list of {"name", "shape", "datatype", "data"}"#]],
    );
    check(r#"{"inputs":3}"#, expect!["'inputs' must be a list, got 3"]);
    check(r#"{"inputs":[3]}"#, expect!["entry 0 of 'inputs' must be an object, got 3"]);
    check(
        r#"{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}"#,
        expect!["entry 0 of 'inputs' has no 'name'"],
    );
    check(r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#, expect!["input 'x' has no 'shape'"]);
    check(r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#, expect!["input 'x' has no 'datatype'"]);
    check(r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#, expect!["input 'x' has no 'data'"]);
    check(
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP31","data":[1]}]}"#,
        expect![
            "input 'x': unknown datatype 'FP31': expected one of BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FP16, BF16, FP32, FP64, BYTES"
        ],
    );
    check(
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","data":[1]}]}"#,
        expect![
            "input 'x': FP16 is not representable in JSON: send it with the binary tensor extension (parameter 'binary_data_size' and header Inference-Header-Content-Length)"
        ],
    );
    check(
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[1]}]}"#,
        expect!["the key 'data' is given twice"],
    );
    check(r#"{"id":7,"inputs":[]}"#, expect!["'id' must be a string, got 7"]);
    check(
        r#"{"parameters":{"sequence_id":3},"inputs":[]}"#,
        expect!["parameter 'sequence_id' is 3: stateful sequences are not supported, leave it out"],
    );
    check(
        r#"{"parameters":{"timeout":-3},"inputs":[]}"#,
        expect!["parameter 'timeout' (microseconds) must be a non-negative integer, got -3"],
    );
    check(
        r#"{"outputs":[{"name":"y","parameters":{"classification":-3}}],"inputs":[]}"#,
        expect!["'classification' of entry 0 of 'outputs' must be a non-negative integer, got -3"],
    );
    check(
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#,
        expect![
            "input 'x': system shared memory is off: start the server with --allow-system-shared-memory, or send tensors in requests"
        ],
    );
    check(
        r#"{"outputs":[{"name":"y","parameters":{"classification":3,"shared_memory_region":"r"}}],"inputs":[]}"#,
        expect![
            "output 'y' has both 'classification' and 'shared_memory_region': classes are answered in the message"
        ],
    );
    check(
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"shared_memory_region":"r"}}]}"#,
        expect!["input 'x' is in shared memory and has 'data' or 'binary_data_size' too: use one of them"],
    );
    check(
        r#"{"inputs":[]} x"#,
        expect!["malformed JSON at byte 14 (line 1, column 15): expected the end of the text, found x"],
    );
}

#[test]
fn parameters_and_outputs_are_read() {
    let json = r#"{"id":"a","parameters":{"timeout":2000,"priority":1,"sequence_id":0,"sequence_start":false,"binary_data_output":true,"mine":{"a":[1]}},
        "inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":false,"classification":3}},{"name":"z"}]}"#;
    let request = decode_infer(json.into(), None).unwrap();
    expect![[r#"
        InferBody {
            id: Some(
                "a",
            ),
            inputs: [],
            outputs: [
                WantedOutput {
                    name: "y",
                    binary_data: Some(
                        false,
                    ),
                    classes: 3,
                },
                WantedOutput {
                    name: "z",
                    binary_data: None,
                    classes: 0,
                },
            ],
            placed: [],
            binary_data_output: true,
            timeout: Some(
                2ms,
            ),
            priority: 1,
            others: [],
        }
    "#]]
    .assert_debug_eq(&request);
}

#[test]
fn binary_tensors_are_slices_of_the_body() {
    let json = br#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}},
        {"name":"b","shape":[1],"datatype":"INT8","data":[5]},
        {"name":"c","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}"#;
    let mut body = BytesMut::from(json.as_slice());
    body.put_slice(&[1, 2, 3, 4]);
    body.put_slice(b"\x01\0\0\0z\0\0\0\0");
    let body = body.freeze();
    let request = decode_infer(body.clone(), Some(json.len())).unwrap();
    let tensors: Vec<_> =
        request.inputs.iter().map(|input| format!("{} {:?}", input.name, input.tensor)).collect();
    assert_eq!(tensors, ["a FP16 [2] (4 bytes)", "b INT8 [1] (1 bytes)", "c BYTES [2] (9 bytes)"]);
    assert_eq!(request.inputs[0].tensor.data().as_ptr(), body[json.len()..].as_ptr(), "no copy");
}

#[test]
fn binary_sizes_that_do_not_add_up() {
    let json =
        r#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#;
    let check = |tail: usize, header_length: Option<usize>, expected: Expect| {
        let mut body = BytesMut::from(json.as_bytes());
        body.put_bytes(0, tail);
        expected.assert_eq(&decode_infer(body.freeze(), header_length).unwrap_err().to_string());
    };
    check(
        7,
        Some(json.len()),
        expect!["input 'a': binary_data_size is 8, 7 of the 7 bytes behind the JSON are left"],
    );
    check(9, Some(json.len()), expect!["9 bytes follow the JSON, the inputs' binary_data_size add up to 8"]);
    check(
        0,
        Some(500),
        expect!["Inference-Header-Content-Length says that the JSON has 500 bytes, the whole body has 91"],
    );
    check(
        0,
        None,
        expect![
            "input 'a' has binary_data_size 8: the header Inference-Header-Content-Length must give the length of the JSON"
        ],
    );
    check(
        8,
        Some(json.len() - 1),
        expect![
            "malformed JSON at byte 90 (line 1, column 91): expected ',' or '}', found the end of the text"
        ],
    );
    let json = json.replace("[2]", "[3]");
    let error = decode_infer(format!("{json}12345678").into(), Some(json.len())).unwrap_err();
    assert_eq!(error.to_string(), "input 'a': expected 12 bytes for FP32 [3], got 8 bytes");
}

/// A tensor of any dtype that JSON carries, with any bits.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dtypes: Vec<DType> =
        DType::ALL.into_iter().filter(|dtype| !matches!(dtype, DType::Fp16 | DType::Bf16)).collect();
    (prop::sample::select(dtypes), prop::collection::vec(0usize..4, 0..4)).prop_flat_map(|(dtype, shape)| {
        let elements: usize = shape.iter().product();
        match dtype.size() {
            Some(size) => prop::collection::vec(any::<u8>(), elements * size)
                .prop_map(move |mut bytes| {
                    if dtype == DType::Bool {
                        bytes.iter_mut().for_each(|byte| *byte &= 1);
                    }
                    Tensor::new(dtype, shape.as_slice(), bytes.into()).unwrap()
                })
                .boxed(),
            None => prop::collection::vec(".{0,6}", elements)
                .prop_map(move |texts| Tensor::from_elements(shape.as_slice(), texts).unwrap())
                .boxed(),
        }
    })
}

/// `flat`, the elements of a tensor, nested as `shape` says.
fn nest(flat: &[serde_json::Value], shape: &[usize]) -> serde_json::Value {
    match shape {
        [] => flat[0].clone(),
        [_] => flat.to_vec().into(),
        [size, inner @ ..] => {
            let step: usize = inner.iter().product();
            (0..*size).map(|index| nest(&flat[index * step..(index + 1) * step], inner)).collect()
        }
    }
}

proptest! {
    /// Every way to write a number gives what the standard library makes of it.
    #[test]
    fn floats_are_the_nearest(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,2})?") {
        let request = |datatype: &str| {
            format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype}","data":[{text}]}}]}}"#)
        };
        let single: f32 = text.parse().unwrap();
        match decode(&request("FP32")) {
            Ok(inputs) => prop_assert_eq!(&inputs[0].1.data()[..], &single.to_le_bytes()),
            Err(error) => prop_assert!(single.is_infinite() && error.contains("out of range"), "{}", error),
        }
        let double: f64 = text.parse().unwrap();
        let inputs = decode(&request("FP64")).unwrap();
        prop_assert_eq!(&inputs[0].1.data()[..], &double.to_le_bytes());
    }

    #[test]
    fn tensors_survive_json(tensor in any_tensor()) {
        let mut written = Vec::new();
        write_data("x", &tensor, None, &mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        let request = |data: &str| format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{}","shape":{:?},"data":{data}}}]}}"#,
            tensor.dtype(),
            tensor.shape()
        );
        let back = decode(&request(&written)).unwrap().remove(0).1;
        let mut again = Vec::new();
        write_data("x", &back, None, &mut again).unwrap();
        prop_assert_eq!(&written, &String::from_utf8(again).unwrap());
        // The bits of a NaN are its writer's own affair; everything else is the same to the bit.
        if !written.contains("NaN") {
            prop_assert_eq!(&back, &tensor);
            if let Ok(flat) = serde_json::from_str::<Vec<serde_json::Value>>(&written)
                && matches!(tensor.dtype(), DType::Bytes | DType::Int64 | DType::Uint64 | DType::Bool)
            {
                let nested = nest(&flat, tensor.shape()).to_string();
                prop_assert_eq!(&decode(&request(&nested)).unwrap().remove(0).1, &tensor);
            }
        }
    }

    #[test]
    fn any_body_is_safe(body in prop::collection::vec(any::<u8>(), 0..200), header in prop::option::of(0usize..220)) {
        drop(decode_infer(body.into(), header));
    }

    /// Cut or altered requests are refused or read, and never more than that.
    #[test]
    fn damaged_requests_are_safe(at in 0usize..200, byte in any::<u8>(), cut in any::<bool>()) {
        let json = r#"{"id":"é","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5e-3],[NaN,4]]},
            {"name":"t","shape":[1],"datatype":"BYTES","data":["\u00e9\n"]}],"outputs":[{"name":"y"}]}"#;
        let mut body = json.as_bytes().to_vec();
        let at = at % body.len();
        if cut { body.truncate(at) } else { body[at] = byte }
        drop(decode_infer(body.into(), None));
    }
}
