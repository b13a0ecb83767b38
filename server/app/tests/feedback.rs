//! Feedback to a running server, which may be killed at any moment: what it accepted is there again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use gristmill_proto::admin::feedback_client::FeedbackClient;
use gristmill_proto::admin::{FeedbackItem, SendFeedbackRequest};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[routes.risk]
arms = [
    { name = "control", model = "diabetes", version = 1, weight = 50 },
    { name = "candidate", model = "diabetes", version = 2, weight = 50 },
]
"#;

const BANDIT: &str = r#"
[routes.risk]
policy = "bandit"
arms = [
    { name = "control", model = "diabetes", version = 1 },
    { name = "candidate", model = "diabetes", version = 2 },
]
bandit = { algorithm = "thompson", half_life = "1day" }
"#;

/// The same, whose winner is to have so many requests at the first step.
fn winning(requests: u64) -> String {
    let steps = format!("[{{ percent = 60, time = \"0s\", requests = {requests} }}, {{ percent = 100 }}]");
    // An arm that loses is asked all the same, until one has won.
    let algorithm = "algorithm = \"epsilon-greedy\", epsilon = 0.5";
    let settings =
        format!("{{ {algorithm}, winner_probability = 0.95, rewards_min = 10, rollout = {steps} }}");
    BANDIT.replace("{ algorithm = \"thompson\", half_life = \"1day\" }", &settings)
}

/// The real program on free ports; ended with the test.
struct Server {
    child: Child,
    http: String,
    grpc: String,
}

impl Server {
    /// Serves routes between two versions of diabetes from `root`, and keeps feedback there.
    fn start(root: &Path, routes: &str) -> Server {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/diabetes");
        for version in ["1", "2"] {
            let directory = root.join("models/diabetes").join(version);
            fs::create_dir_all(&directory).unwrap();
            fs::copy(models.join(version).join("model.onnx"), directory.join("model.onnx")).unwrap();
            fs::write(directory.join(".complete"), "").unwrap();
        }
        fs::write(root.join("models/routes.toml"), routes).unwrap();
        let ready_file = root.join("ready.json");
        // Of the server before.
        let _none = fs::remove_file(&ready_file);
        let child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .env_clear()
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--backend", "tract", "--log", "off", "--settle-time", "1ms", "--repository"])
            .arg(root.join("models"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Server { child, http: String::new(), grpc: String::new() };
        let addresses: Value = loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).unwrap();
            }
            assert_eq!(server.child.try_wait().unwrap(), None, "the server ended");
            std::thread::yield_now();
        };
        server.http = addresses["http"].as_str().unwrap().to_owned();
        server.grpc = addresses["grpc"].as_str().unwrap().to_owned();
        for version in ["1", "2"] {
            let path = format!("/v2/models/diabetes/versions/{version}/ready");
            while request(&server.http, "GET", &path, "").unwrap().0 != 200 {
                std::thread::yield_now();
            }
        }
        while request(&server.http, "GET", "/v1/admin/routes/risk", "").unwrap().0 != 200 {
            std::thread::yield_now();
        }
        server
    }

    /// What is known of the route's arms.
    fn experiment(&self) -> Value {
        let (status, shown) = request(&self.http, "GET", "/v1/admin/experiments/risk", "").unwrap();
        assert_eq!(status, 200, "{shown}");
        serde_json::from_str(&shown).unwrap()
    }

    fn predict(&self) -> String {
        self.predict_by().0
    }

    /// The id of a prediction that the route makes, and the arm.
    fn predict_by(&self) -> (String, String) {
        let body = json!({"inputs": [{"name": "measurements", "shape": [1, 10], "datatype": "FP32", "data": vec![0.5; 10]}]});
        let (status, answer) =
            request(&self.http, "POST", "/v2/models/risk/infer", &body.to_string()).unwrap();
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |name: &str| answer["parameters"][name].as_str().unwrap().to_owned();
        (text("gristmill_prediction_id"), text("gristmill_arm"))
    }

    fn tell(&self, feedback: &Value) -> Value {
        let (status, answer) = tell(&self.http, "risk", feedback).unwrap();
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// The value of each series whose name begins so.
    fn metrics(&self, prefix: &str) -> BTreeMap<String, f64> {
        let (_, text) = request(&self.http, "GET", "/metrics", "").unwrap();
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        let series = lines.map(|line| line.rsplit_once(' ').unwrap());
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing depends on how it ends.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn tell(address: &str, route: &str, feedback: &Value) -> std::io::Result<(u16, String)> {
    let body = json!({ "feedback": feedback }).to_string();
    request(address, "POST", &format!("/v2/models/{route}/feedback"), &body)
}

fn request(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok((status, body.to_owned()))
}

fn counts(answer: &Value) -> [u64; 5] {
    ["accepted", "duplicates", "conflicts", "unknown", "invalid"].map(|name| answer[name].as_u64().unwrap())
}

/// Rewards of all arms.
fn rewards(experiment: &Value) -> u64 {
    experiment["arms"].as_array().unwrap().iter().map(|arm| arm["rewards"].as_u64().unwrap()).sum()
}

#[test]
fn what_is_told_is_kept_once_whichever_way_it_comes() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), ROUTES);
    assert!(!root.path().join("models.state/feedback.redb").exists(), "nobody has asked a route yet");
    let [first, second] = [server.predict(), server.predict()];
    let nobodys = "0".repeat(32);
    let answer = server.tell(&json!([
        {"prediction_id": second, "reward": 0.25},
        {"prediction_id": first, "reward": 1},
        {"prediction_id": first, "truth": [1.5, null]},
        {"prediction_id": nobodys, "reward": 1},
    ]));
    assert_eq!((counts(&answer), &answer["durable"]), ([3, 0, 0, 1, 0], &json!(true)));
    assert_eq!(answer["problems"][0]["index"], 3);
    assert_eq!(answer["problems"][0]["prediction_id"], nobodys);
    assert!(root.path().join("models.state/feedback.redb").exists());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let item = |prediction_id: &str, reward| FeedbackItem {
        prediction_id: prediction_id.to_owned(),
        reward: Some(reward),
        truth: None,
    };
    let feedback = vec![item(&first, 1.0), item(&second, 0.5)];
    let request_of = |route: &str| SendFeedbackRequest { route: route.into(), feedback: feedback.clone() };
    let (answer, refused) = runtime.block_on(async {
        let mut client = FeedbackClient::connect(format!("http://{}", server.grpc)).await.unwrap();
        let answer = client.send_feedback(request_of("risk")).await.unwrap().into_inner();
        (answer, client.send_feedback(request_of("none")).await.unwrap_err())
    });
    assert_eq!((answer.duplicates, answer.conflicts), (1, 1));
    assert_eq!(answer.problems[0].detail, "0.25 was told before, and stays");
    assert_eq!(refused.code(), tonic::Code::NotFound);

    let faults = [
        (json!([]), "feedback has 0 items: expected 1 to 10000"),
        (
            json!([{"prediction_id": "x", "reward": 1}]),
            "feedback[0]: \"x\" is no prediction id: expected 32 hexadecimal digits",
        ),
        (json!([{"prediction_id": first}]), "feedback[0]: expected a reward or a truth, one of the two"),
    ];
    for (feedback, why) in faults {
        let (status, answer) = tell(&server.http, "risk", &feedback).unwrap();
        assert_eq!(status, 400);
        assert!(answer.contains(&json!(why).to_string()), "{answer} has not {why}");
    }
    let (_, metrics) = request(&server.http, "GET", "/metrics", "").unwrap();
    for line in [
        "gristmill_feedback_total{result=\"accepted\"} 3",
        "gristmill_feedback_total{result=\"conflict\"} 1",
        "gristmill_feedback_total{result=\"unknown\"} 1",
        "gristmill_predictions_outstanding 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// What was answered as accepted before the kill is a duplicate after it, and was never lost.
#[test]
fn a_server_that_is_killed_has_kept_all_that_it_accepted() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::start(root.path(), ROUTES);
    let (mut all_accepted, mut all_told) = (Vec::new(), Vec::new());
    for answers in [1, 7, 40] {
        let ids: Vec<String> = (0..120).map(|_| server.predict()).collect();
        // A server that is killed may forget the predictions of its last second, but not those that it was told of.
        server.tell(&json!([{"prediction_id": ids[0], "truth": 1}]));
        all_told.extend(ids.iter().cloned());
        let (http, accepted) = (server.http.clone(), Arc::new(Mutex::new(BTreeSet::new())));
        let tellers: Vec<_> = ids
            .chunks(30)
            .map(|ids| {
                let (ids, http, accepted) = (ids.to_vec(), http.clone(), Arc::clone(&accepted));
                std::thread::spawn(move || {
                    for id in ids {
                        match tell(&http, "risk", &json!([{"prediction_id": id, "reward": 1}])) {
                            Ok((200, answer)) if answer.contains("\"accepted\":1,") => {
                                accepted.lock().unwrap().insert(id);
                            }
                            // It was killed; this one may have been kept or not.
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        while accepted.lock().unwrap().len() < answers {
            std::thread::yield_now();
        }
        server.kill();
        tellers.into_iter().for_each(|teller| teller.join().unwrap());
        all_accepted.extend(accepted.lock().unwrap().iter().cloned());
        server = Server::start(root.path(), ROUTES);
        let again: Vec<Value> =
            all_accepted.iter().map(|id| json!({"prediction_id": id, "reward": 1})).collect();
        let answer = server.tell(&json!(again));
        assert_eq!(counts(&answer), [0, all_accepted.len() as u64, 0, 0, 0], "{answer}");
        // Whether those that were not answered are kept is told by asking; then all count, and each once.
        let rest: Vec<Value> = all_told.iter().map(|id| json!({"prediction_id": id, "reward": 1})).collect();
        let [accepted, duplicates, ..] = counts(&server.tell(&json!(rest)));
        assert_eq!(accepted + duplicates, all_told.len() as u64);
        assert_eq!(rewards(&server.experiment()), all_told.len() as u64);
    }
}

/// A batch is one commit: after a kill all of it is kept, with what it adds to its arms' sums, or nothing.
#[test]
fn a_batch_that_is_cut_off_by_a_kill_is_kept_whole_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::start(root.path(), BANDIT);
    let mut kept_before = 0;
    for answers in [1, 3, 6] {
        let batches: Vec<Value> = (0..12)
            .map(|_| {
                let item = |_| json!({"prediction_id": server.predict(), "reward": 0.5});
                (0..8).map(item).collect()
            })
            .collect();
        let (http, told) = (server.http.clone(), batches.clone());
        let (answered, seen) = mpsc::channel();
        let teller = std::thread::spawn(move || {
            // The first that is not answered is the one that the kill has cut off.
            let is_answered = |batch: &Value| matches!(tell(&http, "risk", batch), Ok((200, _)));
            told.iter().take_while(|batch| is_answered(batch)).for_each(|_| answered.send(()).unwrap());
        });
        seen.iter().take(answers).for_each(drop);
        server.kill();
        teller.join().unwrap();
        let all_seen = answers + seen.try_iter().count();
        server = Server::start(root.path(), BANDIT);
        let found = rewards(&server.experiment()) - kept_before;
        assert_eq!(found % 8, 0, "a part of a batch was kept");
        assert!(found as usize >= 8 * all_seen, "{found} are fewer than {all_seen} batches of 8");
        for (index, batch) in batches.iter().enumerate() {
            let is_kept = 8 * index < found as usize;
            let expected = if is_kept { [0, 8, 0, 0, 0] } else { [8, 0, 0, 0, 0] };
            assert_eq!(counts(&server.tell(batch)), expected, "batch {index} of {}", batches.len());
        }
        kept_before += 8 * batches.len() as u64;
        assert_eq!(rewards(&server.experiment()), kept_before);
    }
}

/// The numbers of an experiment that are in the metrics too, by the series that they are in.
fn series(experiment: &Value) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut put = |name: &str, labels: &str, value: &Value| {
        let value = value.as_f64();
        series.extend(value.map(|value| (format!("gristmill_experiment_{name}{{{labels}}}"), value)));
    };
    for arm in experiment["arms"].as_array().unwrap() {
        let labels = format!("route=\"risk\",arm={}", arm["name"]);
        put("rewards_total", &labels, &arm["rewards"]);
        for name in [
            "reward_mean",
            "posterior_mean",
            "posterior_low",
            "posterior_high",
            "probability_best",
            "expected_loss",
            "p_value",
        ] {
            put(name, &labels, &arm[name]);
        }
    }
    put("sample_ratio_p", "route=\"risk\"", &experiment["sample_ratio_p"]);
    series
}

/// But for the last digit, which reading numbers from JSON may cost.
fn are_alike(one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>) -> bool {
    let is_near = |one: f64, other: f64| (one - other).abs() <= 1e-12 * other.abs();
    one.keys().eq(other.keys()) && one.values().zip(other.values()).all(|(one, other)| is_near(*one, *other))
}

#[test]
fn what_is_known_of_arms_is_in_the_metrics_too() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), ROUTES);
    for number in 0..80 {
        let (id, arm) = server.predict_by();
        let reward = if arm == "candidate" { 1.0 } else { f64::from(number % 3) / 2.0 };
        server.tell(&json!([{"prediction_id": id, "reward": reward}]));
    }
    let (experiment, metrics) = loop {
        let (experiment, metrics) = (server.experiment(), server.metrics("gristmill_experiment_"));
        if are_alike(&metrics, &series(&experiment)) {
            break (experiment, metrics);
        }
        std::thread::yield_now();
    };
    assert_eq!(rewards(&experiment), 80);
    assert_eq!(
        metrics.len(),
        2 * 8 - 1 + 1,
        "the first arm has no p-value, and the route has one: {metrics:?}"
    );
}

#[test]
fn a_bandit_goes_where_the_rewards_are_and_still_does_after_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), BANDIT);
    let mut in_a_row = 0;
    while in_a_row < 20 {
        let (id, arm) = server.predict_by();
        let is_candidate = arm == "candidate";
        in_a_row = if is_candidate { in_a_row + 1 } else { 0 };
        let reward = if is_candidate { 1.0 } else { 0.0 };
        let answer = server.tell(&json!([{"prediction_id": id, "reward": reward}]));
        assert_eq!(counts(&answer), [1, 0, 0, 0, 0]);
    }
    let shown = server.experiment();
    let [control, candidate] = [&shown["arms"][0], &shown["arms"][1]];
    assert!(candidate["rewards"].as_u64().unwrap() >= 20 && candidate["reward_mean"] == 1.0, "{shown}");
    assert!(candidate["requests"].as_u64() >= candidate["rewards"].as_u64(), "{shown}");
    assert!(candidate["probability_best"].as_f64().unwrap() > 0.9, "{shown}");
    assert!(candidate["expected_loss"].as_f64() < control["expected_loss"].as_f64(), "{shown}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    let done =
        command.env_clear().args(["experiments", "show", "risk", "--server", &server.grpc]).output().unwrap();
    let page = String::from_utf8(done.stdout).unwrap();
    assert!(page.starts_with("risk (bandit)\n") && page.contains("best with "), "{page}");
    let answer = server.tell(&json!([{"prediction_id": server.predict(), "reward": 2}]));
    assert_eq!(answer["problems"][0]["kind"], "invalid", "{answer}");
    server.kill();

    let server = Server::start(root.path(), BANDIT);
    let share = || {
        let (_, metrics) = request(&server.http, "GET", "/metrics", "").unwrap();
        let name = "gristmill_route_weight_ratio{route=\"risk\",arm=\"candidate\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<f64>().unwrap()
    };
    while share() < 0.9 {
        std::thread::yield_now();
    }
    let arms: Vec<String> = (0..50).map(|_| server.predict_by().1).collect();
    assert!(arms.iter().filter(|arm| *arm == "candidate").count() > 25, "{arms:?}");
}

/// The candidate's rewards are the better ones. Its first step does not end by itself before the kill.
#[test]
fn a_winner_grows_by_steps_and_goes_on_after_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path(), &winning(1_000_000_000));
    let first = loop {
        let (id, arm) = server.predict_by();
        let reward = if arm == "candidate" { 1 } else { 0 };
        server.tell(&json!([{"prediction_id": id, "reward": reward}]));
        let shown = server.experiment();
        let waits = shown["rollout"]["state"].as_str().is_some_and(|state| state.contains(" are asked for"));
        if shown["winner"] != "" && waits {
            break shown;
        }
    };
    assert_eq!((&first["winner"], &first["arms"][1]["share"]), (&json!("candidate"), &json!(0.6)), "{first}");
    let rollout = &first["rollout"];
    assert_eq!(
        (&rollout["step"], &rollout["steps"], &rollout["percent"]),
        (&json!(1), &json!(2), &json!(60.0))
    );
    let (_, route) = request(&server.http, "GET", "/v1/admin/routes/risk", "").unwrap();
    let route: Value = serde_json::from_str(&route).unwrap();
    let said = json!([{"percent": 60.0, "time": "0s", "requests": 1_000_000_000}, {"percent": 100.0}]);
    assert_eq!(route["bandit"]["rollout"], said, "{route}");
    server.kill();

    let server = Server::start(root.path(), &winning(1_000_000_000));
    let resumed = loop {
        let shown = server.experiment();
        if shown["arms"][1]["share"] == 0.6 {
            break shown;
        }
        std::thread::yield_now();
    };
    assert_eq!(
        (&resumed["winner"], &resumed["rollout"]["step"]),
        (&json!("candidate"), &json!(1)),
        "{resumed}"
    );
    server.kill();

    let server = Server::start(root.path(), &winning(20));
    let done = loop {
        server.predict();
        let shown = server.experiment();
        if shown["rollout"]["step"] == 2 {
            break shown;
        }
    };
    assert_eq!((&done["arms"][0]["share"], &done["arms"][1]["share"]), (&json!(0.0), &json!(1.0)), "{done}");
    let state = done["rollout"]["state"].as_str().unwrap();
    assert!(
        state.starts_with("it is the best with a probability of ") && state.contains(" requests in "),
        "{state}"
    );
    let arms: Vec<String> = (0..20).map(|_| server.predict_by().1).collect();
    assert!(arms.iter().all(|arm| arm == "candidate"), "{arms:?}");
    server.kill();

    let server = Server::start(root.path(), &winning(20));
    while server.experiment()["arms"][1]["share"] != 1.0 {
        std::thread::yield_now();
    }
}
