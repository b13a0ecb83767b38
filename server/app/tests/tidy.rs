//! The rules of CONTRIBUTING.md that a machine can check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_engine::metrics::METRICS;

/// Lines beyond which a file needs a reason.
const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All of the project's Rust files.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = ["proto", "server", "loadtest", "benches"].map(|name| root().join(name)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the project's files were found");
    files
}

fn faults(check: impl Fn(&Path, &str) -> Option<String>) -> Vec<String> {
    rust_files()
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            check(path, &text)
                .map(|fault| format!("{}: {fault}", path.strip_prefix(root()).unwrap().display()))
        })
        .collect()
}

#[test]
fn every_file_says_what_it_decides_or_hides() {
    let faults = faults(|_, text| (!text.starts_with("//! ")).then(|| "does not begin with //!".to_owned()));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_file_is_too_long() {
    let faults = faults(|_, text| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{lines} lines"))
    });
    assert!(faults.is_empty(), "split by responsibility: {faults:#?}");
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let faults = faults(|path, _| {
        let stem = path.file_stem()?.to_str()?;
        ["common", "util", "utils", "helper", "helpers", "misc"]
            .contains(&stem)
            .then(|| "rename it".to_owned())
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn tests_do_not_sleep_or_hide() {
    // Put together here, so that this file is not its own offender.
    let banned = ["thread::sle", "time::sle"].map(|start| format!("{start}ep("));
    let hidden = ["ignore", "should_panic"].map(|name| format!("#[{name}"));
    let faults = faults(|path, text| {
        let tests = if path.components().any(|part| part.as_os_str() == "tests") {
            text
        } else {
            text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests)
        };
        // Under a paused clock a sleep takes no time: it is how such a test says when things happen.
        let simulated = tests.contains("start_paused = true");
        let sleeps = banned.iter().filter(|_| !simulated);
        let found = sleeps.chain(&hidden).find(|word| tests.contains(word.as_str()));
        found.map(|word| format!("has {word}"))
    });
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn engine_modules_use_only_those_above_them() {
    let source = root().join("server/engine/src");
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let modules: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(modules.len() > 15, "{modules:?}");
    let mut faults = Vec::new();
    for (position, module) in modules.iter().enumerate() {
        let text = fs::read_to_string(source.join(format!("{module}.rs"))).unwrap();
        let used = text
            .split("crate::")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
        for used in used.filter(|used| used != module) {
            if modules.iter().position(|known| known == &used).is_none_or(|other| other > position) {
                faults.push(format!("{module} uses {used}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_engine_knows_no_protocol_and_no_runtime() {
    let manifest = fs::read_to_string(root().join("server/engine/Cargo.toml")).unwrap();
    for banned in ["tonic", "prost", "axum", "hyper", "serde", "ort", "tract"] {
        let found = manifest.lines().find(|line| line.starts_with(banned));
        assert_eq!(found, None, "the engine must not depend on {banned}");
    }
}

#[test]
fn the_readme_lists_every_metric() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for metric in METRICS.iter().chain(gristmill::telemetry::METRICS) {
        let row = format!("| `{}` | {} | {} |", metric.name, metric.labels.join(", "), metric.help);
        assert!(readme.contains(&row), "README.md lacks the row\n{row}");
    }
}

#[test]
fn every_fuzz_target_is_built_told_and_seeded() {
    let fuzz = root().join("server/app/fuzz");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let (manifest, readme) = (read(fuzz.join("Cargo.toml")), read(fuzz.join("README.md")));
    let contributing = read(root().join("CONTRIBUTING.md"));
    let targets: Vec<PathBuf> =
        fs::read_dir(fuzz.join("targets")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(targets.len() > 10, "{targets:?}");
    for target in targets {
        let name = target.file_stem().unwrap().to_str().unwrap();
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "Cargo.toml lacks {name}");
        assert!(readme.contains(&format!("`{name}`")), "README.md lacks {name}");
        assert!(contributing.contains(&format!("fuzz run {name} ")), "CONTRIBUTING.md lacks {name}");
        let is_seed = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("seed-");
        let mut corpus = fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
        assert!(corpus.any(|entry| is_seed(entry.unwrap())), "{name} has no seed");
    }
}
