//! The model repository, with what operators hand over in place of what it has.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::ControlError;
use gristmill_engine::registry::{
    Desired, DesiredModel, DirRegistry, HandedOver, Registry, RegistryError, Stamp, check_name,
};
use gristmill_engine::routing::Route;

use super::contents;
use crate::config::SettingsReader;
use crate::routes_file::RoutesFile;
use crate::triton_config::{self, TritonConfig};

/// A directory of models, some of which are served from elsewhere or in another way on an operator's order.
pub(crate) struct OrderedRegistry {
    root: PathBuf,
    reader: SettingsReader,
    settle: Duration,
    orders: BTreeMap<String, Order>,
    routes: RoutesFile,
}

/// What is handed over for one model.
struct Order {
    latest: Contents,
    /// The last that served, while the latest has not.
    proved: Option<Contents>,
}

#[derive(Clone)]
enum Contents {
    /// In place of the configuration beside the repository's files.
    Config { config: Arc<TritonConfig>, stamp: u64 },
    /// In place of all that the repository has.
    Files(DesiredModel),
}

// === impl OrderedRegistry ===

impl OrderedRegistry {
    /// As [`DirRegistry::new`], with the settings that `reader` finds.
    pub(crate) fn new(root: PathBuf, reader: SettingsReader, settle: Duration) -> OrderedRegistry {
        let routes = RoutesFile::new(&root, settle);
        OrderedRegistry { root, reader, settle, orders: BTreeMap::new(), routes }
    }

    fn configs(&self) -> BTreeMap<String, Arc<TritonConfig>> {
        let config = |(model, order): (&String, &Order)| match &order.latest {
            Contents::Config { config, .. } => Some((model.clone(), Arc::clone(config))),
            Contents::Files(_) => None,
        };
        self.orders.iter().filter_map(config).collect()
    }

    fn has(&self, model: &str) -> bool {
        self.root.join(model).is_dir()
    }

    fn read(&self, model: &str, contents: HandedOver) -> Result<Contents, ControlError> {
        let refused = ControlError::Refused;
        check_name(model).map_err(refused)?;
        let HandedOver { config, files } = contents;
        let mut hasher = DefaultHasher::new();
        config.hash(&mut hasher);
        let config = triton_config::parse_json(&config)
            .map_err(|why| ControlError::Refused(format!("parameter 'config': {why}")))?;
        if !files.is_empty() {
            return contents::from_files(&self.reader, model, config, &files).map(Contents::Files);
        }
        if !self.has(model) {
            let text = format!(
                "model '{model}' is not in the repository: put it there, or send its files with the load"
            );
            return Err(ControlError::NotFound(text));
        }
        self.reader
            .triton_settings(config.clone(), &self.root.join(model))
            .map_err(|why| ControlError::Refused(format!("parameter 'config': {why}")))?;
        Ok(Contents::Config { config: Arc::new(config), stamp: hasher.finish() })
    }
}

impl Registry for OrderedRegistry {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let (reader, configs) = (self.reader.clone(), self.configs());
        let read_settings = move |directory: &Path| {
            let model = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match configs.get(model) {
                Some(config) => reader
                    .triton_settings(TritonConfig::clone(config), directory)
                    .map_err(|why| format!("parameter 'config': {why}")),
                None => reader.read(directory),
            }
        };
        let mut repository = DirRegistry::new(self.root.clone(), Box::new(read_settings), self.settle);
        let mut desired = repository.desired()?;
        desired.routes = self.routes.read();
        for (model, order) in &self.orders {
            match &order.latest {
                Contents::Files(contents) => {
                    desired.models.insert(model.clone(), contents.clone());
                    desired.handed_over.insert(model.clone());
                }
                Contents::Config { stamp, .. } => {
                    if let Some(DesiredModel::Sound { versions, .. }) = desired.models.get_mut(model) {
                        for version in versions.values_mut() {
                            version.stamp = Stamp(version.stamp.0 ^ stamp);
                        }
                    }
                }
            }
        }
        Ok(desired)
    }

    fn hand_over(&mut self, model: &str, contents: HandedOver) -> Result<(), ControlError> {
        let latest = self.read(model, contents)?;
        let proved = self.orders.remove(model).and_then(|order| order.proved);
        self.orders.insert(model.to_owned(), Order { latest, proved });
        Ok(())
    }

    fn conclude(&mut self, model: &str, serves: bool) {
        let Some(mut order) = self.orders.remove(model) else { return };
        if serves {
            order.proved = Some(order.latest.clone());
        } else {
            let Some(proved) = order.proved.clone() else { return };
            order.latest = proved;
        }
        self.orders.insert(model.to_owned(), order);
    }

    fn keep_routes(&mut self, routes: &[Route]) -> Result<(), ControlError> {
        self.routes.write(routes).map_err(ControlError::Failed)
    }

    fn take_back(&mut self, model: &str) {
        self.orders.remove(model);
    }

    fn prefer_own(&mut self, model: &str) {
        if self.has(model) {
            self.orders.remove(model);
        }
    }
}
