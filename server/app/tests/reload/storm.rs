//! Two hundred changes in a row under constant load: no request fails, and each answer is of a version that might serve then.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gristmill_proto::inference as pb;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tonic::transport::Channel;

use crate::files::Repository;
use crate::onnx::{self, COLUMNS};
use crate::server::Server;

const CHANGES: u64 = 200;
/// Callers that send a request every few milliseconds whatever happens: some 2,000 requests a second.
const CALLERS: usize = 16;
const PAUSE: Duration = Duration::from_millis(8);

const SETTINGS: &str = "instances = 1\nbatching.rows_max = 8\nkeep_previous = \"0s\"\n";

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    model: &'static str,
    /// A number, a label or nothing.
    version: &'static str,
}

/// Serves its newest version.
const NEWEST: Target = Target { model: "newest", version: "" };
/// Serves the version that `stable` points at.
const STABLE: Target = Target { model: "labelled", version: "" };
const CANARY: Target = Target { model: "labelled", version: "canary" };
/// Its contents change while it is asked for by its number.
const NUMBERED: Target = Target { model: "numbered", version: "1" };
/// Goes back to version 1 again and again.
const RETURNING: Target = Target { model: "returning", version: "" };
const TARGETS: [Target; 5] = [NEWEST, STABLE, CANARY, NUMBERED, RETURNING];

/// What one model file adds to its input: the version and how often its contents have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Contents {
    version: u64,
    revision: u64,
}

/// An answer may come from these contents between these times.
#[derive(Debug)]
struct Allowed {
    target: Target,
    contents: Contents,
    from: Instant,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Answer {
    target: Target,
    contents: Contents,
    sent: Instant,
    received: Instant,
}

struct Storm {
    repository: Repository,
    server: Server,
    client: GrpcInferenceServiceClient<Channel>,
    allowed: Vec<Allowed>,
    newest: Contents,
    numbered: Contents,
    labelled: u64,
    returning: u64,
    /// By the callers.
    answered: Arc<AtomicUsize>,
}

// === impl Contents ===

impl Contents {
    fn first(version: u64) -> Contents {
        Contents { version, revision: 0 }
    }

    fn revised(self) -> Contents {
        Contents { revision: self.revision + 1, ..self }
    }

    /// Exact in FP32, with room for what callers send.
    fn added(self) -> f32 {
        (self.version * 1000 + self.revision) as f32
    }

    fn file(self) -> Vec<u8> {
        onnx::adds(self.added())
    }

    /// What answered, by its values alone.
    fn told_by(added: f32) -> Contents {
        let added = added as u64;
        Contents { version: added / 1000, revision: added % 1000 }
    }
}

async fn ask(client: &mut GrpcInferenceServiceClient<Channel>, target: Target, sent_value: f32) -> Contents {
    let input = pb::model_infer_request::InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, COLUMNS as i64],
        ..Default::default()
    };
    let request = pb::ModelInferRequest {
        model_name: target.model.into(),
        model_version: target.version.into(),
        inputs: vec![input],
        raw_input_contents: vec![[sent_value; COLUMNS].map(f32::to_le_bytes).concat().into()],
        ..Default::default()
    };
    let answer = client.model_infer(request).await.unwrap().into_inner();
    let values: Vec<f32> =
        answer.raw_output_contents[0].as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    assert_eq!(values, [values[0]; COLUMNS], "{target:?}");
    let contents = Contents::told_by(values[0] - sent_value);
    assert_eq!(answer.model_version, contents.version.to_string(), "the answer's version and its values");
    assert_eq!(contents.added(), values[0] - sent_value, "nobody else's input is in the answer");
    contents
}

/// Sends at its own pace until it is told to stop; returns every answer.
async fn call(
    mut client: GrpcInferenceServiceClient<Channel>,
    number: usize,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut pace = interval(PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let target = TARGETS[(number + answers.len()) % TARGETS.len()];
        let sent = Instant::now();
        let contents = ask(&mut client, target, number as f32).await;
        answers.push(Answer { target, contents, sent, received: Instant::now() });
        answered.fetch_add(1, Ordering::Relaxed);
    }
    answers
}

impl Storm {
    async fn begin() -> Storm {
        let repository = Repository::new();
        let latest = format!("{SETTINGS}versions = {{ latest = 1 }}\n");
        repository.replace("newest", "model.toml", latest.as_bytes());
        repository.replace("numbered", "model.toml", latest.as_bytes());
        repository.replace("labelled", "model.toml", labels(1, 1).as_bytes());
        repository.replace("returning", "model.toml", SETTINGS.as_bytes());
        for model in ["newest", "numbered", "labelled", "returning"] {
            repository.put(model, 1, &[("model.onnx", &Contents::first(1).file())]);
        }
        let server = Server::start(&repository, "30ms");
        let client = GrpcInferenceServiceClient::connect(server.grpc.clone()).await.unwrap();
        let first = Contents::first(1);
        let mut storm = Storm {
            repository,
            server,
            client,
            allowed: Vec::new(),
            newest: first,
            numbered: first,
            labelled: 1,
            returning: 1,
            answered: Arc::default(),
        };
        for target in TARGETS {
            storm.allow(target, first);
        }
        storm
    }

    /// From now on these contents may answer.
    fn allow(&mut self, target: Target, contents: Contents) {
        self.allowed.push(Allowed { target, contents, from: Instant::now(), until: None });
    }

    /// Waits until `contents` answer: from then on nothing else may.
    async fn await_swap(&mut self, target: Target, contents: Contents) {
        while ask(&mut self.client, target, 500.0).await != contents {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        for allowed in &mut self.allowed {
            if allowed.target == target && allowed.contents != contents {
                allowed.until.get_or_insert(now);
            }
        }
    }

    async fn await_state(&self, model: &str, version: u64, mut is_there: impl FnMut(&str, &str) -> bool) {
        while !self.server.entry(model, version).is_some_and(|entry| is_there(&entry.state, &entry.reason)) {
            tokio::task::yield_now().await;
        }
    }

    /// The one before the newest is not needed any more.
    fn remove_before(&self, model: &str, version: u64) {
        if version > 2 {
            self.repository.remove(model, version - 2);
        }
    }

    async fn new_version(&mut self) {
        let next = Contents::first(self.newest.version + 1);
        self.allow(NEWEST, next);
        self.repository.put("newest", next.version, &[("model.onnx", &next.file())]);
        self.await_newest(next).await;
    }

    async fn await_newest(&mut self, next: Contents) {
        self.await_swap(NEWEST, next).await;
        self.newest = next;
        self.remove_before("newest", next.version);
    }

    /// The same version has other contents: that of the newest, or of one that is asked for by its number.
    async fn new_contents(&mut self, target: Target) {
        let contents = if target == NEWEST { &mut self.newest } else { &mut self.numbered };
        *contents = contents.revised();
        let next = *contents;
        self.allow(target, next);
        self.repository.replace(target.model, &format!("{}/model.onnx", next.version), &next.file());
        self.await_swap(target, next).await;
    }

    /// A new version comes and is tried by those who ask for the canary; then all get it.
    async fn move_label(&mut self, label: Target) {
        if label == CANARY {
            let next = self.labelled + 1;
            self.repository.put("labelled", next, &[("model.onnx", &Contents::first(next).file())]);
            self.await_state("labelled", next, |state, _| state == "READY").await;
            self.allow(CANARY, Contents::first(next));
            self.repository.replace("labelled", "model.toml", labels(self.labelled, next).as_bytes());
            self.labelled = next;
        } else {
            self.allow(STABLE, Contents::first(self.labelled));
            let text = labels(self.labelled, self.labelled);
            self.repository.replace("labelled", "model.toml", text.as_bytes());
        }
        self.await_swap(label, Contents::first(self.labelled)).await;
        if label == STABLE {
            self.remove_before("labelled", self.labelled);
        }
    }

    /// Fails to load, and is replaced by what should have come. It adds what no other contents add.
    async fn corrupt_version(&mut self, change: u64) {
        let next = Contents::first(self.newest.version + 1);
        let whole = next.revised().file();
        let corrupt = if change.is_multiple_of(20) {
            b"not a model".to_vec()
        } else {
            whole[..whole.len() / 2].to_vec()
        };
        self.repository.put("newest", next.version, &[("model.onnx", &corrupt)]);
        self.await_state("newest", next.version, |state, reason| {
            state == "UNAVAILABLE" && reason.contains("is not a usable ONNX model")
        })
        .await;
        self.allow(NEWEST, next);
        self.repository.replace("newest", &format!("{}/model.onnx", next.version), &next.file());
        self.await_newest(next).await;
    }

    /// Grows under its final name, and is looked at by the server after each piece.
    async fn slow_copy(&mut self) {
        let next = Contents::first(self.newest.version + 1);
        let directory = self.repository.version("newest", next.version);
        fs::create_dir(&directory).unwrap();
        let mut file = fs::File::create(directory.join("model.onnx")).unwrap();
        let whole = next.file();
        let pieces: Vec<&[u8]> = whole.chunks(whole.len() / 3 + 1).collect();
        for (index, piece) in pieces.iter().enumerate() {
            if index + 1 == pieces.len() {
                self.allow(NEWEST, next);
            }
            file.write_all(piece).unwrap();
            self.await_state("newest", next.version, |_, _| true).await;
        }
        self.await_newest(next).await;
    }

    /// A new version serves for a while, and an operator goes back from it.
    async fn roll_back(&mut self) {
        self.returning += 1;
        let (before, next) = (Contents::first(1), Contents::first(self.returning));
        self.allow(RETURNING, next);
        self.repository.put("returning", next.version, &[("model.onnx", &next.file())]);
        self.await_swap(RETURNING, next).await;
        let answered = self.answered.load(Ordering::Relaxed);
        while self.answered.load(Ordering::Relaxed) < answered + 10 * TARGETS.len() {
            tokio::task::yield_now().await;
        }
        self.allow(RETURNING, before);
        let path = "/v1/admin/models/returning/rollback";
        let (status, answer) = self.server.call("POST", path, &serde_json::json!({"reason": "a test"}));
        assert_eq!(status, 200, "{answer}");
        self.await_swap(RETURNING, before).await;
        self.repository.remove("returning", next.version);
    }

    async fn change(&mut self, change: u64) {
        match change % 10 {
            0 => self.corrupt_version(change).await,
            5 => self.slow_copy().await,
            1 | 6 => self.move_label(CANARY).await,
            2 | 7 => self.move_label(STABLE).await,
            3 => self.new_contents(NEWEST).await,
            8 => self.new_contents(NUMBERED).await,
            9 => self.roll_back().await,
            _ => self.new_version().await,
        }
    }
}

fn labels(stable: u64, canary: u64) -> String {
    format!("{SETTINGS}versions = \"all\"\nlabels = {{ stable = {stable}, canary = {canary} }}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_changes_lose_no_request() {
    let mut storm = Storm::begin().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let client = GrpcInferenceServiceClient::connect(storm.server.grpc.clone()).await.unwrap();
        callers.spawn(call(client, number, Arc::clone(&stop), Arc::clone(&storm.answered)));
    }
    for change in 1..=CHANGES {
        storm.change(change).await;
        assert_eq!(callers.len(), CALLERS);
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    while let Some(caller) = callers.join_next().await {
        answers.extend(caller.unwrap());
    }
    for answer in &answers {
        let might_serve = storm.allowed.iter().any(|allowed| {
            (allowed.target, allowed.contents) == (answer.target, answer.contents)
                && allowed.from <= answer.received
                && allowed.until.is_none_or(|until| answer.sent <= until)
        });
        assert!(might_serve, "{answer:?}");
    }
    for target in TARGETS {
        let mut seen: Vec<Contents> = Vec::new();
        for answer in answers.iter().filter(|answer| answer.target == target) {
            if !seen.contains(&answer.contents) {
                seen.push(answer.contents);
            }
        }
        assert!(seen.len() > 10, "{target:?} was asked while it changed: {seen:?}");
    }
    assert_eq!(storm.server.readiness(), serde_json::json!({"ready": true}));
}
