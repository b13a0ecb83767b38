//! Tests of what a `model.toml` may say.

use super::*;
use expect_test::{Expect, expect};
use gristmill_engine::budget::Budget;
use gristmill_engine::conduct::Watch;
use gristmill_engine::merging::Word;
use gristmill_engine::tuning::{Fallback, Priorities, QueuePolicy, TimeoutAction};
use std::time::Duration;

fn check(text: &str, expected: Expect) {
    let result = match parse_model_toml(text) {
        Ok(parsed) => format!("{parsed:?}"),
        Err(error) => error,
    };
    expected.assert_eq(&result);
}

#[test]
fn nothing_is_required() {
    assert_eq!(parse_model_toml(""), Ok(ModelToml::default()));
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        backend = "onnxruntime"
        providers = ["tensorrt", { name = "cuda", options = { device_id = "1" } }, "cpu"]
        spinning = true
        batch_axis = "none"
        instances = 2
        threads = 3
        run_timeout = "2m"
        weight = 4
        slo = "50ms"
        priorities = { levels = 3, default = 1 }
        batching = { rows_max = 16, delay = "2ms", preferred_rows = [8, 4], trusted = true, audit = 0.01 }
        versions = { latest = 3 }
        labels = { stable = 4 }
        keep_previous = "10s"
        allow_signature_change = true
        budget = { run_p99 = { 1 = "2ms" }, resident_bytes = 1000000 }
        watch = { period = "2m", p99_ratio_max = 3.0 }
        slo_objective = 0.99
        degrade_to = "small"

        [queue]
        order = "arrival"
        rows_max = 100
        bytes_max = 1000
        time_max = "2s"
        requests_max = 50
        timeout = "1s"
        timeout_action = "delay"
        timeout_override = true
        levels.3 = { requests_max = 10 }
    "#;
    let parsed = parse_model_toml(text).unwrap();
    assert_eq!(parsed.backend, Some(BackendChoice::OnnxRuntime));
    assert_eq!(parsed.providers.unwrap()[1].options["device_id"], "1");
    assert_eq!(parsed.spinning, Some(true));
    assert!(parsed.is_unbatched);
    assert_eq!(parsed.slo_objective, Some(0.99));
    let tuning = Tuning {
        instances: Some(2),
        threads: Some(3),
        batch_rows_max: Some(16),
        batch_delay: Some(Duration::from_millis(2)),
        degrade_to: Some(Fallback::Name("small".into())),
        is_eager: true,
        queue_rows_max: Some(100),
        queue_bytes_max: Some(1000),
        queue_time_max: Some(Duration::from_secs(2)),
        preferred_rows: vec![4, 8],
        word: Word::Trusted,
        audits_per_million: Some(10_000),
        run_timeout: Some(Duration::from_secs(120)),
        weight: Some(4),
        slo: Some(Duration::from_millis(50)),
        priorities: Some(Priorities { levels: 3, default_level: 1 }),
        queue_policy: QueuePolicy {
            requests_max: Some(50),
            timeout: Some(Duration::from_secs(1)),
            timeout_action: TimeoutAction::Delay,
            timeout_can_be_shortened: true,
        },
        level_policies: BTreeMap::from([(
            3,
            QueuePolicy { requests_max: Some(10), ..QueuePolicy::default() },
        )]),
        budget: Budget {
            run_p99_max: BTreeMap::from([(1, Duration::from_millis(2))]),
            resident_bytes_max: Some(1_000_000),
        },
    };
    let lifecycle = Lifecycle {
        policy: VersionPolicy::Latest(3),
        labels: BTreeMap::from([("stable".into(), 4)]),
        keep_previous: Duration::from_secs(10),
        allow_signature_change: true,
        watch: Some(Watch { period: Duration::from_secs(120), p99_ratio_max: Some(3.0), ..Watch::default() }),
    };
    assert_eq!(parsed.lifecycle, lifecycle);
    assert_eq!(parsed.tuning, tuning);
}

#[test]
fn faults_say_what_was_expected() {
    check(
        "watch = \"on\"",
        expect![[r#"
        TOML parse error at line 1, column 9
          |
        1 | watch = "on"
          |         ^^^^
        expected "off" or a table with period, requests_min, error_rate_increase_max and p99_ratio_max"#]],
    );
    check("watch = { p99_ratio_max = 0.5 }", expect!["watch.p99_ratio_max is 0.5: expected at least 1"]);
    check(
        "watch = { error_rate_increase_max = 5.0 }",
        expect!["watch.error_rate_increase_max is 5: expected 0 to 1"],
    );
    // Added to the time of a clock these would end a thread.
    for text in [
        "keep_previous = \"300000000000years\"",
        "run_timeout = \"300000000000years\"",
        "watch = { period = \"300000000000years\" }",
    ] {
        let why = parse_model_toml(text).unwrap_err();
        assert!(why.ends_with(" is \"300000000000years\": expected at most 100 years"), "{why}");
    }
    assert_eq!(parse_model_toml("watch = \"off\"").unwrap().lifecycle.watch, None);
    check("versions = []", expect!["versions is an empty list: expected one version at least"]);
    check("versions = { latest = 0 }", expect!["versions.latest is 0: expected 1 to 1000"]);
    check(
        "versions = \"newest\"",
        expect![[r#"
        TOML parse error at line 1, column 12
          |
        1 | versions = "newest"
          |            ^^^^^^^^
        expected "all", a list such as [1, 3], or { latest = 2 }"#]],
    );
    check(
        "labels = { 3 = 1 }",
        expect!["labels: '3' is not a label: expected a name that is not a number, without '/'"],
    );
    check(
        "keep_previous = \"long\"",
        expect![[r#"keep_previous is "long": expected a duration such as "5m" (expected number at 0)"#]],
    );
    check(
        "budget = { run_p99 = { x = \"2ms\" } }",
        expect![[r#"budget.run_p99: 'x' is not a number of rows: expected for example { 1 = "2ms" }"#]],
    );
    check(
        "slo_objective = 1.0",
        expect!["slo_objective is 1: expected a share between 0 and 1, such as 0.999"],
    );
    check(
        "run_timeout = \"0s\"",
        expect![[r#"run_timeout is "0s": expected more than nothing, such as "50ms""#]],
    );
    check("instances = 0", expect!["instances is 0: expected 1 to 1024"]);
    check(
        "batching = { rows_max = 9999999 }",
        expect!["batching.rows_max is 9999999: expected 1 to 1048576"],
    );
    check(
        "batching = { audit = 2.0 }",
        expect!["batching.audit is 2: expected a share of the batches, from 0 for none to 1 for all"],
    );
    check(
        "batching = { delay = \"fast\" }",
        expect![[r#"batching.delay is "fast": expected a duration such as "2ms" (expected number at 0)"#]],
    );
    check(
        "batching = { rows_max = 64 }\nqueue = { rows_max = 10 }",
        expect![
            "queue.rows_max is 10 and batching.rows_max is 64: a batch would never fill; expected a queue of at least one batch"
        ],
    );
    check(
        "providers = [\"gpu\"]",
        expect![
            "unknown execution provider 'gpu': expected one of cpu, cuda, tensorrt, openvino, rocm, migraphx"
        ],
    );
    check(
        "providers = [3]",
        expect![[r#"
        TOML parse error at line 1, column 13
          |
        1 | providers = [3]
          |             ^^^
        expected a provider's name or a table with a name and options"#]],
    );
    check("slo = \"0s\"", expect![[r#"slo is "0s": expected more than nothing, such as "50ms""#]]);
    check(
        "slo = \"soon\"",
        expect![[r#"slo is "soon": expected a duration such as "50ms" (expected number at 0)"#]],
    );
    check("priorities = { levels = 0 }", expect!["priorities.levels is 0: expected 1 to 256"]);
    check(
        "priorities = { levels = 2, default = 3 }",
        expect!["priorities.default is 3: expected 1, the most urgent, to priorities.levels, 2"],
    );
    check(
        "queue = { levels = { 1 = {} } }",
        expect!["queue.levels: '1' is no level: expected 1 to priorities.levels, which is 0"],
    );
    check(
        "queue = { timeout = \"0s\" }",
        expect![[r#"queue.timeout is "0s": expected more than nothing, such as "50ms""#]],
    );
    check("queue = { requests_max = 0 }", expect!["queue.requests_max is 0: expected at least 1"]);
    check(
        "batching = { rows_max = 4, preferred_rows = [2, 8] }",
        expect!["batching.preferred_rows has 8: expected 1 to batching.rows_max, 4"],
    );
    check(
        "instance = 2",
        expect![[r#"
            TOML parse error at line 1, column 1
              |
            1 | instance = 2
              | ^^^^^^^^
            unknown field `instance`, expected one of `backend`, `providers`, `spinning`, `batch_axis`, `instances`, `threads`, `run_timeout`, `weight`, `slo`, `priorities`, `batching`, `queue`, `versions`, `labels`, `keep_previous`, `allow_signature_change`, `budget`, `watch`, `slo_objective`, `degrade_to`, `input`, `output`"#]],
    );
    check(
        "backend = \"torch\"",
        expect![[r#"
        TOML parse error at line 1, column 11
          |
        1 | backend = "torch"
          |           ^^^^^^^
        unknown variant `torch`, expected one of `auto`, `onnxruntime`, `tract`"#]],
    );
}
