//! Canaries of real models in the real program: a failing one is taken back, a good one reaches everything, and a
//! killed server goes on where it was. Where a version is not slow on purpose, how fast it is counts for nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Repository, Server, check_fault, request};
use expect_test::expect;

const ANY_SPEED: &[&str] = &["--p50-ratio-max", "1e9", "--p99-ratio-max", "1e9"];

fn set(server: &Server, candidate: &str, steps: &[&str], bounds: &[&str]) -> Result<String, String> {
    let candidate = format!("candidate={candidate}");
    let mut arguments = vec!["set", "risk", "--policy", "canary", "--arm", "control=diabetes@1", "--arm"];
    arguments.push(&candidate);
    arguments.extend(steps.iter().flat_map(|step| ["--step", step]));
    arguments.extend(bounds);
    server.routes(&arguments)
}

/// Sends requests with other and other keys, whatever becomes of them, until the canary is where `is_there`.
fn ask_until(server: &Server, is_there: impl Fn(&Value) -> bool) -> Value {
    let body = json!({"inputs": [{"name": "measurements", "shape": [1, 10], "datatype": "FP32", "data": vec![0.5; 10]}]});
    for key in 0.. {
        let header = format!("X-Routing-Key: {key}\r\n");
        request(&server.http, "POST", "/v2/models/risk/infer", &header, &body.to_string()).unwrap();
        if key % 20 == 0 {
            let canary = server.show();
            if is_there(&canary) {
                return canary;
            }
        }
    }
    unreachable!("the loop does not end")
}

/// Serves the control's weights under another name too, with these settings.
fn serve_beside(repository: &Repository, name: &str, settings: &str) -> Server {
    let models = repository.root.path().join("models");
    let version = models.join(name).join("1");
    fs::create_dir_all(&version).unwrap();
    fs::copy(models.join("diabetes/1/model.onnx"), version.join("model.onnx")).unwrap();
    fs::write(version.join(".complete"), "").unwrap();
    fs::write(models.join(name).join("model.toml"), settings).unwrap();
    let server = repository.serve();
    while server.get(&format!("/v2/models/{name}/ready")).0 != 200 {
        std::thread::yield_now();
    }
    server
}

impl Server {
    fn show(&self) -> Value {
        let (status, _, answer) = self.get("/v1/admin/routes/risk");
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()["canary"].take()
    }

    fn arms_of_20_keys(&self) -> Vec<String> {
        (0..20).map(|key| self.ask("risk", &key.to_string())[0].clone()).collect()
    }
}

#[test]
fn a_failing_candidate_is_taken_back_and_stays_so() {
    let repository = Repository::new();
    // It fails every request: nothing can keep such an SLO.
    let server = serve_beside(&repository, "hurried", "slo = \"1ns\"\n");
    set(&server, "hurried", &["50:0s:1000", "100"], ANY_SPEED).unwrap();
    let back = ask_until(&server, |canary| canary["stage"] != "running");
    assert_eq!(back["stage"], "rolled_back", "{back}");
    let why = back["state"].as_str().unwrap();
    assert!(why.contains(" requests (100.00 %) failed") && why.contains("surely at least"), "{why}");
    assert!(back["events"][1]["why"] == why && back["events"][1]["what"] == "taken back", "{back}");
    let log = fs::read_to_string(repository.log()).unwrap();
    assert!(log.contains(why), "the numbers are in the log: {log}");
    let (_, _, metrics) = server.get("/metrics");
    for line in [
        r#"gristmill_canary_decisions_total{route="risk",decision="back"} 1"#,
        r#"gristmill_canary_step{route="risk"} 0"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(server.arms_of_20_keys(), ["control"; 20]);
    server.kill();

    let server = repository.serve();
    assert_eq!(server.show()["stage"], "rolled_back");
    assert!(kept(repository.routes().as_path()).contains(why), "the reason is kept");
    assert_eq!(server.arms_of_20_keys(), ["control"; 20]);
    let table = server.routes(&["show", "risk"]).unwrap();
    assert!(table.contains(&format!("canary: taken back: {why}")), "{table}");
}

/// It waits for others to batch with, which do not come. The step never ends by itself, so that no pause of the
/// machine can let it pass.
#[test]
fn a_slow_candidate_is_taken_back() {
    let repository = Repository::new();
    let server = serve_beside(&repository, "slow", "batching = { rows_max = 64, delay = \"30ms\" }\n");
    set(&server, "slow", &["50:0s:1000000000", "100"], &["--p50-ratio-max", "1.2"]).unwrap();
    let back = ask_until(&server, |canary| canary["stage"] != "running");
    assert_eq!(back["stage"], "rolled_back", "{back}");
    let why = back["state"].as_str().unwrap();
    assert!(why.contains("that of the control's") && why.contains("surely at least"), "{why}");
    assert_eq!(server.arms_of_20_keys(), ["control"; 20]);
}

/// Both versions say something else of every request. The candidate gets one key in a hundred: it is the shadow that
/// tells. The step never ends by itself, so that it does not matter how many mirrors are shed.
#[test]
fn a_candidate_that_answers_otherwise_is_taken_back() {
    let repository = Repository::new();
    let server = repository.serve();
    let gate = [ANY_SPEED, &["--mismatch-rate-max", "0.01"]].concat();
    check_fault(
        set(&server, "diabetes@2", &["1:0s:1000000000", "100"], &gate),
        expect![[
            r#"gristmill: route 'risk': its canary has mismatch_rate_max, and no shadow leads to diabetes@2, which the candidate leads to: add to the route shadows = [{ name = "candidate", model = "diabetes", version = 2, percent = 100 }], or --shadow candidate=diabetes@2:100; or leave mismatch_rate_max out"#
        ]],
    );
    let shadowed = [&gate[..], &["--shadow", "next=diabetes@2"]].concat();
    let table = set(&server, "diabetes@2", &["1:0s:1000000000", "100"], &shadowed).unwrap();
    assert!(table.contains("canary: step 1 of 2"), "{table}");
    let file = kept(repository.routes().as_path());
    assert!(file.contains("mismatch_rate_max = 0.01\nconfidence = "), "{file}");
    let back = ask_until(&server, |canary| canary["stage"] != "running");
    assert_eq!(back["stage"], "rolled_back", "{back}");
    let why = back["state"].as_str().unwrap();
    let numbers = ["(100.00 %) that the control answered were answered otherwise", "surely at least"];
    assert!(numbers.iter().all(|text| why.contains(text)), "{why}");
    assert!(fs::read_to_string(repository.log()).unwrap().contains(why), "the numbers are in the log");
    assert_eq!(server.arms_of_20_keys(), ["control"; 20]);
}

/// Its shadow finds no difference.
#[test]
fn a_candidate_that_answers_alike_goes_forward_when_enough_was_compared() {
    let repository = Repository::new();
    let server = serve_beside(&repository, "same", "");
    let gate = [ANY_SPEED, &["--mismatch-rate-max", "0.01", "--shadow", "next=same"]].concat();
    set(&server, "same", &["50:0s:1000000000", "100"], &gate).unwrap();
    let compared = |canary: &Value| canary["mirrored"]["compared"].as_u64().unwrap_or(0);
    let running = ask_until(&server, |canary| compared(canary) >= 20);
    assert_eq!((&running["stage"], &running["mirrored"]["differing"]), (&json!("running"), &json!(0)));
    let table = server.routes(&["show", "risk"]).unwrap();
    assert!(table.contains(" requests compared in this step, 0 answered otherwise"), "{table}");
    set(&server, "same", &["50:0s:20", "100"], &gate).unwrap();
    let done = ask_until(&server, |canary| canary["stage"] == "done");
    let why = done["state"].as_str().unwrap();
    assert!(
        why.contains("were answered otherwise, or not at all, by the shadow; the bound is 1.00 %"),
        "{why}"
    );
}

/// Asks with 20 keys, and rewards each arm by what it is.
fn ask_and_reward(server: &Server, [control, candidate]: [f64; 2]) {
    let feedback = (0..20).map(|key| {
        let [arm, _, id] = server.ask("risk", &key.to_string());
        json!({"prediction_id": id, "reward": if arm == "control" { control } else { candidate }})
    });
    let told = server.post("/v2/models/risk/feedback", &json!({"feedback": feedback.collect::<Value>()}));
    assert_eq!(told["accepted"], 20, "{told}");
}

/// Both answer in time and without errors. The step never ends by itself, so that no pause of the machine can let the
/// candidate pass.
#[test]
fn a_candidate_whose_rewards_are_lower_is_taken_back() {
    let repository = Repository::new();
    let server = repository.serve();
    check_fault(
        set(&server, "diabetes@2", &["50", "100"], &["--rewards-min", "20"]),
        expect![
            "gristmill: rewards_min stands without reward_decrease_max: give both, such as reward_decrease_max = 0.02, or neither"
        ],
    );
    let gate = [ANY_SPEED, &["--reward-decrease-max", "0.1", "--rewards-min", "20"]].concat();
    set(&server, "diabetes@2", &["50:0s:1000000000", "100"], &gate).unwrap();
    let file = kept(repository.routes().as_path());
    assert!(file.contains("reward_decrease_max = 0.1\nrewards_min = 20\nconfidence = "), "{file}");
    let back = loop {
        ask_and_reward(&server, [0.8, 0.2]);
        let canary = server.show();
        if canary["stage"] != "running" {
            break canary;
        }
    };
    assert_eq!(back["stage"], "rolled_back", "{back}");
    let why = back["state"].as_str().unwrap();
    let numbers = [" rewards is 0.2000, that of the control's ", " is 0.8000: 0.6000 less, surely at least "];
    assert!(numbers.iter().all(|text| why.contains(text)), "{why}");
    assert!(fs::read_to_string(repository.log()).unwrap().contains(why), "the numbers are in the log");
    assert_eq!(server.arms_of_20_keys(), ["control"; 20]);
    let [.., id] = server.ask("risk", "0");
    let told =
        server.post("/v2/models/risk/feedback", &json!({"feedback": [{"prediction_id": id, "reward": 2}]}));
    assert_eq!(told["problems"][0]["kind"], "invalid", "{told}");
}

#[test]
fn a_candidate_of_equal_rewards_goes_forward_when_there_are_enough() {
    let repository = Repository::new();
    let server = repository.serve();
    let gate = [ANY_SPEED, &["--reward-decrease-max", "0.1", "--rewards-min", "20"]].concat();
    set(&server, "diabetes@2", &["50:0s:20", "100"], &gate).unwrap();
    let waits =
        |canary: &Value| canary["state"].as_str().is_some_and(|why| why.contains("have been rewarded"));
    let waiting = ask_until(&server, waits);
    assert_eq!((&waiting["stage"], &waiting["candidate"]["rewards"]), (&json!("running"), &json!(0)));
    let done = loop {
        ask_and_reward(&server, [0.5, 0.5]);
        let canary = server.show();
        if canary["stage"] != "running" {
            break canary;
        }
        let table = server.routes(&["show", "risk"]).unwrap();
        assert!(table.contains(" rewards of 0.5000 on average") || table.contains("canary: done"), "{table}");
    };
    assert_eq!(done["stage"], "done", "{done}");
    let why = done["state"].as_str().unwrap();
    assert!(why.contains(" is 0.5000: 0.0000 less; the bound is 0.1000 less"), "{why}");
}

#[test]
fn a_good_candidate_reaches_everything_and_a_killed_server_goes_on_where_it_was() {
    let repository = Repository::new();
    let server = repository.serve();
    set(&server, "diabetes@2", &["10:0s:50", "50:0s:50", "100"], ANY_SPEED).unwrap();
    let second = ask_until(&server, |canary| canary["step"] == 2);
    assert_eq!((&second["stage"], &second["steps"][1]["percent"]), (&json!("running"), &json!(50.0)));
    let arms = server.arms_of_20_keys();
    server.kill();

    let server = repository.serve();
    let resumed = server.show();
    assert_eq!((&resumed["stage"], &resumed["step"]), (&json!("running"), &json!(2)), "{resumed}");
    assert_eq!(server.arms_of_20_keys(), arms, "each key has its arm again");
    ask_until(&server, |canary| canary["stage"] == "done");
    assert_eq!(server.arms_of_20_keys(), ["candidate"; 20]);
    assert!(server.routes(&["show", "risk"]).unwrap().contains("canary: done: "));
    server.kill();

    let server = repository.serve();
    assert_eq!(server.show()["stage"], "done");
    assert_eq!(server.arms_of_20_keys(), ["candidate"; 20]);
}

#[test]
fn a_canary_is_written_down_whole_and_wrong_ones_are_refused() {
    let repository = Repository::new();
    let server = repository.serve();
    set(&server, "diabetes@2", &["0.5:1h:50", "100"], ANY_SPEED).unwrap();
    expect![[r##"
        # Written by `gristmill routes`. What is edited here is taken over at once.

        [routes."risk"]
        policy = "canary"
        key = "header"
        salt = "risk"
        arms = [
            { name = "control", model = "diabetes", version = 1 },
            { name = "candidate", model = "diabetes", version = 2 },
        ]
        [routes."risk".canary]
        steps = [
            { percent = 0.5, time = "1h", requests = 50 },
            { percent = 100 },
        ]
        error_rate_increase_max = 0.001
        error_rate_max = 1
        p50_ratio_max = 1000000000
        p99_ratio_max = 1000000000
        confidence = 0.99
        stage = "running"
        step = 1
    "##]]
    .assert_eq(&kept(repository.routes().as_path()));
    server.routes(&["abort", "risk"]).unwrap();
    assert_eq!(server.show()["state"], "an operator took it back");
    let before = kept(repository.routes().as_path());
    check_fault(
        set(&server, "diabetes@2", &["10", "5", "100"], ANY_SPEED),
        expect![
            "gristmill: route 'risk': its canary: step 2 is at 5 percent, after one at 10: expected more from step to step"
        ],
    );
    check_fault(
        set(&server, "diabetes@2", &["10", "50"], ANY_SPEED),
        expect!["gristmill: route 'risk': its canary: step 2 is the last and at 50 percent: expected 100"],
    );
    check_fault(
        server.routes(&["promote", "risk", "candidate", "--weight", "7"]),
        expect!["gristmill: route 'risk' has no step at 7 percent: its canary has 0.5, 100"],
    );
    check_fault(
        server.routes(&[
            "set",
            "risk",
            "--policy",
            "canary",
            "--arm",
            "a=diabetes@1:90",
            "--arm",
            "b=diabetes@2:10",
        ]),
        expect![
            "gristmill: weight of arm 'a' is 90: with policy canary its steps say the weights, leave it out"
        ],
    );
    assert_eq!(kept(repository.routes().as_path()), before);
}

fn kept(routes: &Path) -> String {
    fs::read_to_string(routes).unwrap()
}
