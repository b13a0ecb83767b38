//! What `routes.toml` may say, what it says again when it is written, and when it is taken for whole.

use expect_test::{Expect, expect};
use gristmill_engine::routing::canary::Stage;

use super::*;

const EVERYTHING: &str = r#"
[routes.checkout]
policy = "split"
key = "parameter:user_id"
salt = "checkout-2026"
arms = [
    { name = "control", model = "diabetes", version = 1, weight = 89.99 },
    { name = "candidate", model = "diabetes", label = "next", weight = 10.01 },
]

[routes."a b\u007f"]
policy = "fallback"
key = "request_id"
arms = [{ model = "digits" }, { model = "digits", version = 2 }]

[routes.short]
arms = [{ model = "digits", weight = 100 }]

[[routes.short.shadows]]
model = "digits"
version = 2

[[routes.short.shadows]]
name = "next"
model = "digits"
label = "next"
percent = 12.5
absolute = 0.25
relative = 0
keep_inputs = true
"#;

/// What is read of a file that may not settle, as lines.
fn check(text: &str, expected: Expect) {
    let routes = match text::parse(text) {
        Ok(routes) => routes.iter().map(|route| format!("{route:?}\n")).collect(),
        Err(why) => why,
    };
    expected.assert_eq(&routes);
}

#[test]
fn everything_can_be_said_and_is_written_as_it_was_read() {
    check(
        EVERYTHING,
        expect![[r#"
            Route { name: "a b\u{7f}", policy: Fallback, key: RequestId, salt: "a b\u{7f}", arms: [Arm { name: "digits", model: "digits", version: Default, weight: Weight(0) }, Arm { name: "digits@2", model: "digits", version: Number(2), weight: Weight(0) }], canary: None, rollout: [], shadows: [] }
            Route { name: "checkout", policy: Split, key: Parameter("user_id"), salt: "checkout-2026", arms: [Arm { name: "control", model: "diabetes", version: Number(1), weight: Weight(8999) }, Arm { name: "candidate", model: "diabetes", version: Label("next"), weight: Weight(1001) }], canary: None, rollout: [], shadows: [] }
            Route { name: "short", policy: Split, key: Header, salt: "short", arms: [Arm { name: "digits", model: "digits", version: Default, weight: Weight(10000) }], canary: None, rollout: [], shadows: [Shadow { target: Arm { name: "digits@2", model: "digits", version: Number(2), weight: Weight(10000) }, tolerance: Tolerance { absolute: 1e-5, relative: 1e-5 }, keep_inputs: false }, Shadow { target: Arm { name: "next", model: "digits", version: Label("next"), weight: Weight(1250) }, tolerance: Tolerance { absolute: 0.25, relative: 0.0 }, keep_inputs: true }] }
        "#]],
    );
    let routes = text::parse(EVERYTHING).unwrap();
    assert_eq!(text::parse(&text::write(&routes)).unwrap(), routes);
    expect![[r##"
        # Written by `gristmill routes`. What is edited here is taken over at once.

        [routes."a b\u007f"]
        policy = "fallback"
        key = "request_id"
        salt = "a b\u007f"
        arms = [
            { name = "digits", model = "digits" },
            { name = "digits@2", model = "digits", version = 2 },
        ]

        [routes."checkout"]
        policy = "split"
        key = "parameter:user_id"
        salt = "checkout-2026"
        arms = [
            { name = "control", model = "diabetes", version = 1, weight = 89.99 },
            { name = "candidate", model = "diabetes", label = "next", weight = 10.01 },
        ]

        [routes."short"]
        policy = "split"
        key = "header"
        salt = "short"
        arms = [
            { name = "digits", model = "digits", weight = 100 },
        ]
        shadows = [
            { name = "digits@2", model = "digits", version = 2, percent = 100, absolute = 1e-5, relative = 1e-5 },
            { name = "next", model = "digits", label = "next", percent = 12.5, absolute = 0.25, relative = 0.0, keep_inputs = true },
        ]
    "##]]
    .assert_eq(&text::write(&routes));
}

#[test]
fn faults_say_what_was_expected() {
    check(
        "[routes.r]\nweight = 3\narms = []",
        expect![[r#"
            TOML parse error at line 2, column 1
              |
            2 | weight = 3
              | ^^^^^^
            unknown field `weight`, expected one of `policy`, `key`, `salt`, `arms`, `canary`, `shadows`, `bandit`"#]],
    );
    check(
        "[routes.r]\npolicy = \"random\"\narms = []",
        expect![[r#"routes.r: policy is "random": expected one of split, canary, fallback, bandit"#]],
    );
    check(
        "[routes.r]\nkey = \"cookie\"\narms = []",
        expect![[r#"routes.r: key is "cookie": expected header, request_id or parameter:NAME"#]],
    );
    check(
        "[routes.r]\narms = [{ model = \"m\", weight = 100.001 }]",
        expect!["routes.r.arms[0].weight is 100.001: expected a percentage from 0 to 100"],
    );
    check(
        "[routes.r]\narms = [{ model = \"m\", version = 1, label = \"stable\" }]",
        expect!["routes.r.arms[0].label stands beside a version: give one of the two"],
    );
    check(
        "[routes.r]\narms = []\nshadows = [{ model = \"m\", percent = 101 }]",
        expect!["routes.r.shadows[0].percent is 101: expected a percentage from 0 to 100"],
    );
}

#[test]
fn a_canary_keeps_its_plan_and_its_stage() {
    let text = r#"
[routes.r]
policy = "canary"
arms = [{ model = "m", version = 1 }, { model = "m", version = 2 }]
shadows = [{ model = "m", version = 2 }]
[routes.r.canary]
mismatch_rate_max = 0.05
steps = [{ percent = 0.5, time = "90s" }, { percent = 20, requests = 50 }, { percent = 100 }]
p50_ratio_max = 1.25
stage = "running"
step = 2
"#;
    let routes = text::parse(text).unwrap();
    assert_eq!(routes[0].arms[1].weight.percent(), 20.0, "the weights are the step's");
    let again = |routes: &[Route]| text::parse(&text::write(routes)).unwrap();
    assert_eq!(again(&routes), routes);
    expect![[r##"
        # Written by `gristmill routes`. What is edited here is taken over at once.

        [routes."r"]
        policy = "canary"
        key = "header"
        salt = "r"
        arms = [
            { name = "m@1", model = "m", version = 1 },
            { name = "m@2", model = "m", version = 2 },
        ]
        shadows = [
            { name = "m@2", model = "m", version = 2, percent = 100, absolute = 1e-5, relative = 1e-5 },
        ]
        [routes."r".canary]
        steps = [
            { percent = 0.5, time = "1m 30s", requests = 1000 },
            { percent = 20, time = "10m", requests = 50 },
            { percent = 100 },
        ]
        error_rate_increase_max = 0.001
        error_rate_max = 1
        p50_ratio_max = 1.25
        p99_ratio_max = 2
        mismatch_rate_max = 0.05
        confidence = 0.99
        stage = "running"
        step = 2
    "##]]
    .assert_eq(&text::write(&routes));
    let back = routes[0].clone().with_stage(Stage::RolledBack { why: "it \"failed\"\n".into() });
    assert_eq!(again(std::slice::from_ref(&back)), [back]);
    let done = routes[0].clone().with_stage(Stage::Done);
    assert_eq!(again(std::slice::from_ref(&done)), [done]);
    let usual = text::parse("[routes.r]\npolicy = \"canary\"\narms = [{ model = \"m\" }, { model = \"n\" }]")
        .unwrap();
    assert_eq!(usual[0].arms[1].weight.percent(), 1.0, "a plan need not be said");
}

#[test]
fn faults_of_a_canary_say_where_they_are() {
    let canary = |text: &str| {
        format!(
            "[routes.r]\npolicy = \"canary\"\narms = [{{ model = \"m\" }}, {{ model = \"n\" }}]\n[routes.r.canary]\n{text}"
        )
    };
    check(
        &canary("steps = [{ percent = 101 }]"),
        expect!["routes.r.canary.steps[0].percent is 101: expected a percentage from 0 to 100"],
    );
    check(
        &canary("steps = [{ percent = 1, time = \"soon\" }]"),
        expect![[r#"routes.r.canary.steps[0].time is "soon": expected a duration such as "10m""#]],
    );
    check(
        &canary("stage = \"paused\""),
        expect![[r#"routes.r.canary.stage is "paused": expected running, rolled_back or done"#]],
    );
    check(
        &canary("stage = \"done\"\nstep = 1"),
        expect!["routes.r.canary.step belongs to stage running, not to done"],
    );
    check(&canary("step = 0"), expect!["routes.r.canary.step is 0: expected 1 for the first"]);
    check(
        "[routes.r]\npolicy = \"canary\"\narms = [{ model = \"m\", weight = 90 }, { model = \"n\" }]",
        expect!["routes.r.arms[0].weight: with policy canary its steps say the weights, leave it out"],
    );
}

#[test]
fn a_file_is_taken_over_when_nobody_writes_to_it() {
    let root = tempfile::tempdir().unwrap();
    let mut slow = RoutesFile::new(root.path(), Duration::from_secs(3600));
    let mut quick = RoutesFile::new(root.path(), Duration::ZERO);
    assert_eq!(slow.read(), DesiredRoutes::Read(Vec::new()), "there is none");
    let path = root.path().join(FILE_NAME);
    fs::write(&path, EVERYTHING).unwrap();
    let routes = text::parse(EVERYTHING).unwrap();
    assert_eq!(quick.read(), DesiredRoutes::Read(routes.clone()));
    assert_eq!(slow.read(), DesiredRoutes::Changing, "it may be half written");
    slow.write(&routes[..1]).unwrap();
    assert_eq!(slow.read(), DesiredRoutes::Read(routes[..1].to_vec()), "it was written here, whole");
    fs::remove_file(&path).unwrap();
    assert_eq!(slow.read(), DesiredRoutes::Changing, "another may be about to come");
    assert_eq!(quick.read(), DesiredRoutes::Read(Vec::new()));
}

#[test]
fn a_file_elsewhere_is_not_read() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("secret"), root.path().join(FILE_NAME)).unwrap();
    let DesiredRoutes::Faulty { reason } = RoutesFile::new(root.path(), Duration::ZERO).read() else {
        panic!("the link is followed")
    };
    assert!(reason.ends_with("routes.toml leads out of the model repository"), "{reason}");
}
