//! Models that are served as their configurations declare them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use gristmill_engine::backend::{Artifact, Backend, InputView, Model, Placement};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, batched_signature, copy};

use super::*;
use crate::triton_config::sample::Row;

/// Loads rows of four floats, in and out, as `text` declares them. Counts the rows that are run.
fn load(text: &str, directory: &Path) -> (Result<Box<dyn Model>, String>, Arc<AtomicUsize>) {
    let rows = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rows);
    let inner = FakeBackend::new(batched_signature(DType::Fp32, &[4]), move |inputs| {
        let whole = copy(&inputs[0]);
        assert_eq!(whole.shape()[1..], [4], "the model's own shape");
        counter.fetch_add(whole.shape()[0], Ordering::Relaxed);
        Ok(vec![whole])
    });
    let config = parse_pbtxt(text).unwrap();
    let backend = DeclaredBackend::new(Arc::new(inner), config, directory.to_owned());
    let artifact = Artifact { model: "m".into(), version: 1, path: PathBuf::new(), threads: 1 };
    (backend.load(&artifact).map_err(|error| error.to_string()), rows)
}

const RESHAPED: &str = r#"
    max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
    output { name: "y" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } label_filename: "labels.txt" }
    model_warmup {
      name: "first" batch_size: 3
      inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2, 2 ] random_data: true } }
    }
"#;

#[test]
fn clients_see_the_declared_shapes_and_the_model_its_own() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("labels.txt"), "cat\ndog\n").unwrap();
    let (model, rows) = load(RESHAPED, directory.path());
    let model = model.unwrap();
    let signature = model.signature();
    let shown =
        format!("{}\n{} {:?}", signature.inputs[0], signature.outputs[0], signature.outputs[0].labels);
    expect![[r#"
        x FP32 [batch, 2, 2]
        y FP32 [batch, 2, 2] ["cat", "dog"]"#]]
    .assert_eq(&shown);
    let mut instance = model.instance(Placement::default()).unwrap();
    assert_eq!(rows.load(Ordering::Relaxed), 3, "the sample was run");
    let view = InputView { dtype: DType::Fp32, shape: &[2, 2, 2], data: &[7; 32] };
    let outputs = instance.run(&[Some(view)]).unwrap();
    assert_eq!(outputs[0].shape(), [2, 2, 2]);
    assert_eq!(outputs[0].data().as_ref(), [7; 32]);
}

#[test]
fn a_label_file_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = load(RESHAPED, directory.path()).0.err().unwrap();
    let error = error.replace(directory.path().to_str().unwrap(), "DIRECTORY");
    expect!["config.pbtxt: cannot read the label file DIRECTORY/labels.txt: No such file or directory (os error 2)"]
        .assert_eq(&error);
}

#[test]
fn a_model_that_must_not_be_batched_is_not() {
    let text = r#"
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }
        output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
    "#;
    let (model, _) = load(text, Path::new(""));
    assert!(!model.unwrap().signature().is_batched());
}

#[test]
fn warm_up_data_of_another_size_is_refused() {
    let text = r#"
        max_batch_size: 8
        model_warmup {
          name: "saved" batch_size: 1
          inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "row" } }
        }
    "#;
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("warmup")).unwrap();
    fs::write(directory.path().join("warmup/row"), [0; 15]).unwrap();
    let error = load(text, directory.path()).0.err().unwrap();
    let error = error.replace(directory.path().to_str().unwrap(), "DIRECTORY");
    expect!["config.pbtxt: DIRECTORY/warmup/row has 15 bytes: expected 16, one row of 'x'"].assert_eq(&error);
    fs::write(directory.path().join("warmup/row"), [0; 16]).unwrap();
    let (model, rows) = load(text, directory.path());
    model.unwrap().instance(Placement::default()).unwrap();
    assert_eq!(rows.load(Ordering::Relaxed), 1);
}

#[test]
fn warm_up_texts_are_bounded_with_all_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("warmup")).unwrap();
    fs::write(directory.path().join("warmup/row"), [0; 64]).unwrap();
    let data = WarmUpData::File("row".into());
    let input = WarmUpInput { name: "x".into(), dtype: DType::Bytes, dims: vec![16], data };
    let read = |rows| Row::read(&input, rows, directory.path());
    assert!(read(4 << 20).is_ok());
    let error = read((4 << 20) + 1).err().unwrap();
    let error = error.replace(directory.path().to_str().unwrap(), "DIRECTORY");
    expect![
        "DIRECTORY/warmup/row has 64 bytes, for each of 4194305 rows: expected 268435456 together at most"
    ]
    .assert_eq(&error);
}
