//! What `routes.toml` may say, what it says again when it is written, and when it is taken for whole.

use expect_test::{Expect, expect};

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
        Route { name: "a b\u{7f}", policy: Fallback, key: RequestId, salt: "a b\u{7f}", arms: [Arm { name: "digits", model: "digits", version: Default, weight: Weight(0) }, Arm { name: "digits@2", model: "digits", version: Number(2), weight: Weight(0) }] }
        Route { name: "checkout", policy: Split, key: Parameter("user_id"), salt: "checkout-2026", arms: [Arm { name: "control", model: "diabetes", version: Number(1), weight: Weight(8999) }, Arm { name: "candidate", model: "diabetes", version: Label("next"), weight: Weight(1001) }] }
        Route { name: "short", policy: Split, key: Header, salt: "short", arms: [Arm { name: "digits", model: "digits", version: Default, weight: Weight(10000) }] }
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
        unknown field `weight`, expected one of `policy`, `key`, `salt`, `arms`"#]],
    );
    check(
        "[routes.r]\npolicy = \"bandit\"\narms = []",
        expect![[r#"routes.r: policy is "bandit": expected split or fallback"#]],
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
