//! Files that cannot be served, libraries that cannot be loaded, providers that cannot be used: what is said about each.

use gristmill_engine::backend::Placement;
use std::path::Path;

use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Provider, ProviderKind, Runtime};

use crate::bench::{artifact, fixture, floats, fp32, load, load_path, onnx_runtime, run, runtimes};

#[track_caller]
fn assert_refused(runtime: &Runtime, choice: BackendChoice, name: &str, expected: &str) {
    let error = load(runtime, choice, name).err().map(|error| error.to_string());
    let error = error.unwrap_or_else(|| panic!("{name} loaded on {}", choice.name()));
    assert!(error.contains(expected), "{name} on {}: {error}", choice.name());
    assert!(error.contains(&format!("{name}.onnx")), "names the file: {error}");
    assert!(!error.contains('\n'), "{error:?}");
}

#[test]
fn unusable_files_are_refused_by_name() {
    for (choice, runtime) in runtimes() {
        let refused = |name, expected| assert_refused(&runtime, choice, name, expected);
        refused("absent", "cannot read the model file");
        refused("truncated", "cut short or damaged");
        refused("not_onnx", "is not a usable ONNX model: its contents are something else");
        refused("git_lfs_pointer", "run `git lfs pull`");
        refused("missing_external_data", "weights 'w' in the file");
        refused(
            "sequence_output",
            "output 'parts' is a sequence, and the file does not tell of how many tensors",
        );
        refused("sequence_input", "input 'parts' is a sequence; only tensors can be served");
        refused("unknown_operator", "Conjure");
    }
}

#[test]
fn an_empty_file_and_data_outside_the_directory_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.onnx");
    std::fs::write(&empty, b"").unwrap();
    let escaping = directory.path().join("escaping.onnx");
    let bytes = std::fs::read(fixture("missing_external_data")).unwrap();
    let bytes = replace(&bytes, b"nowhere.bin", b"../some.bin");
    std::fs::write(&escaping, bytes).unwrap();
    let (tract, runtime) = (BackendChoice::Tract, Runtime::tract_only());
    let error = load_path(&runtime, tract, &empty).err().unwrap().to_string();
    assert!(error.contains("the file is empty"), "{error}");
    let error = load_path(&runtime, tract, &escaping).err().unwrap().to_string();
    assert!(error.contains("'../some.bin', which is outside the model's directory"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused_without_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.onnx");
    let bytes = std::fs::read(fixture("zipmap_strings")).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let result = load_path(&Runtime::tract_only(), BackendChoice::Tract, &path);
        // What comes after the graph can be missing without harm to it.
        let Err(error) = result else { continue };
        assert!(error.to_string().contains("cut.onnx"), "{length}: {error}");
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn tract_says_what_it_lacks_and_what_to_do() {
    let runtime = Runtime::tract_only();
    let check = |name, expected| assert_refused(&runtime, BackendChoice::Tract, name, expected);
    check("unknown_operator", "tract cannot run operator Conjure");
    check("unknown_operator", "first at node 'conjure_y'");
    check("unknown_operator", "serve it with ONNX Runtime");
    check("identity_bf16", "tensor 'x' is BF16, which tract lacks");
}

#[test]
fn without_onnx_runtime_auto_means_tract_and_a_demand_is_refused() {
    let runtime = Runtime::tract_only();
    let auto = load(&runtime, BackendChoice::Auto, "mlp").unwrap();
    assert_eq!(auto.platform(), "tract_onnx");
    let error = load(&runtime, BackendChoice::OnnxRuntime, "mlp").err().unwrap().to_string();
    assert!(
        error.contains("asks for ONNX Runtime, which is not there: ONNX Runtime is switched off"),
        "{error}"
    );
    assert_eq!(runtime.describe(), "tract 0.23 (embedded, pure Rust): ONNX Runtime is switched off");
}

#[test]
fn a_library_that_cannot_be_used_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("libonnxruntime.so");
    std::fs::write(&text, "no library").unwrap();
    let absent = directory.path().join("absent.so");
    for library in [&text, &absent] {
        let error = Runtime::find(Some(library)).unwrap_err().to_string();
        assert!(error.contains(&library.display().to_string()), "{error}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn onnx_runtime_says_its_version_and_is_loaded_once() {
    let Some(runtime) = onnx_runtime() else { return };
    let text = runtime.describe();
    assert!(text.starts_with("ONNX Runtime 1."), "{text}");
    assert!(text.contains("libonnxruntime"), "{text}");
    assert_eq!(Runtime::find(None).unwrap().describe(), text);
    assert_eq!(std::env::var("ORT_DISABLE_TELEMETRY").unwrap(), "1");
    let error = Runtime::find(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
    assert!(error.contains("already loaded from"), "{error}");

    let model = load(&runtime, BackendChoice::Auto, "mlp").unwrap();
    let notes = model.notes();
    assert!(notes[0].starts_with("ONNX Runtime 1."), "{notes:?}");
    assert_eq!(notes[1], "CPU execution provider");
}

#[test]
fn a_provider_is_used_or_refused_with_its_reason() {
    let Some(runtime) = onnx_runtime() else { return };
    let load_with = |kinds: &[ProviderKind]| {
        let providers = kinds.iter().map(|&kind| Provider::new(kind)).collect();
        let options = OnnxOptions { providers, ..OnnxOptions::default() };
        OnnxBackend::new(&runtime, options).load(&artifact(&fixture("mlp")))
    };
    let all = [
        ProviderKind::TensorRt,
        ProviderKind::Cuda,
        ProviderKind::OpenVino,
        ProviderKind::Rocm,
        ProviderKind::MiGraphX,
        ProviderKind::Cpu,
    ];
    // The test's library is the CPU build, in which none of the others exists.
    let error = load_with(&all[..5]).err().unwrap().to_string();
    for kind in &all[..5] {
        assert!(error.contains(&format!("{kind} refused: ")), "{error}");
    }
    assert!(error.contains("none of the execution providers asked for can be used"), "{error}");

    let model = load_with(&all).unwrap();
    let notes = model.notes();
    assert!(notes.contains(&"CPU execution provider".to_owned()), "{notes:?}");
    for kind in &all[..5] {
        assert!(notes.iter().any(|note| note.starts_with(&format!("{kind} refused: "))), "{notes:?}");
    }
    let mut instance = model.instance(Placement::default()).unwrap();
    assert_eq!(run(&mut *instance, &[Some(fp32(&[1, 16], &[0.; 16]))]).unwrap()[0].shape(), [1, 4]);

    let late = load_with(&[ProviderKind::Cpu, ProviderKind::Cuda]).unwrap().notes().join("\n");
    assert!(late.contains("cuda refused: it comes after cpu"), "{late}");
}

#[test]
fn provider_options_that_do_not_exist_are_refused() {
    let Some(runtime) = onnx_runtime() else { return };
    let provider = Provider {
        kind: ProviderKind::Cpu,
        options: [("use_areena".to_owned(), "1".to_owned())].into_iter().collect(),
    };
    let options = OnnxOptions { providers: vec![provider], ..OnnxOptions::default() };
    let error =
        OnnxBackend::new(&runtime, options).load(&artifact(&fixture("mlp"))).err().unwrap().to_string();
    assert!(error.contains("no option 'use_areena'; known: use_arena"), "{error}");
}

#[test]
fn tract_refuses_providers_that_it_cannot_be() {
    let runtime = Runtime::tract_only();
    let load_with = |kinds: &[ProviderKind]| {
        let providers = kinds.iter().map(|&kind| Provider::new(kind)).collect();
        let options = OnnxOptions { providers, ..OnnxOptions::default() };
        OnnxBackend::new(&runtime, options).load(&artifact(&fixture("mlp")))
    };
    let error = load_with(&[ProviderKind::Cuda]).err().unwrap().to_string();
    assert!(error.contains("cuda refused: tract runs on the CPU"), "{error}");
    let notes = load_with(&[ProviderKind::Cuda, ProviderKind::Cpu]).unwrap().notes();
    assert!(notes.contains(&"cuda refused: tract runs on the CPU".to_owned()), "{notes:?}");
}

#[test]
fn a_relative_path_and_a_second_instance_find_the_external_data() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["external_data.onnx", "external_data.bin"] {
        let from = fixture("external_data").with_file_name(file);
        std::fs::copy(from, directory.path().join(file)).unwrap();
    }
    for (choice, runtime) in runtimes() {
        let model = load_path(&runtime, choice, &directory.path().join("external_data.onnx")).unwrap();
        let mut instances =
            [model.instance(Placement::default()).unwrap(), model.instance(Placement::default()).unwrap()];
        let results = instances.each_mut().map(|instance| {
            let outputs = run(&mut **instance, &[Some(fp32(&[1, 64], &[0.25; 64]))]).unwrap();
            floats(&outputs[0])
        });
        assert_eq!(results[0], results[1]);
    }
}
