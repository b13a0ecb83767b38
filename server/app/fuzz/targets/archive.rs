//! Any bytes as one of TorchServe's archives. What is unpacked stays below the model's directory, and holds the model.
#![no_main]

use std::path::{Component, Path};

use gristmill::torchserve_management::read_archive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(archive) = read_archive(data, "model.onnx") else { return };
    let mut models = 0;
    for path in archive.files.keys() {
        let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(is_plain, "{path}");
        let Some((version, name)) = path.split_once('/') else {
            assert_eq!(path, "model.toml");
            continue;
        };
        assert!(version.parse::<u64>().is_ok_and(|number| number > 0), "{path}");
        models += usize::from(name == "model.onnx");
    }
    assert_eq!(models, 1);
});
