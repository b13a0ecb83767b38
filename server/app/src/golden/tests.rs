//! Both formats, from files as people and numpy write them, and what is said of each fault.

use std::fs;

use expect_test::{Expect, expect};
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Tensor};
use half::{bf16, f16};

use super::npz::{Key, Part};
use super::*;

fn describe(case: &GoldenCase) -> String {
    let list = |tensors: &[NamedTensor]| {
        let texts: Vec<String> =
            tensors.iter().map(|named| format!("{} {:?}", named.name, named.tensor)).collect();
        texts.join(", ")
    };
    let (inputs, outputs) = (list(&case.inputs), list(&case.outputs));
    format!("{}: {inputs} -> {outputs} ({})\n", case.name, case.tolerance)
}

fn describe_all(parsed: Result<Vec<GoldenCase>, String>) -> String {
    match parsed {
        Ok(cases) => cases.iter().map(describe).collect(),
        Err(error) => error,
    }
}

fn check_json(text: &str, expected: Expect) {
    expected.assert_eq(&describe_all(json::parse(text.as_bytes(), "golden.json")));
}

/// The tensor that a JSON value becomes, or the error without what is the same for all.
fn tensor(value: &str) -> Result<Tensor, String> {
    let text = format!(r#"{{"inputs": {{"x": {value}}}, "outputs": {{"y": 1}}}}"#);
    let mut cases = json::parse(text.as_bytes(), "golden.json")?;
    Ok(cases.remove(0).inputs.remove(0).tensor)
}

fn npz_fixture(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    fs::read(directory.join(name)).unwrap()
}

fn numbers<const SIZE: usize, T>(tensor: &Tensor, read: fn([u8; SIZE]) -> T) -> Vec<T> {
    tensor.data().as_chunks().0.iter().map(|&bytes| read(bytes)).collect()
}

#[test]
fn the_committed_models_have_golden_inputs() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    for version in ["breast_cancer/1", "diabetes/1", "diabetes/2", "digits/1"] {
        let golden = read(&models.join(version)).unwrap().unwrap();
        let [case] = golden.cases.as_slice() else { panic!("{version} has one case") };
        assert_eq!(case.name, "golden.json");
        assert!(case.inputs.iter().all(|input| input.tensor.shape()[0] == 3), "{version}");
        assert!(case.outputs.iter().all(|output| output.tensor.shape()[0] == 3), "{version}");
    }
}

#[test]
fn files_of_the_version_and_of_the_model_all_count() {
    let model = tempfile::tempdir().unwrap();
    let version = model.path().join("1");
    fs::create_dir(&version).unwrap();
    assert!(read(&version).unwrap().is_none());
    let one = r#"{"inputs": {"x": [1.5]}, "outputs": {"y": [2]}}"#;
    fs::write(model.path().join("golden.json"), one).unwrap();
    fs::write(version.join("golden.json"), one).unwrap();
    fs::write(version.join("golden.npz"), npz_fixture("cases.npz")).unwrap();
    let names: Vec<String> =
        read(&version).unwrap().unwrap().cases.into_iter().map(|case| case.name).collect();
    let expected = ["golden.json", "golden.npz case 'winter'", "golden.npz case 'summer'", "../golden.json"];
    assert_eq!(names, expected);
    fs::write(version.join("golden.json"), "{").unwrap();
    let error = read(&version).unwrap_err();
    let path = version.join("golden.json").display().to_string();
    assert!(error.starts_with(&format!("{path}: malformed JSON at byte 1")), "{error}");
}

#[test]
fn a_version_that_is_a_link_has_the_models_golden_inputs() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("store/blob")).unwrap();
    fs::create_dir(root.path().join("model")).unwrap();
    let version = root.path().join("model/1");
    std::os::unix::fs::symlink(root.path().join("store/blob"), &version).unwrap();
    let one = r#"{"inputs": {"x": [1.5]}, "outputs": {"y": [2]}}"#;
    fs::write(root.path().join("model/golden.json"), one).unwrap();
    assert_eq!(read(&version).unwrap().unwrap().cases.len(), 1);
}

#[test]
fn json_is_one_case_or_several() {
    check_json(
        r#"{"inputs": {"x": [[1, 2]]}, "outputs": {"y": [0.5], "z": ["a"]}, "tolerance": 1e-3}"#,
        expect![[r#"
            golden.json: x INT64 [1, 2] (16 bytes) -> y FP64 [1] (8 bytes), z BYTES [1] (5 bytes) (absolute 0.001, relative 0.001)
        "#]],
    );
    check_json(
        r#"{"cases": [
            {"name": "winter", "inputs": {"x": 1}, "outputs": {"y": 1}},
            {"inputs": {}, "outputs": {"y": 1}, "tolerance": {"absolute": 0}},
            {"inputs": {}, "outputs": {"y": 1}, "tolerance": 2}
        ], "tolerance": {"relative": 0.5}}"#,
        expect![[r#"
            golden.json case 'winter': x INT64 [] (8 bytes) -> y INT64 [] (8 bytes) (absolute 1e-5, relative 0.5)
            golden.json case 2:  -> y INT64 [] (8 bytes) (absolute 0.0, relative 0.5)
            golden.json case 3:  -> y INT64 [] (8 bytes) (absolute 2.0, relative 2.0)
        "#]],
    );
}

#[test]
fn values_become_the_dtype_that_holds_them_all() {
    for (value, dtype, shape) in [
        ("[[1, -2], [3, 4]]", DType::Int64, &[2usize, 2][..]),
        ("[1, 2.0]", DType::Fp64, &[2]),
        ("[1, 1e3]", DType::Fp64, &[2]),
        ("[NaN, -Infinity]", DType::Fp64, &[2]),
        ("[1, 18446744073709551615]", DType::Uint64, &[2]),
        ("[-1, 18446744073709551615]", DType::Fp64, &[2]),
        ("18446744073709551616", DType::Fp64, &[]),
        ("[true, false]", DType::Bool, &[2]),
        (r#"[["a"], ["\u00fc"]]"#, DType::Bytes, &[2, 1]),
        ("[]", DType::Fp64, &[0]),
        ("[[], []]", DType::Fp64, &[2, 0]),
    ] {
        let tensor = tensor(value).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape), "{value}");
    }
    assert_eq!(numbers(&tensor("[[1, -2], [3, 4]]").unwrap(), i64::from_le_bytes), [1, -2, 3, 4]);
    assert_eq!(numbers(&tensor("[0.1, Infinity]").unwrap(), f64::from_le_bytes), [0.1, f64::INFINITY]);
    let text = tensor(r#"["a", "\u00fc"]"#).unwrap();
    assert!(text.bytes_elements().eq(["a".as_bytes(), "ü".as_bytes()]));
}

#[test]
fn irregular_tensors_are_told_with_their_place() {
    let refused = |value: &str, expected: Expect| expected.assert_eq(&tensor(value).unwrap_err());
    refused("[[1, 2], [3]]", expect!["input 'x': the list at [1] has length 1, those before it 2"]);
    refused("[1, [2]]", expect!["input 'x': lists and values are mixed at [1]"]);
    refused("[[1], 2]", expect!["input 'x': lists and values are mixed at [1]"]);
    refused("[[], 2]", expect!["input 'x': lists and values are mixed at [1]"]);
    refused("[[[]], []]", expect!["input 'x': the list at [1] has length 0, those before it 1"]);
    refused("[1, \"a\"]", expect![[r#"input 'x': expected a number at [1] as before it, got a text: "a""#]]);
    refused(
        "[[true], [null]]",
        expect!["input 'x': expected a number, a text or a truth value at [1, 0], got null"],
    );
    refused(
        "{\"a\": 1}",
        expect!["input 'x': expected a number, a text or a truth value at [], got an object"],
    );
    refused("[1, x]", expect!["malformed JSON at byte 21 (line 1, column 22): expected a value, found x"]);
}

#[test]
fn json_that_says_something_else_is_told() {
    let case = r#""inputs": {}, "outputs": {"y": 1}"#;
    check_json("[1]", expect!["the file must be an object, got a list"]);
    check_json("{}", expect![[r#"the file has no inputs: expected "inputs" with a tensor for each input"#]]);
    check_json(
        r#"{"inputs": {}, "outputs": {}}"#,
        expect![[r#"the file has no outputs: expected "outputs" with one of the model's outputs at least"#]],
    );
    check_json(
        r#"{"cases": [{"name": "a", "inputs": {}}]}"#,
        expect![[r#"case 'a' has no outputs: expected "outputs" with one of the model's outputs at least"#]],
    );
    check_json(r#"{"cases": []}"#, expect![[r#""cases" is empty: expected one case at least"#]]);
    check_json(
        &format!(r#"{{{case}, "cases": [{{{case}}}]}}"#),
        expect![[
            r#"the file has a case of its own beside "cases": put its inputs and outputs into the list"#
        ]],
    );
    check_json(
        &format!(r#"{{{case}, "tolerence": 1}}"#),
        expect![[
            r#"unknown member "tolerence": expected "cases", "name", "inputs", "outputs" or "tolerance""#
        ]],
    );
    check_json(&format!("{{{case}, {case}}}"), expect![[r#""inputs" is given twice"#]]);
    check_json(r#"{"inputs": {"x": 1, "x": 2}}"#, expect!["input 'x' is given twice"]);
    check_json(
        &format!(r#"{{{case}, "tolerance": "small"}}"#),
        expect![[r#""tolerance" must be a number, got "small""#]],
    );
    check_json(
        &format!(r#"{{{case}, "tolerance": -1}}"#),
        expect!["the absolute tolerance is -1.0: expected 0 or a positive number"],
    );
    check_json(
        &format!(r#"{{{case}, "tolerance": {{"relative": NaN}}}}"#),
        expect!["the relative tolerance is NaN: expected 0 or a positive number"],
    );
    check_json(
        &format!(r#"{{{case}, "tolerance": {{"rtol": 1}}}}"#),
        expect![[r#"unknown member "rtol" of "tolerance": expected "absolute" or "relative""#]],
    );
    check_json(
        &format!("{{{case}}} x"),
        expect!["malformed JSON at byte 36 (line 1, column 37): expected the end of the text, found x"],
    );
}

#[test]
fn numpys_elements_are_read_in_every_form() {
    let cases = npz::parse(&npz_fixture("dtypes.npz"), "golden.npz").unwrap();
    let input = |name: &str| {
        let found = cases[0].inputs.iter().find(|input| input.name == name);
        found.unwrap_or_else(|| panic!("{name} is in the archive")).tensor.clone()
    };
    for order in ["<", ">"] {
        let input = |name: &str| input(&format!("{order}{name}"));
        assert_eq!(numbers(&input("i1"), i8::from_le_bytes), [i8::MIN, 1, i8::MAX]);
        assert_eq!(numbers(&input("i2"), i16::from_le_bytes), [i16::MIN, 1, i16::MAX]);
        assert_eq!(numbers(&input("i4"), i32::from_le_bytes), [i32::MIN, 1, i32::MAX]);
        assert_eq!(numbers(&input("i8"), i64::from_le_bytes), [i64::MIN, 1, i64::MAX]);
        assert_eq!(numbers(&input("u1"), u8::from_le_bytes), [0, 1, u8::MAX]);
        assert_eq!(numbers(&input("u2"), u16::from_le_bytes), [0, 1, u16::MAX]);
        assert_eq!(numbers(&input("u4"), u32::from_le_bytes), [0, 1, u32::MAX]);
        assert_eq!(numbers(&input("u8"), u64::from_le_bytes), [0, 1, u64::MAX]);
        let expected = [0.0, -1.5, f64::NAN, f64::INFINITY, 0.1, 65504.0];
        let text = |values: Vec<f64>| format!("{values:?}");
        let half = numbers(&input("f2"), f16::from_le_bytes).into_iter().map(f64::from).collect();
        assert_eq!(text(half), text(expected.map(|value| f16::from_f64(value).to_f64()).to_vec()));
        let single = numbers(&input("f4"), f32::from_le_bytes).into_iter().map(f64::from).collect();
        assert_eq!(text(single), text(expected.map(|value| f64::from(value as f32)).to_vec()));
        assert_eq!(text(numbers(&input("f8"), f64::from_le_bytes)), text(expected.to_vec()));
        assert_eq!((input("f2").dtype(), input("u8").dtype()), (DType::Fp16, DType::Uint64));
        assert_eq!(input("f8").shape(), [2, 3]);
    }
    assert_eq!((input("bool").dtype(), input("bool").data().as_ref()), (DType::Bool, &[1, 0, 0, 1][..]));
    assert_eq!(input("bf16").dtype(), DType::Bf16);
    assert_eq!(numbers(&input("bf16"), bf16::from_le_bytes), [0.0, -1.5, 3.0].map(bf16::from_f64));
    assert_eq!(input("fortran").shape(), [2, 3, 4]);
    assert_eq!(numbers(&input("fortran"), i32::from_le_bytes), (0..24).collect::<Vec<_>>());
    assert_eq!(numbers(&input("fortran_big"), i16::from_le_bytes), [0, 1, 2, 3, 4, 5]);
    assert_eq!(input("scalar").shape(), [0usize; 0]);
    assert_eq!(numbers(&input("scalar"), f32::from_le_bytes), [2.5]);
    assert_eq!(input("empty").shape(), [0, 3]);
    assert_eq!((input("bytes").dtype(), input("bytes").shape()), (DType::Bytes, &[2, 2][..]));
    assert!(input("bytes").bytes_elements().eq([&b"a"[..], b"long\0er", b"", b"\xff"]));
    assert!(input("text").bytes_elements().eq(["", "grün", "狐🦊"].map(str::as_bytes)));
    assert!(input("text_big").bytes_elements().eq(["a", "bc"].map(str::as_bytes)));
    assert!(input("text_fortran").bytes_elements().eq(["a", "bb", "ccc", ""].map(str::as_bytes)));
}

#[test]
fn a_compressed_archive_of_cases_is_read() {
    let parsed = npz::parse(&npz_fixture("cases.npz"), "golden.npz");
    expect![[r#"
        golden.npz case 'winter': x FP64 [2] (16 bytes) -> serving/y:0 FP64 [2] (16 bytes) (absolute 1e-5, relative 0.5)
        golden.npz case 'summer': x FP64 [1] (8 bytes) -> serving/y:0 FP64 [1] (8 bytes) (absolute 0.25, relative 0.25)
    "#]]
    .assert_eq(&describe_all(parsed));
}

#[test]
fn the_names_of_arrays_say_what_they_are() {
    let key = |case, part| Ok(Key { case, part });
    assert_eq!(Key::parse("inputs/a/b"), key(None, Part::Input("a/b")));
    assert_eq!(Key::parse("inputs/inputs/b"), key(None, Part::Input("inputs/b")));
    assert_eq!(Key::parse("a/outputs/b/outputs/c"), key(Some("a"), Part::Output("b/outputs/c")));
    assert_eq!(Key::parse("a/tolerance/relative"), key(Some("a"), Part::Tolerance(&["relative"])));
    for name in ["x", "a/b", "a/b/inputs/c", "tolerance/other", "arr_0"] {
        let error = Key::parse(name).unwrap_err();
        assert!(error.starts_with(&format!("the name of array '{name}' does not say what it is")), "{error}");
    }
}

/// An array with this header, in format version 1.
fn array(header: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

#[test]
fn arrays_that_no_model_takes_are_told() {
    let refused = |description: &str, expected: Expect| {
        let header = format!("{{'descr': {description}, 'fortran_order': False, 'shape': (), }}\n");
        expected.assert_eq(&npy::parse(&array(&header, &[0; 16])).unwrap_err());
    };
    refused(
        "'<f16'",
        expect!["its elements are '<f16' in numpy's terms: no model takes them; use astype(numpy.float64)"],
    );
    refused("'<c16'", expect!["its elements are '<c16' in numpy's terms: no model takes complex numbers"]);
    refused(
        "'|O'",
        expect![
            "its elements are '|O' in numpy's terms: Python objects are not read; use astype(str), or astype(bytes) for raw bytes"
        ],
    );
    refused(
        "'<M8[us]'",
        expect![
            "its elements are '<M8[us]' in numpy's terms: expected booleans, integers, floats of 2, 4 or 8 bytes, bytes or str"
        ],
    );
    refused(
        "'|V16'",
        expect![
            "its elements are '|V16' in numpy's terms: expected booleans, integers, floats of 2, 4 or 8 bytes, bytes or str"
        ],
    );
    refused(
        "'|S0'",
        expect![
            "its elements are '|S0' in numpy's terms: expected booleans, integers, floats of 2, 4 or 8 bytes, bytes or str"
        ],
    );
    refused(
        "'<U18446744073709551615'",
        expect!["its elements are '<U18446744073709551615' in numpy's terms: they are too long"],
    );
    refused(
        "''",
        expect![
            "its elements are '' in numpy's terms: expected booleans, integers, floats of 2, 4 or 8 bytes, bytes or str"
        ],
    );
    refused(
        "[('a', '<f8'), ('b', '<f8')]",
        expect!["its elements are records of several fields: expected one number or text each"],
    );
    refused(
        "'<f4'",
        expect![
            "its header announces shape [] of <f4, which does not agree with the 16 bytes after it: the file is damaged"
        ],
    );
}

#[test]
fn damaged_arrays_are_told() {
    let sound = array("{'descr': '<i2', 'fortran_order': False, 'shape': (2L,)}", &[1, 0, 2, 0]);
    assert_eq!(numbers(&npy::parse(&sound).unwrap(), i16::from_le_bytes), [1, 2]);
    for length in 0..sound.len() {
        npy::parse(&sound[..length]).unwrap_err();
    }
    // Whatever one byte becomes, the rest is read or refused.
    for position in 0..sound.len() {
        for value in 0..=u8::MAX {
            let mut damaged = sound.clone();
            damaged[position] = value;
            let read = npy::parse(&damaged);
            assert!(read.is_err() || read.is_ok_and(|tensor| tensor.element_count() <= 4));
        }
    }
    let refused = |header: &str, expected: Expect| {
        expected.assert_eq(&npy::parse(&array(header, &[1, 0, 2, 0])).unwrap_err());
    };
    refused("{'descr': '<i2', 'fortran_order': False}", expect!["its header lacks 'shape'"]);
    refused(
        "{'descr': '<i2', 'fortran_order': 0}",
        expect!["its header is malformed: expected True or False, found '0}'"],
    );
    refused(
        "{'descr': '<i2' 'shape': ()}",
        expect!["its header is malformed: expected ',' or '}', found ''shape': ()}'"],
    );
    refused("{'shape': (2, x)}", expect!["its header is malformed: expected a size, found 'x)}'"]);
    refused("{'shape': (2 3)}", expect!["its header is malformed: expected ',' or ')', found '3)}'"]);
    refused("{'colour': 'red'}", expect!["its header has the unknown member 'colour'"]);
    refused("{'descr': 'é", expect!["its header is malformed: expected a text in quotes, found ''é'"]);
    refused(
        "{'descr': '<i2', 'fortran_order': True, 'shape': (4294967296, 4294967296)}",
        expect![
            "its header announces shape [4294967296, 4294967296] of <i2, which does not agree with the 4 bytes after it: the file is damaged"
        ],
    );
    refused(&format!("{{'shape': ({})}}", "1,".repeat(65)), expect!["its shape has more than 64 dimensions"]);
    assert_eq!(npy::parse(b"\x93NUMPY\x09\x00").unwrap_err(), "it has format version 9: expected 1, 2 or 3");
    let bad_text = array("{'descr': '<U1', 'fortran_order': False, 'shape': ()}", &[0, 0xd8, 0, 0]);
    assert_eq!(npy::parse(&bad_text).unwrap_err(), "a text holds what is no Unicode character");
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut writer, content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_that_hold_something_else_are_told() {
    let one = array("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", &1f64.to_le_bytes());
    let two = array("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", &[0; 16]);
    let check = |members: &[(&str, &[u8])], expected: Expect| {
        expected.assert_eq(&describe_all(npz::parse(&zipped(members), "golden.npz")));
    };
    check(&[], expect![[r#"the file has no inputs: expected "inputs" with a tensor for each input"#]]);
    check(
        &[("inputs/x.npy", &one), ("outputs/y.npy", &one), ("tolerance.npy", &one)],
        expect![[r#"
        golden.npz: x FP64 [] (8 bytes) -> y FP64 [] (8 bytes) (absolute 1.0, relative 1.0)
    "#]],
    );
    check(
        &[("inputs/x.npy", &one)],
        expect![[r#"the file has no outputs: expected "outputs" with one of the model's outputs at least"#]],
    );
    check(
        &[("inputs/x.txt", &one)],
        expect!["'inputs/x.txt' is no array: expected what numpy's savez writes"],
    );
    check(
        &[("x.npy", &one)],
        expect![
            "the name of array 'x' does not say what it is: expected 'inputs/<input>', 'outputs/<output>' or 'tolerance', with '<case>/' in front where there are several cases"
        ],
    );
    check(&[("inputs/x.npy", b"PK")], expect!["array 'inputs/x': it does not begin as numpy's arrays do"]);
    check(
        &[("tolerance.npy", &two)],
        expect!["array 'tolerance': expected one number, FP64, FP32 or INT64, got FP64 [2] (16 bytes)"],
    );
    check(
        &[("tolerance.npy", &one), ("tolerance/absolute.npy", &one)],
        expect!["array 'tolerance/absolute': the absolute tolerance is given twice"],
    );
    check(
        &[("inputs/x.npy", &one), ("a/outputs/y.npy", &one)],
        expect![
            "some arrays have the name of a case before 'inputs/' or 'outputs/' and some have none: give each case a name"
        ],
    );
    expect!["it is no archive of numpy's savez: invalid Zip archive: Could not find EOCD"]
        .assert_eq(&npz::parse(b"not an archive", "golden.npz").unwrap_err());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = fs::File::create(directory.path().join("golden.json")).unwrap();
    // Without a block on the disk.
    file.set_len(BYTES_MAX + 1).unwrap();
    let error = read(directory.path()).unwrap_err();
    assert!(
        error.ends_with("is larger than 268435456 bytes, the most for golden inputs: keep fewer rows"),
        "{error}"
    );
}
