//! The HTTP door: the Open Inference Protocol v2 over REST with Triton's additions, and the other dialects beside it.

mod admin;
pub(crate) mod body;
mod connection;
mod describe;
mod experiments;
mod feedback;
mod generate;
pub(crate) mod reply;
mod repository;
mod routes;
mod settings;
mod shared_memory;
pub(crate) mod v2;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use gristmill_engine::control::Control;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use serde::Deserialize;

pub use self::connection::serve;
pub use self::feedback::decode as decode_feedback;
pub use self::generate::decode as decode_generate;
use self::reply::Refusal;
use crate::gateway::Gateway;
pub(crate) use crate::gateway::Target;
use crate::model_sources::ModelSources;
use crate::{
    openapi_http, predict_http, scoring_http, tensorflow_http, torchserve_http, torchserve_management,
    vertex_http,
};

/// What an operator sets for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Largest request body, counted after decompression.
    pub body_bytes_max: usize,
    /// The model that routes without a model's name ask; else the only one that serves.
    pub default_model: Option<String>,
    /// From where TorchServe's management API may register models, beside the repository.
    pub model_sources: ModelSources,
}

/// What every handler needs.
pub(crate) struct Door {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) engine: Arc<Engine>,
    /// `None` where nobody may change what is served.
    pub(crate) control: Option<Control>,
    pub(crate) options: HttpOptions,
}

// === impl Door ===

impl Door {
    /// The model to ask where the request names none.
    ///
    /// # Errors
    /// `InvalidInput` where several serve and none is the default, `Unavailable` where none does.
    pub(crate) fn default_target(&self, how_to_choose: &str) -> Result<Target, InferError> {
        if let Some(model) = &self.options.default_model {
            return Ok(Target { model: model.clone(), version: VersionSelector::Default });
        }
        let mut names: Vec<String> = self.engine.models().iter().map(|model| model.name.clone()).collect();
        names.dedup();
        match names.as_slice() {
            [model] => Ok(Target { model: model.clone(), version: VersionSelector::Default }),
            [] => Err(InferError::Unavailable("no model is served".into())),
            _ => Err(InferError::InvalidInput(format!(
                "several models are served ({}): {how_to_choose}, or start the server with --default-model",
                names.join(", ")
            ))),
        }
    }
}

// === impl HttpOptions ===

impl Default for HttpOptions {
    fn default() -> HttpOptions {
        HttpOptions {
            body_bytes_max: 64 * 1024 * 1024,
            default_model: None,
            model_sources: ModelSources::default(),
        }
    }
}

/// Every path of the HTTP door but `/metrics`.
pub fn router(gateway: Arc<Gateway>, control: Option<Control>, options: HttpOptions) -> Router {
    let engine = Arc::clone(gateway.engine());
    let models = Router::new()
        .route("/", get(v2::model))
        .route("/ready", get(v2::model_ready))
        .route("/infer", post(v2::infer))
        .route("/generate", post(generate::once))
        .route("/generate_stream", post(generate::stream))
        .route("/config", get(v2::model_config))
        .route("/stats", get(v2::statistics))
        .route("/latency-model", get(v2::latency_model));
    Router::new()
        .route("/v2", get(v2::server))
        .route("/v2/health/live", get(v2::live))
        .route("/v2/health/ready", get(v2::ready))
        .route("/v2/models", get(v2::models))
        .route("/v2/models/stats", get(v2::all_statistics))
        .route("/v2/models/{model}/slo", get(admin::slo))
        .route("/v2/models/{model}/feedback", post(feedback::send))
        .route("/v2/systemsharedmemory/status", get(shared_memory::all))
        .route("/v2/systemsharedmemory/unregister", post(shared_memory::unregister_all))
        .route("/v2/systemsharedmemory/region/{region}/status", get(shared_memory::one))
        .route("/v2/systemsharedmemory/region/{region}/register", post(shared_memory::register))
        .route("/v2/systemsharedmemory/region/{region}/unregister", post(shared_memory::unregister))
        .route("/v2/cudasharedmemory/status", get(shared_memory::all_cuda))
        .route("/v2/cudasharedmemory/unregister", post(shared_memory::unregister_all_cuda))
        .route("/v2/cudasharedmemory/region/{region}/status", get(shared_memory::one_cuda))
        .route("/v2/cudasharedmemory/region/{region}/register", post(shared_memory::register_cuda))
        .route("/v2/cudasharedmemory/region/{region}/unregister", post(shared_memory::unregister_cuda))
        .route("/v2/logging", get(settings::log).post(settings::set_log))
        .route("/v2/trace/setting", get(settings::trace).post(settings::set_trace))
        .route(
            "/v2/models/{model}/trace/setting",
            get(settings::trace_of_model).post(settings::set_trace_of_model),
        )
        .nest("/v2/models/{model}", models.clone())
        .nest("/v2/models/{model}/versions/{version}", models)
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v1/admin/models", get(admin::list))
        .route("/v1/admin/models/{model}", get(admin::show))
        .route("/v1/admin/models/{model}/load", post(admin::load))
        .route("/v1/admin/models/{model}/unload", post(admin::unload))
        .route("/v1/admin/models/{model}/rollback", post(admin::roll_back))
        .route("/v1/admin/models/{model}/label", post(admin::set_label))
        .route("/v1/admin/experiments", get(experiments::list))
        .route("/v1/admin/experiments/{route}", get(experiments::show))
        .route("/v1/admin/routes", get(routes::list))
        .route("/v1/admin/routes/{route}", get(routes::show).post(routes::set))
        .route("/v1/admin/routes/{route}/promote", post(routes::promote))
        .route("/v1/admin/routes/{route}/abort", post(routes::abort))
        .route("/v1/admin/routes/{route}/mismatches", get(routes::mismatches))
        .route("/predict/{model}", post(predict_http::predict))
        .route("/predict/{model}/{version}", post(predict_http::predict))
        .route("/health", get(predict_http::health))
        .merge(openapi_http::routes())
        .merge(tensorflow_http::routes())
        .merge(torchserve_http::routes())
        .merge(torchserve_management::routes())
        .merge(scoring_http::routes())
        .merge(vertex_http::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Door { gateway, engine, control, options }))
}

pub(crate) async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!(
            "no such path '{}': there are /v2/models/{{model}}/infer, /v2/models, /v2/health/ready, \
             /v1/models/{{model}}:predict, /predict/{{model}}, /health and /metrics",
            uri.path()
        ),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not allowed for '{}': the Allow header says what is", uri.path()),
    )
}

// === impl Target ===

#[derive(Deserialize)]
struct Segments {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Target, Refusal> {
        let Path(Segments { model, version }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
        let version = VersionSelector::parse(&version.unwrap_or_default())?;
        Ok(Target { model, version })
    }
}
