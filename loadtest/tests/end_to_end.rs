//! The binary against a real server on real sockets: what it sends, what it counts, how it exits.

#![expect(clippy::unwrap_used, reason = "a test, and the server made for it, fail by panicking")]

mod stub;

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stub::Stub;
use tempfile::TempDir;

/// Runs the binary with `arguments` off the runtime's threads.
async fn loadtest(arguments: Vec<String>) -> Output {
    let (done, output) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let output = Command::new(env!("CARGO_BIN_EXE_gristmill-loadtest")).args(arguments).output();
        done.send(output.unwrap()).unwrap();
    });
    output.await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Runs one load that must succeed, and reads its result file.
async fn measure(arguments: &str) -> Value {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("result.json");
    let mut arguments = words(&format!("run --warmup 0s {arguments} --output"));
    arguments.push(file.to_str().unwrap().to_owned());
    let output = loadtest(arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn ok_count(result: &Value) -> u64 {
    result["phases"][0]["total"]["latency_ms"]["ok"]["count"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_sends_as_many_requests_as_asked_over_grpc() {
    let stub = Stub::start().await;
    let address = stub.grpc;
    for (body, threads) in [("raw", 1), ("typed", 1), ("raw", 3)] {
        let before = stub.seen.requests("echo");
        let result = measure(&format!(
            "--grpc {address} --body {body} -m echo --rows 5 --dim word=2 -n 200 -c 8 --threads {threads}"
        ))
        .await;
        assert_eq!(ok_count(&result), 200);
        // One more proves the request beforehand.
        assert_eq!(stub.seen.requests("echo") - before, 201);
        assert_eq!(result["schema"], "gristmill-loadtest/1");
        assert_eq!(result["phases"][0]["settings"]["load"]["in_flight"], 8);
        let total = &result["phases"][0]["total"];
        let rows = total["ok_rows_per_s"].as_f64().unwrap() / total["ok_per_s"].as_f64().unwrap();
        assert!((rows - 5.0).abs() < 1e-9, "{rows} rows an answer");
    }
    assert_eq!(
        stub.seen.distinct_bodies("echo"),
        32 + 1,
        "random rows differ; typed requests carry no raw bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_http_body_arrives_as_the_tensors_it_means() {
    let stub = Stub::start().await;
    let address = stub.http;
    for body in ["json", "binary", "predict"] {
        let result =
            measure(&format!("--http http://{address} --body {body} -m echo --rows 2 -n 50 -c 4")).await;
        assert_eq!(ok_count(&result), 50, "{body}");
    }
    assert_eq!(stub.seen.requests("echo"), 3 * 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_kind_with_their_first_message() {
    let expected = [
        ("ok", 20),
        ("overloaded", 10),
        ("deadline", 10),
        ("unavailable", 10),
        ("invalid", 10),
        ("internal", 10),
    ];
    for over_http in [false, true] {
        let stub = Stub::start().await;
        let target =
            if over_http { format!("--http {}", stub.http) } else { format!("--grpc {}", stub.grpc) };
        let result = measure(&format!("{target} -m grumpy -n 70 -c 1")).await;
        let total = &result["phases"][0]["total"];
        for (kind, count) in expected {
            assert_eq!(total["latency_ms"][kind]["count"], count, "{kind}");
            if kind != "ok" {
                assert!(total["messages"][kind].as_str().unwrap().contains("grumpy says no"), "{total}");
            }
        }
        assert_eq!(total["requests"], 70);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_carry_their_timeout_and_are_given_up_after_it() {
    let stub = Stub::start().await;
    let result = measure(&format!("--grpc {} -m stuck -n 3 -c 3 --timeout 40ms", stub.grpc)).await;
    assert_eq!(result["phases"][0]["total"]["latency_ms"]["deadline"]["count"], 3);
    assert_eq!(stub.seen.timeouts(), ["40000000n"; 4]);
    let result = measure(&format!("--http {} -m echo -n 1 --timeout 40ms", stub.http)).await;
    assert_eq!(ok_count(&result), 1);
    assert_eq!(stub.seen.timeouts()[4..], ["40"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_offers_its_rate_to_a_mix_of_models() {
    let stub = Stub::start().await;
    for threads in [1, 2] {
        let result = measure(&format!(
            "--grpc {} -m echo -m twin=3 --rate 2000 --arrivals poisson -n 800 --seed 3 --threads {threads} --slo-ms 60000",
            stub.grpc
        ))
        .await;
        let phase = &result["phases"][0];
        let echo = phase["models"]["echo"]["requests"].as_u64().unwrap();
        let twin = phase["models"]["twin"]["requests"].as_u64().unwrap();
        assert_eq!((ok_count(&result), echo + twin), (800, 800));
        assert!((140..260).contains(&echo), "{echo} of 800 went to a model with a quarter of the weight");
        assert_eq!(phase["total"]["good_per_s"], phase["total"]["ok_per_s"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_before_any_load() {
    let stub = Stub::start().await;
    let grpc = stub.grpc;
    // A port that nothing listens on: bound, and closed again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (arguments, expected) in [
        (format!("--grpc {closed} -m echo"), "is the server running, and is this its gRPC port?"),
        (format!("--http {closed} -m echo"), "is the server running, and is this its HTTP port?"),
        (format!("--grpc {grpc} -m absent"), "there is no model `absent`"),
        (format!("--grpc {grpc} -m unknown"), "the first request was refused, so no load was sent"),
        (format!("--grpc {grpc} -m echo --dim wrod=3"), "there is x, word"),
        (format!("--grpc {grpc} -m echo --body json"), "this body does not go over gRPC"),
        (format!("--grpc {grpc} -m echo=0"), "weight 0 is not above 0"),
        (format!("--grpc {grpc} -m echo --rate 0"), "expected more than 0"),
    ] {
        let output = loadtest(words(&format!("run {arguments}"))).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {text}");
        assert!(text.contains(expected), "{arguments}: {text}");
    }
    assert_eq!(stub.seen.requests("echo"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_come_from_a_file_in_either_form() {
    let stub = Stub::start().await;
    let directory = TempDir::new().unwrap();
    let golden = directory.path().join("golden.json");
    let text = r#"{"inputs": {"word": [["a"], ["b"], ["c"]], "x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}}"#;
    std::fs::write(&golden, text).unwrap();
    let request = directory.path().join("request.json");
    let text = r#"{"inputs": [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]},
        {"name": "word", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}]}"#;
    std::fs::write(&request, text).unwrap();
    let (golden, request) = (golden.to_str().unwrap(), request.to_str().unwrap());
    // Three rows, two at a time, start over: rows 0 1, 2 0, 1 2 are all there is.
    for (arguments, bodies) in [
        (format!("--input {golden}"), 1),
        (format!("--input {golden} --rows 2"), 4),
        (format!("--input {request}"), 5),
    ] {
        measure(&format!("--grpc {} -m echo -n 40 {arguments}", stub.grpc)).await;
        assert_eq!(stub.seen.distinct_bodies("echo"), bodies, "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_starts_its_server_and_exits_by_its_goals() {
    let stub = Stub::start().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("scenario.toml");
    for (slowest_ms, expected) in [(60_000.0, 0), (0.000_001, 2)] {
        // A stand-in that says it is ready, names the stub, and waits to be stopped.
        let text = format!(
            r#"
description = "Answers come at all."
[server]
command = ["sh", "-c", 'echo "{{\"grpc\": \"{}\"}}" > {{ready_file}}; exec tail -f /dev/null']
[[models]]
name = "echo"
rows = 2
[[phases]]
name = "closed"
concurrency = 2
duration = "200ms"
goal = {{ p99_ms_max = {slowest_ms}, failed_percent_max = 0 }}
[[phases]]
name = "open"
rate_per_s = 500
arrivals = "poisson"
duration = "200ms"
"#,
            stub.grpc
        );
        std::fs::write(&file, text).unwrap();
        let output = loadtest(vec!["scenario".to_owned(), file.to_str().unwrap().to_owned()]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(expected), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(if expected == 0 { "goal holds" } else { "goal MISSED" }), "{text}");
        assert!(text.contains("server 0.00 cores"), "the started server's own usage is read: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phase_may_be_relative_to_an_earlier_one() {
    let stub = Stub::start().await;
    let directory = TempDir::new().unwrap();
    let (file, result) = (directory.path().join("scenario.toml"), directory.path().join("result.json"));
    let scenario = |base: &str, model: &str| {
        format!(
            r#"
description = "Half of what was."
target = {{ grpc = "{}" }}
models = [{{ name = "echo" }}, {{ name = "twin" }}]
[[phases]]
name = "whole"
rate_per_s = 400
duration = "500ms"
slo = "60s"
[[phases]]
name = "half"
models = ["{model}"]
rate_of = {{ phase = "{base}", times = 0.5 }}
duration = "500ms"
slo = "60s"
goal = {{ good_percent_of = {{ phase = "whole", min = 90 }} }}
"#,
            stub.grpc
        )
    };
    let run = async |text: String| {
        std::fs::write(&file, text).unwrap();
        let mut arguments = words("scenario --output");
        arguments.extend([&result, &file].map(|path| path.to_str().unwrap().to_owned()));
        loadtest(arguments).await
    };
    let output = run(scenario("whole", "twin")).await;
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&result).unwrap()).unwrap();
    let [whole, half] = [0, 1].map(|phase| &result["phases"][phase]);
    let good_per_s = whole["total"]["good_per_s"].as_f64().unwrap();
    assert_eq!(half["settings"]["load"]["rate_per_s"].as_f64().unwrap(), (good_per_s / 2.0).round());
    assert_eq!(half["settings"]["models"].as_array().unwrap().len(), 1);
    let condition = half["goal"]["conditions"][0][0].as_str().unwrap();
    assert!(condition.starts_with("answers/s in time, in % of `whole`: "), "{condition}");
    for (base, model, expected) in [
        ("half", "twin", "phase `half` refers to `half`, which is none of the phases before it"),
        ("whole", "absent", "phase `half`: `absent` is none of [[models]]"),
    ] {
        let output = run(scenario(base, model)).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_load_early_and_still_gives_its_result() {
    let stub = Stub::start().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("result.json");
    for load in ["-c 4", "--rate 500"] {
        let before = stub.seen.requests("echo");
        let mut child = Command::new(env!("CARGO_BIN_EXE_gristmill-loadtest"))
            .args(words(&format!(
                "run --grpc {} -m echo --warmup 0s --duration 1h {load} --output",
                stub.grpc
            )))
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        stub.seen.wait_for(before + 50).await;
        let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        assert!(child.wait().unwrap().success());
        let result: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let phase = &result["phases"][0];
        assert_eq!(phase["interrupted"], true);
        assert!(phase["window_s"].as_f64().unwrap() < 3600.0);
        assert_eq!(phase["total"]["requests"], stub.seen.requests("echo") - before - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_with_a_misspelt_key_names_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("scenario.toml");
    std::fs::write(&file, "description = \"x\"\nmodles = []\nmodels = []\nphases = []\n").unwrap();
    let output = loadtest(vec!["scenario".to_owned(), file.to_str().unwrap().to_owned()]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("unknown field `modles`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_written_down() {
    let stub = Stub::start().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("trace.csv");
    let arguments = format!(
        "run --grpc {} -m echo --rows 3 -r 2000 --threads 2 --warmup 10ms -n 100 --timeout 5s --trace {}",
        stub.grpc,
        file.display()
    );
    let output = loadtest(words(&arguments)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(file).unwrap();
    let (header, lines) = text.split_once('\n').unwrap();
    assert_eq!(header, "at_us,model,rows,deadline_us");
    let moments: Vec<u64> = lines
        .lines()
        .map(|line| {
            let (at, rest) = line.split_once(',').unwrap();
            assert_eq!(rest, "echo,3,5000000");
            at.parse().unwrap()
        })
        .collect();
    assert!(moments.is_sorted() && moments.len() > 100, "the warm-up is there too: {moments:?}");
    assert_eq!(moments.len() + 1, stub.seen.requests("echo"), "but not what proved the request");
}
