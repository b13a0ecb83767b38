//! The table of every route of the HTTP door, which all descriptions are made from; a test holds it against the router.

use gristmill_engine::request::ModelInfo;
use gristmill_engine::tensor::DType;

use super::tensors;
use crate::predict_http::rule::Rule;

/// A method on a path, as people are told of it.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) dialect: &'static str,
    pub(super) summary: &'static str,
    pub(super) takes: Takes,
    pub(super) answers: Answers,
}

/// What comes back where all goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Json,
    Text,
    Html,
    JsonOrHtml,
    /// Server-sent events.
    Events,
    /// Nothing: it is always refused, with 501.
    Unsupported,
}

/// What a body must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// There is none, or it is not looked at.
    Nothing,
    /// The Open Inference Protocol's tensors.
    Tensors,
    /// `features` or `instances`.
    Features,
    /// `instances` or `inputs`, as TensorFlow Serving has them.
    Instances,
    /// `instances` alone.
    OnlyInstances,
    /// `examples`: an object for each row.
    Examples,
    /// A row or a list of rows, as TorchServe takes them.
    Rows,
    /// MLflow's data frames and tensors.
    Frame,
    /// `{"ready": true}` or nothing.
    Index,
    /// Triton's `parameters` of a load or an unload.
    Order,
    Reason,
    Label,
    /// The arms of a route and how one is chosen.
    Route,
    Promotion,
    /// Rewards and truths by prediction id.
    Feedback,
    /// Inputs by name, and parameters beside them.
    Generate,
    /// Log settings by name.
    LogSettings,
    /// Trace settings by name.
    TraceSettings,
    /// Which part of which file a region of shared memory is.
    Region,
    /// Which allocation on which GPU it is.
    DeviceRegion,
}

const SELF: &str = "About this server";
const OIP: &str = "Open Inference Protocol";
const REPOSITORY: &str = "Model repository (Triton)";
const SHARED_MEMORY: &str = "Shared memory (Triton)";
const SETTINGS: &str = "Log and traces (Triton)";
const ADMIN: &str = "Administration";
const PLAIN: &str = "Plain";
const TENSORFLOW: &str = "TensorFlow Serving and KServe V1";
const TORCHSERVE: &str = "TorchServe";
const SCORING: &str = "MLflow and SageMaker";
const VERTEX: &str = "Vertex AI";

/// By dialect, in the order in which they are shown. `/metrics` is wired in beside the router.
pub(super) const OPERATIONS: &[Operation] = &[
    get("/", SELF, "What is served and how to ask it, as HTML for people and JSON for programs")
        .answering(Answers::JsonOrHtml),
    get("/openapi.json", SELF, "This description, made from the models that serve now"),
    get("/docs", SELF, "A page to try calls").answering(Answers::Html),
    get("/health", SELF, "The state of the server and of each model"),
    get("/ping", SELF, "200 where the server is ready"),
    get("/version", SELF, "The version of the server, as text").answering(Answers::Text),
    get("/metrics", SELF, "Metrics in Prometheus' text format, or in OpenMetrics where that is preferred")
        .answering(Answers::Text),
    post("/predict/{model}", PLAIN, "Predict from features", Takes::Features),
    post("/predict/{model}/{version}", PLAIN, "Predict from features, by one version", Takes::Features),
    get("/v2", OIP, "Name, version and extensions of the server"),
    get("/v2/health/live", OIP, "Whether the server lives"),
    get("/v2/health/ready", OIP, "Whether every model serves"),
    get("/v2/models", OIP, "Names of the models that serve"),
    get("/v2/models/stats", OIP, "Statistics of all models"),
    get("/v2/models/{model}", OIP, "Inputs and outputs of a model"),
    get("/v2/models/{model}/ready", OIP, "Whether a model serves"),
    post("/v2/models/{model}/infer", OIP, "Infer outputs from input tensors", Takes::Tensors),
    post(
        "/v2/models/{model}/generate",
        OIP,
        "Outputs from inputs by name, as Triton's generate",
        Takes::Generate,
    ),
    post("/v2/models/{model}/generate_stream", OIP, "The same, as an event", Takes::Generate)
        .answering(Answers::Events),
    get("/v2/models/{model}/config", OIP, "Configuration, as Triton has it"),
    get("/v2/models/{model}/stats", OIP, "Statistics of a model"),
    get("/v2/models/{model}/latency-model", OIP, "Run times by batch size, and the capacity"),
    get("/v2/models/{model}/slo", OIP, "How many requests were answered in time"),
    get("/v2/models/{model}/versions/{version}", OIP, "Inputs and outputs of a version"),
    get("/v2/models/{model}/versions/{version}/ready", OIP, "Whether a version serves"),
    post("/v2/models/{model}/versions/{version}/infer", OIP, "Infer, by one version", Takes::Tensors),
    post("/v2/models/{model}/versions/{version}/generate", OIP, "Generate, by one version", Takes::Generate),
    post(
        "/v2/models/{model}/versions/{version}/generate_stream",
        OIP,
        "The same, as an event",
        Takes::Generate,
    )
    .answering(Answers::Events),
    get("/v2/models/{model}/versions/{version}/config", OIP, "Configuration of a version"),
    get("/v2/models/{model}/versions/{version}/stats", OIP, "Statistics of a version"),
    get("/v2/models/{model}/versions/{version}/latency-model", OIP, "Run times of a version"),
    post("/v2/repository/index", REPOSITORY, "Every version in the repository, and its state", Takes::Index),
    post("/v2/repository/models/{model}/load", REPOSITORY, "Load a model", Takes::Order),
    post("/v2/repository/models/{model}/unload", REPOSITORY, "Take a model out of service", Takes::Order),
    get("/v2/systemsharedmemory/status", SHARED_MEMORY, "Which files in memory are registered for tensors"),
    post("/v2/systemsharedmemory/unregister", SHARED_MEMORY, "Forget all of them", Takes::Nothing),
    get("/v2/systemsharedmemory/region/{region}/status", SHARED_MEMORY, "What one region is"),
    post(
        "/v2/systemsharedmemory/region/{region}/register",
        SHARED_MEMORY,
        "Let tensors be in a part of a file in memory",
        Takes::Region,
    ),
    post("/v2/systemsharedmemory/region/{region}/unregister", SHARED_MEMORY, "Forget it", Takes::Nothing),
    get("/v2/cudasharedmemory/status", SHARED_MEMORY, "Which memory of GPUs is registered for tensors"),
    post("/v2/cudasharedmemory/unregister", SHARED_MEMORY, "Forget all of it", Takes::Nothing),
    get("/v2/cudasharedmemory/region/{region}/status", SHARED_MEMORY, "What one region is"),
    post(
        "/v2/cudasharedmemory/region/{region}/register",
        SHARED_MEMORY,
        "Let tensors be in memory that was allocated on a GPU; answers 501 where that is off",
        Takes::DeviceRegion,
    ),
    post("/v2/cudasharedmemory/region/{region}/unregister", SHARED_MEMORY, "Forget it", Takes::Nothing),
    get("/v2/logging", SETTINGS, "What is logged"),
    post("/v2/logging", SETTINGS, "Change what is logged", Takes::LogSettings),
    get("/v2/trace/setting", SETTINGS, "Which requests are traced"),
    post("/v2/trace/setting", SETTINGS, "Change which requests are traced", Takes::TraceSettings),
    get("/v2/models/{model}/trace/setting", SETTINGS, "The same: settings hold for all models"),
    post(
        "/v2/models/{model}/trace/setting",
        SETTINGS,
        "The same, without changes: settings hold for all models",
        Takes::TraceSettings,
    ),
    get("/v1/admin/models", ADMIN, "Every model with its versions and labels"),
    get("/v1/admin/models/{model}", ADMIN, "A model, with its history"),
    post("/v1/admin/models/{model}/load", ADMIN, "Load a model", Takes::Nothing),
    post("/v1/admin/models/{model}/unload", ADMIN, "Take a model out of service", Takes::Nothing),
    post("/v1/admin/models/{model}/rollback", ADMIN, "Serve the version before", Takes::Reason),
    post("/v1/admin/models/{model}/label", ADMIN, "Point a label at a version", Takes::Label),
    post(
        "/v2/models/{model}/feedback",
        ADMIN,
        "Tell a route what became of its predictions",
        Takes::Feedback,
    ),
    get("/v1/admin/experiments", ADMIN, "What is known of the arms of every route"),
    get("/v1/admin/experiments/{route}", ADMIN, "What is known of the arms of a route"),
    get("/v1/admin/routes", ADMIN, "Every route with its arms"),
    get("/v1/admin/routes/{route}", ADMIN, "A route, and why it is not in force if it is not"),
    post("/v1/admin/routes/{route}", ADMIN, "Make or replace a route", Takes::Route),
    post("/v1/admin/routes/{route}/promote", ADMIN, "Give an arm more, or everything", Takes::Promotion),
    post("/v1/admin/routes/{route}/abort", ADMIN, "Give everything to the first arm", Takes::Nothing),
    get(
        "/v1/admin/routes/{route}/mismatches",
        ADMIN,
        "How a route's shadows fare, with their worst mismatches",
    ),
    get("/v1/models", TENSORFLOW, "Names of the models that serve"),
    get("/v1/models/{model}", TENSORFLOW, "States of a model's versions"),
    get("/v1/models/{model}/metadata", TENSORFLOW, "Signature of a model"),
    post("/v1/models/{model}:predict", TENSORFLOW, "Predict from rows or columns", Takes::Instances),
    post("/v1/models/{model}:classify", TENSORFLOW, "Every class with its score", Takes::Examples),
    post("/v1/models/{model}:regress", TENSORFLOW, "One value for each example", Takes::Examples),
    post("/v1/models/{model}:explain", TENSORFLOW, "Not there: answers 501", Takes::Nothing)
        .answering(Answers::Unsupported),
    get("/v1/models/{model}/versions/{version}", TENSORFLOW, "State of a version"),
    get("/v1/models/{model}/versions/{version}/metadata", TENSORFLOW, "Signature of a version"),
    post("/v1/models/{model}/versions/{version}:predict", TENSORFLOW, "Predict", Takes::Instances),
    post("/v1/models/{model}/versions/{version}:classify", TENSORFLOW, "Classify", Takes::Examples),
    post("/v1/models/{model}/versions/{version}:regress", TENSORFLOW, "Regress", Takes::Examples),
    get("/v1/models/{model}/labels/{label}", TENSORFLOW, "State of the version with a label"),
    get("/v1/models/{model}/labels/{label}/metadata", TENSORFLOW, "Signature of the version with a label"),
    post("/v1/models/{model}/labels/{label}:predict", TENSORFLOW, "Predict", Takes::Instances),
    post("/v1/models/{model}/labels/{label}:classify", TENSORFLOW, "Classify", Takes::Examples),
    post("/v1/models/{model}/labels/{label}:regress", TENSORFLOW, "Regress", Takes::Examples),
    with("OPTIONS", "/", TORCHSERVE, "The inference API, as TorchServe describes it", Takes::Nothing),
    post("/predictions/{model}", TORCHSERVE, "Predict from a row or a list of rows", Takes::Rows),
    with("PUT", "/predictions/{model}", TORCHSERVE, "The same, for curl -T", Takes::Rows),
    post("/predictions/{model}/{version}", TORCHSERVE, "Predict, by one version", Takes::Rows),
    with("PUT", "/predictions/{model}/{version}", TORCHSERVE, "The same, for curl -T", Takes::Rows),
    post("/explanations/{model}", TORCHSERVE, "Not there: answers 501", Takes::Nothing)
        .answering(Answers::Unsupported),
    post("/explanations/{model}/{version}", TORCHSERVE, "Not there: answers 501", Takes::Nothing)
        .answering(Answers::Unsupported),
    get("/models", TORCHSERVE, "Names of the models that serve, a page at a time"),
    post("/models", TORCHSERVE, "Register a model, as the parameters of the query say", Takes::Nothing),
    get("/models/{model}", TORCHSERVE, "The version that serves by default, as TorchServe describes it"),
    with("PUT", "/models/{model}", TORCHSERVE, "Scale the workers of a model", Takes::Nothing),
    with("DELETE", "/models/{model}", TORCHSERVE, "Unregister a model", Takes::Nothing),
    get("/models/{model}/{version}", TORCHSERVE, "A version, or all of them, as TorchServe describes it"),
    with("PUT", "/models/{model}/{version}", TORCHSERVE, "Scale the workers of a version", Takes::Nothing),
    with("DELETE", "/models/{model}/{version}", TORCHSERVE, "Unregister a version", Takes::Nothing),
    with(
        "PUT",
        "/models/{model}/{version}/set-default",
        TORCHSERVE,
        "Serve a version by default",
        Takes::Nothing,
    ),
    get("/token", TORCHSERVE, "Not there: answers 404, as where token authorization is off"),
    post("/invocations", SCORING, "Predict by the default model, or by the one in the header", Takes::Frame),
    post("/endpoints/{model}/invocations", SCORING, "Predict from a data frame or tensors", Takes::Frame),
    post("/models/{model}/invoke", SCORING, "Predict, as SageMaker's multi-model endpoints do", Takes::Frame),
    post("/vertex", VERTEX, "Predict by the default model", Takes::OnlyInstances),
];

const fn get(path: &'static str, dialect: &'static str, summary: &'static str) -> Operation {
    with("GET", path, dialect, summary, Takes::Nothing)
}

const fn post(path: &'static str, dialect: &'static str, summary: &'static str, takes: Takes) -> Operation {
    with("POST", path, dialect, summary, takes)
}

const fn with(
    method: &'static str,
    path: &'static str,
    dialect: &'static str,
    summary: &'static str,
    takes: Takes,
) -> Operation {
    Operation { method, path, dialect, summary, takes, answers: Answers::Json }
}

// === impl Operation ===

impl Operation {
    const fn answering(self, answers: Answers) -> Operation {
        Operation { answers, ..self }
    }

    /// Whether this asks `model` for a prediction: such operations are described once more for each model, with its
    /// own tensors.
    pub(super) fn is_for(&self, model: &ModelInfo) -> bool {
        let is_plain = self.method == "POST"
            && self.path.contains("{model}")
            && !self.path.contains("{version}")
            && !self.path.contains("{label}");
        let verb = self.path.rsplit_once(':').map_or("", |(_, verb)| verb);
        is_plain
            && match self.takes {
                Takes::Examples if verb == "classify" => gives_scores(model),
                Takes::Examples => gives_a_value(model),
                Takes::Tensors | Takes::Features | Takes::Instances | Takes::Rows | Takes::Frame => true,
                _ => false,
            }
    }

    /// A name for programs: the method and the path with everything else than letters and digits as `_`.
    pub(super) fn id(&self) -> String {
        let path = self.path.trim_start_matches('/').replace(['{', '}'], "");
        let path = path.replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        format!("{}_{path}", self.method.to_ascii_lowercase())
    }
}

/// Whether `:classify` works.
fn gives_scores(model: &ModelInfo) -> bool {
    matches!(Rule::of(&model.signature), Rule::HighestScore { .. } | Rule::Label { scores: Some(_), .. })
}

/// Whether `:regress` works.
fn gives_a_value(model: &ModelInfo) -> bool {
    let Rule::Values { output } = Rule::of(&model.signature) else { return false };
    let spec = &model.signature.outputs[output];
    spec.dtype != DType::Bytes && tensors::is_one_value(tensors::row(spec, model.signature.is_batched()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::OPERATIONS;

    /// Each way to read `path`, in which `[/a|/b]` is one of these or nothing.
    fn readings(path: &str) -> Vec<String> {
        let Some((before, rest)) = path.split_once('[') else { return vec![path.to_owned()] };
        let (choices, after) = rest.split_once(']').expect("what is opened is closed");
        let with = |choice: &str| readings(&format!("{before}{choice}{after}"));
        choices.split('|').chain([""]).flat_map(with).collect()
    }

    /// The gRPC half of the same table is held by `tests/oip_grpc/readme.rs`.
    #[test]
    fn the_readme_lists_every_route() {
        let readme = include_str!("../../../../README.md").replace("\\|", "|");
        let (_, table) = readme.split_once("| dialect | routes and methods |").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let cells = table.lines().filter_map(|row| row.split(" | ").nth(1));
        let mut listed = BTreeSet::new();
        // Texts in backticks that are a method and a path; others are services of gRPC.
        for text in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
            if let Some((method, path)) = text.split_once(' ') {
                listed.extend(readings(path).into_iter().map(|path| format!("{method} {path}")));
            }
        }
        let there = OPERATIONS.iter().map(|operation| format!("{} {}", operation.method, operation.path));
        assert_eq!(listed, there.collect(), "left: the README's table; right: what there is");
    }
}
