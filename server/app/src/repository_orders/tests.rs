//! Tests of what is desired after orders with contents; the runtime is not asked to load any of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use expect_test::{Expect, expect};
use gristmill_engine::control::ControlError;
use gristmill_engine::registry::{DesiredModel, HandedOver, Registry, VersionSource};
use gristmill_onnx::Runtime;

use super::OrderedRegistry;
use crate::cli::{Cli, Command};
use crate::config::SettingsReader;

struct World {
    repository: tempfile::TempDir,
    registry: OrderedRegistry,
}

impl World {
    /// A repository with model `ours` in version 1.
    fn new() -> World {
        let repository = tempfile::tempdir().unwrap();
        fs::create_dir_all(repository.path().join("ours/1")).unwrap();
        fs::write(repository.path().join("ours/1/model.onnx"), "ours").unwrap();
        let Some(Command::Check(args)) =
            Cli::parse_from(["gristmill", "check", "--backend", "tract"]).command
        else {
            panic!("check was asked for");
        };
        let reader = SettingsReader::new(&Runtime::tract_only(), &args.models).unwrap();
        let registry = OrderedRegistry::new(repository.path().to_owned(), reader, Duration::ZERO);
        World { repository, registry }
    }

    fn versions(&mut self, model: &str) -> BTreeMap<u64, VersionSource> {
        match self.registry.desired().unwrap().models.remove(model) {
            Some(DesiredModel::Sound { versions, .. }) => versions,
            Some(DesiredModel::Faulty { reason } | DesiredModel::Vacant { reason }) => panic!("{reason}"),
            None => BTreeMap::new(),
        }
    }

    fn contents(&mut self, model: &str) -> Vec<String> {
        self.versions(model).values().map(|version| fs::read_to_string(&version.path).unwrap()).collect()
    }

    fn hand_over(&mut self, model: &str, config: &str, files: &[(&str, &str)]) -> Result<(), ControlError> {
        let files = files
            .iter()
            .map(|&(path, contents)| (path.to_owned(), Bytes::copy_from_slice(contents.as_bytes())))
            .collect();
        self.registry.hand_over(model, HandedOver { config: config.into(), files })
    }
}

#[test]
fn files_go_before_the_repository_until_they_are_taken_back() {
    let mut world = World::new();
    world.hand_over("ours", "{}", &[("2/model.onnx", "theirs"), ("2/weights/a", "w")]).unwrap();
    assert_eq!(world.contents("ours"), ["theirs"]);
    let path = world.versions("ours")[&2].path.clone();
    assert_eq!(fs::read_to_string(path.with_file_name("weights").join("a")).unwrap(), "w");
    world.registry.conclude("ours", true);
    assert_eq!(world.contents("ours"), ["theirs"]);
    world.registry.take_back("ours");
    assert_eq!(world.contents("ours"), ["ours"]);
    assert!(!path.exists(), "nobody needs the files");
}

#[test]
fn files_stay_as_long_as_somebody_needs_them() {
    let mut world = World::new();
    world.hand_over("ours", "{}", &[("1/model.onnx", "theirs")]).unwrap();
    let desired = world.registry.desired().unwrap();
    let path = world.versions("ours")[&1].path.clone();
    world.registry.take_back("ours");
    assert!(path.exists());
    drop(desired);
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_served_gives_way_to_what_was_served_before() {
    let mut world = World::new();
    world.hand_over("made", "{}", &[("1/model.onnx", "bad")]).unwrap();
    world.registry.conclude("made", false);
    assert_eq!(world.contents("made"), [""; 0]);

    world.hand_over("made", "{}", &[("1/model.onnx", "good")]).unwrap();
    world.registry.conclude("made", true);
    let good = world.versions("made");
    for contents in ["bad", "worse"] {
        world.hand_over("made", "{}", &[("1/model.onnx", contents)]).unwrap();
        assert_eq!(world.contents("made"), [contents]);
    }
    world.registry.conclude("made", false);
    assert_eq!(world.versions("made"), good, "the very same, so that nothing is loaded again");
    world.registry.conclude("made", false);
    assert_eq!(world.versions("made"), good);
}

#[test]
fn a_load_without_contents_keeps_those_of_a_model_that_the_repository_has_not() {
    let mut world = World::new();
    for model in ["ours", "made"] {
        world.hand_over(model, "{}", &[("1/model.onnx", "theirs")]).unwrap();
        world.registry.prefer_own(model);
    }
    assert_eq!(world.contents("ours"), ["ours"]);
    assert_eq!(world.contents("made"), ["theirs"]);
}

#[test]
fn another_configuration_is_another_version_and_follows_the_repository() {
    let mut world = World::new();
    let before = world.versions("ours");
    world.hand_over("ours", r#"{"max_batch_size": 4}"#, &[]).unwrap();
    let after = world.versions("ours");
    assert_eq!(before[&1].path, after[&1].path);
    assert_ne!(before[&1].stamp, after[&1].stamp);
    let second: PathBuf = world.repository.path().join("ours/2");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("model.onnx"), "ours too").unwrap();
    assert_eq!(world.contents("ours"), ["ours", "ours too"]);
    match &world.registry.desired().unwrap().models["ours"] {
        DesiredModel::Sound { settings, .. } => assert_eq!(settings.tuning.batch_rows_max, Some(4)),
        DesiredModel::Faulty { reason } | DesiredModel::Vacant { reason } => panic!("{reason}"),
    }
    world.registry.prefer_own("ours");
    assert_eq!(world.versions("ours")[&1], before[&1]);
}

fn check(model: &str, config: &str, files: &[(&str, &str)], expected: Expect) {
    let mut world = World::new();
    let error = world.hand_over(model, config, files).unwrap_err();
    expected.assert_eq(&format!("{error:?}"));
    assert_eq!(world.contents("ours"), ["ours"]);
}

#[test]
fn faults_say_what_was_expected() {
    let good = ("1/model.onnx", "");
    for path in ["../1/model.onnx", "/1/model.onnx", "1//model.onnx", "1/./x", "1/", "", "1/a\\b", "1/a\0"] {
        let mut world = World::new();
        let error = world.hand_over("made", "{}", &[good, (path, "")]).unwrap_err();
        let ControlError::Refused(text) = error else { panic!("{error:?}") };
        assert!(text.contains("without '..', for example file:1/model.onnx"), "{path:?}: {text}");
    }
    check(
        "made",
        "{}",
        &[("model.onnx", "")],
        expect![[
            r#"Refused("the load has files and none of a version: expected a parameter such as file:1/model.onnx")"#
        ]],
    );
    check(
        "made",
        "{}",
        &[("01/model.onnx", "")],
        expect![[
            r#"Refused("the load has files and none of a version: expected a parameter such as file:1/model.onnx")"#
        ]],
    );
    check(
        "made",
        "{}",
        &[good, ("2/weights", "")],
        expect![[
            r#"Refused("version 2 has no model file: expected the parameter file:2/model.onnx, or another name as default_model_filename in the configuration")"#
        ]],
    );
    check(
        "made",
        r#"{"default_model_filename": "it.onnx"}"#,
        &[good],
        expect![[
            r#"Refused("version 1 has no model file: expected the parameter file:1/it.onnx, or another name as default_model_filename in the configuration")"#
        ]],
    );
    check(
        "made",
        r#"{"name": "other"}"#,
        &[good],
        expect![[
            r#"Refused("parameter 'config': name is 'other': expected 'made', the name of its directory, or none")"#
        ]],
    );
    check(
        "made",
        "{",
        &[good],
        expect![[
            r#"Refused("parameter 'config': not JSON: EOF while parsing an object at line 1 column 1")"#
        ]],
    );
    check(
        "_made",
        "{}",
        &[good],
        expect![[r#"Refused("'_made' is not a model's name: expected none that begins with '.' or '_'")"#]],
    );
    check(
        "../made",
        "{}",
        &[good],
        expect![[
            r#"Refused("model name \"../made\" has the character '/': expected no path separators and no control characters")"#
        ]],
    );
    check(
        "made",
        "{}",
        &[],
        expect![[
            r#"NotFound("model 'made' is not in the repository: put it there, or send its files with the load")"#
        ]],
    );
    check(
        "ours",
        r#"{"name": "other"}"#,
        &[],
        expect![[
            r#"Refused("parameter 'config': name is 'other': expected 'ours', the name of its directory, or none")"#
        ]],
    );
}
