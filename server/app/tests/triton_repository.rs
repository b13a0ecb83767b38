//! A repository as Triton's users have it, with a `config.pbtxt` beside the versions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};

/// What `gristmill check` prints about versions 1 and 2 of diabetes, configured by `text`.
fn check(text: &str, expected: Expect) {
    let root = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/diabetes");
    for version in ["1", "2"] {
        let directory = root.path().join("diabetes").join(version);
        fs::create_dir_all(&directory).unwrap();
        fs::copy(models.join(version).join("model.onnx"), directory.join("predictor.onnx")).unwrap();
    }
    fs::write(root.path().join("diabetes/config.pbtxt"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command
        .env_clear()
        .args(["check", "--backend", "tract", "--log", "error", "--repository"])
        .arg(root.path());
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let told: Vec<_> = output
        .lines()
        .skip(2)
        .filter(|line| !line.contains("measured:") && !line.contains("granted core"))
        .map(|line| match line.split_once(", loaded and proved in") {
            Some((sound, _time)) => sound.to_owned(),
            None => line.replace(root.path().to_str().unwrap(), "ROOT"),
        })
        .collect();
    expected.assert_eq(&told.join("\n"));
}

#[test]
fn a_config_is_followed_and_says_what_it_does_not_do() {
    let text = r#"
        name: "diabetes"
        platform: "onnxruntime_onnx"
        max_batch_size: 16
        metric_tags { key: "team" value: "clinic" }
        default_model_filename: "predictor.onnx"
        input [ { name: "measurements" data_type: TYPE_FP32 dims: [ 10 ] } ]
        output [ { name: "progression" data_type: TYPE_FP32 dims: [ 1 ] } ]
        version_policy: { specific: { versions: [ 1 ] } }
        instance_group [ { count: 1 kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 100 }
        model_warmup {
          name: "zeros" batch_size: 2
          inputs { key: "measurements" value { data_type: TYPE_FP32 dims: [ 10 ] zero_data: true } }
        }
    "#;
    check(
        text,
        expect![[r#"
        diabetes version 1: sound
          input   measurements FP32 [?, 10]
          output  progression FP32 [?, 1]
          batch   at most 16 rows, delay 100µs
          why     tract 0.23 (embedded, pure Rust), one thread for each run
          why     rows stay apart in every operator of the graph
          why     config.pbtxt: metric_tags has no effect: metrics have the labels model and version
          why     batch axis 0, proved by the model's structure

        1 of 1 versions are sound"#]],
    );
}

#[test]
fn what_the_file_does_not_have_is_named() {
    let text = r#"
        max_batch_size: 16
        default_model_filename: "predictor.onnx"
        input [ { name: "measurements" data_type: TYPE_FP32 dims: [ 11 ] } ]
        output [ { name: "progression" data_type: TYPE_FP32 dims: [ 1 ] } ]
    "#;
    check(
        text,
        expect![[r#"
        diabetes version 1: FAULT
          config.pbtxt: the configuration declares input 'measurements' as FP32 [-1, 11], the model file has measurements FP32 [?, 10]

        diabetes version 2: FAULT
          config.pbtxt: the configuration declares input 'measurements' as FP32 [-1, 11], the model file has measurements FP32 [?, 10]

        2 of 2 versions are at fault"#]],
    );
}

#[test]
fn what_would_change_answers_is_refused_by_its_name() {
    check(
        "max_batch_size: 4\nsequence_batching { }\n",
        expect![[r#"
        diabetes: FAULT
          ROOT/diabetes/config.pbtxt: line 2: sequence_batching: requests are independent here, and no state is kept between them; export the model with its state as inputs and outputs

        1 of 1 versions are at fault"#]],
    );
    check(
        "name: \"other\"\n",
        expect![[r#"
        diabetes: FAULT
          ROOT/diabetes/config.pbtxt: name is 'other': expected 'diabetes', the name of its directory, or none

        1 of 1 versions are at fault"#]],
    );
    check(
        "max_batch_size: 4\nbatch_size: 4\n",
        expect![[r#"
        diabetes: FAULT
          ROOT/diabetes/config.pbtxt: line 2: batch_size: there is no such field: expected one of name, platform, version_policy, max_batch_size, input, output, instance_group, default_model_filename, cc_model_filenames, metric_tags, dynamic_batching, optimization, sequence_batching, parameters, ensemble_scheduling, model_warmup, backend, model_operations, model_transaction_policy, batch_input, batch_output, model_repository_agents, response_cache, runtime, model_metrics

        1 of 1 versions are at fault"#]],
    );
}
