//! TorchServe's management API: what its orders mean to the lifecycle, for its REST and its gRPC dialect alike.

mod archive;
mod fault;
mod grpc;
mod http;
mod store;

use std::sync::Arc;

use gristmill_engine::control::Control;
use gristmill_engine::engine::{Engine, IndexEntry, VersionState};
use gristmill_engine::managed::{EventKind, ModelDetails};
use gristmill_engine::request::{ModelInfo, VersionSelector};
use serde_json::{Value, json};

pub use self::archive::{Archive, read as read_archive};
use self::fault::{Fault, Kind};
pub(crate) use self::http::routes;
use crate::model_sources::ModelSources;
use crate::repository_orders;

/// Most models in one page of a list, and how many there are where nobody says.
const PAGE_MODELS_MAX: i64 = 100;
/// The label that TorchServe's default version is.
const DEFAULT_LABEL: &str = "stable";

/// What both dialects call.
#[derive(Clone)]
pub(crate) struct Management {
    engine: Arc<Engine>,
    control: Option<Control>,
    sources: ModelSources,
}

/// What a registration says that means something here; nothing where it says nothing.
#[derive(Clone, Debug, Default)]
struct Registration {
    /// The name of a model in the repository, a path in the model store, or a URL that is allowed.
    url: Option<String>,
    model_name: Option<String>,
    /// Most rows that run together.
    batch_size: Option<u32>,
    max_batch_delay_ms: Option<u32>,
    initial_workers: Option<u32>,
}

/// What a request to scale says.
#[derive(Clone, Copy, Debug)]
struct Scale {
    min_worker: Option<i64>,
    max_worker: Option<i64>,
}

// === impl Management ===

impl Management {
    /// `sources` is from where models may be registered beside those of the repository.
    pub(crate) fn new(engine: Arc<Engine>, control: Option<Control>, sources: ModelSources) -> Management {
        Management { engine, control, sources }
    }

    fn control(&self) -> Result<&Control, Fault> {
        self.control.as_ref().ok_or_else(|| repository_orders::nobody().into())
    }

    /// Models of which a version serves or is being loaded, by name, from the one at `token`.
    fn list(&self, limit: Option<i64>, token: Option<i64>) -> Value {
        let mut names: Vec<String> = self.registered().map(|entry| entry.model).collect();
        names.dedup();
        let limit = limit.filter(|limit| (1..=PAGE_MODELS_MAX).contains(limit)).unwrap_or(PAGE_MODELS_MAX);
        let first = usize::try_from(token.unwrap_or(0)).unwrap_or(0).min(names.len());
        let last = names.len().min(first + limit as usize);
        let model = |name: &String| json!({"modelName": name, "modelUrl": name});
        let models: Value = names[first..last].iter().map(model).collect();
        match last < names.len() {
            true => json!({"nextPageToken": last.to_string(), "models": models}),
            false => json!({"models": models}),
        }
    }

    fn registered(&self) -> impl Iterator<Item = IndexEntry> {
        let is_registered =
            |entry: &IndexEntry| matches!(entry.state, VersionState::Ready | VersionState::Loading);
        self.engine.index().into_iter().filter(is_registered)
    }

    /// A list with an entry for each version that is meant: the default one, or `all`, or one by number or label.
    ///
    /// # Errors
    /// The model or the version is not there.
    async fn describe(&self, model: &str, version: &str) -> Result<Value, Fault> {
        let details = match &self.control {
            Some(control) => control.describe(model).await.ok(),
            None => None,
        };
        let describe = |info: &ModelInfo| description(info, details.as_ref());
        if version == "all" {
            let serving = self.engine.statistics(Some(model), &VersionSelector::Default)?;
            return Ok(serving.iter().map(|(info, _)| describe(info)).collect());
        }
        Ok(json!([describe(&*self.find(model, version)?)]))
    }

    /// The version that serves under that name.
    fn find(&self, model: &str, version: &str) -> Result<Arc<ModelInfo>, Fault> {
        let found = VersionSelector::parse(version).and_then(|version| self.engine.model(model, &version));
        found.map_err(|error| {
            let fault = Fault::from(error);
            let is_known = || self.engine.model(model, &VersionSelector::Default).is_ok();
            match fault.kind {
                Kind::ModelNotFound if is_known() => Fault { kind: Kind::VersionNotFound, ..fault },
                _ => fault,
            }
        })
    }

    /// No workers take a model out of service, some bring it back. How many there are was measured when it was loaded,
    /// or is in its settings, and the answer says so.
    ///
    /// # Errors
    /// The model is unknown, or cannot serve.
    async fn scale(&self, model: &str, version: &str, scale: Scale) -> Result<String, Fault> {
        let min = scale.min_worker.unwrap_or(1);
        let max = scale.max_worker.unwrap_or(min);
        if min < 0 || max < min {
            let text = format!("min_worker is {min} and max_worker {max}: expected 0 or more, and no less");
            return Err(Fault::new(Kind::BadRequest, text));
        }
        let control = self.control()?;
        if max == 0 {
            repository_orders::unload(control, model).await?;
            return Ok(format!("Workers scaled to 0 for model: {model}"));
        }
        if self.engine.model(model, &VersionSelector::Default).is_err() {
            repository_orders::load(control, model, repository_orders::LoadOrder::default()).await?;
        }
        let info = self.find(model, version)?;
        let (workers, version) = (info.instances, info.version);
        let asked_for = (min..=max).contains(&(workers as i64));
        let how = "their number is measured when the model is loaded, unless its model.toml sets 'instances'";
        Ok(match asked_for {
            true => format!("Workers scaled to {workers} for model: {model}, version: {version}"),
            false => format!("{workers} workers serve model: {model}, version: {version}; {how}"),
        })
    }

    /// Requests without a version get this one from now on.
    ///
    /// # Errors
    /// The model or the version is unknown.
    async fn set_default(&self, model: &str, version: &str) -> Result<String, Fault> {
        let info = self.find(model, version)?;
        let control = self.control()?;
        let set = control.set_label(model, DEFAULT_LABEL, Some(info.version)).await;
        set.map_err(repository_orders::refused)?;
        let version = info.version;
        Ok(format!("Default version successfully updated for model \"{model}\" to \"{version}\""))
    }

    /// Loads a model of the repository that is not served, or one of the model store or of an allowed URL, and waits
    /// until it serves.
    ///
    /// # Errors
    /// It serves already, there is no such model, it cannot be had from there, or it cannot be served.
    async fn register(&self, registration: Registration) -> Result<String, Fault> {
        let Some(url) = registration.url.as_deref().filter(|url| !url.is_empty()) else {
            return Err(Fault::new(Kind::BadRequest, "Parameter url is required."));
        };
        let control = self.control()?;
        let stored = match &self.sources.store {
            _ if store::is_on_a_server(url) => Some(store::download(&self.sources, url).await?),
            Some(directory) => store::find(directory, url).await?,
            None => None,
        };
        let (model, order) = match stored {
            Some(stored) => stored.order(&registration),
            None => (url.to_owned(), repository_orders::LoadOrder::default()),
        };
        if let Some(name) = registration.model_name.filter(|name| *name != model) {
            let text = format!(
                "model_name is '{name}': a model of the repository keeps its name, which is '{model}'; leave \
                 model_name out, or register a file of the model store"
            );
            return Err(Fault::new(Kind::BadRequest, text));
        }
        if let Ok(info) = self.engine.model(&model, &VersionSelector::Default) {
            let text = format!("Model version {} is already registered for model {model}", info.version);
            return Err(Fault::new(Kind::Conflict, text));
        }
        repository_orders::load(control, &model, order).await?;
        let info = self.find(&model, "")?;
        let (version, workers) = (info.version, info.instances);
        Ok(format!("Model \"{model}\" Version: {version} registered with {workers} initial workers"))
    }

    /// Takes a model out of service.
    ///
    /// # Errors
    /// The model or the version is unknown, or other versions of it serve too.
    async fn unregister(&self, model: &str, version: &str) -> Result<String, Fault> {
        if !version.is_empty() {
            let info = self.find(model, version)?;
            let others = self.registered().any(|entry| entry.model == model && entry.version != info.version);
            if others {
                let text = format!(
                    "version {} of model '{model}' is not the only one: a version is taken out of service by \
                     removing its directory, or by 'versions' in model.toml; without a version, all are",
                    info.version
                );
                return Err(Fault::new(Kind::OneOfSeveral, text));
            }
        }
        repository_orders::unload(self.control()?, model).await?;
        Ok(format!("Model \"{model}\" unregistered"))
    }
}

/// What is known of a version, by TorchServe's names. Its `runtime` is Triton's platform here.
fn description(info: &ModelInfo, details: Option<&ModelDetails>) -> Value {
    let events = details.into_iter().flat_map(|details| details.history.iter().rev());
    let mut loads = events.filter(|event| event.kind == EventKind::Loaded && event.version == info.version);
    let start_time = loads.next().map(|event| humantime::format_rfc3339_millis(event.at).to_string());
    let worker = |id: usize| {
        json!({
            "id": id.to_string(),
            "startTime": start_time,
            "status": "READY",
            "pid": std::process::id(),
        })
    };
    json!({
        "modelName": info.name,
        "modelVersion": info.version.to_string(),
        "modelUrl": info.name,
        "runtime": info.platform,
        "minWorkers": info.instances,
        "maxWorkers": info.instances,
        "batchSize": info.batch_rows_max,
        "maxBatchDelay": u64::try_from(info.batch_delay.as_millis()).unwrap_or(u64::MAX),
        "workers": (0..info.instances).map(worker).collect::<Value>(),
    })
}
