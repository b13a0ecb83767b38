//! Which models have served, written down so that a server that is started again waits for them before it is ready.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use gristmill_engine::engine::Engine;
use serde::{Deserialize, Serialize};

/// The file in which they are.
pub(crate) struct Memory {
    file: PathBuf,
}

/// The file as it is written.
#[derive(Default, Serialize, Deserialize)]
struct Raw {
    served: BTreeSet<String>,
}

const FILE_NAME: &str = "served.json";

// === impl Memory ===

impl Memory {
    /// In the directory for what the server itself must remember.
    pub(crate) fn new(directory: &Path) -> Memory {
        Memory { file: directory.join(FILE_NAME) }
    }

    /// None where nothing can be read: then none is waited for.
    pub(crate) fn read(&self) -> BTreeSet<String> {
        let read = match fs::read(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return BTreeSet::new(),
            Err(error) => Err(error.to_string()),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        };
        let Raw { served } = read.unwrap_or_else(|why| {
            let file = self.file.display();
            tracing::warn!(%file, why, "which models have served is not known");
            Raw::default()
        });
        served
    }

    /// Keeps up with what `engine` serves, until it shuts down: then they still served.
    ///
    /// # Errors
    /// The system does not grant a thread.
    pub(crate) fn keep_up(self, engine: Arc<Engine>) -> std::io::Result<()> {
        let (sender, sets) = mpsc::channel::<BTreeSet<String>>();
        // A file system may hang, which no I/O thread should.
        let write = move || {
            let mut may_complain = true;
            for set in sets {
                if let Err(why) = self.write(set)
                    && std::mem::take(&mut may_complain)
                {
                    let file = self.file.display();
                    tracing::warn!(%file, why, "a restart will not know which models have served: set --state-dir");
                }
            }
        };
        thread::Builder::new().name("state".into()).spawn(write)?;
        tokio::spawn(async move {
            let mut changes = engine.changes();
            let mut kept = None;
            loop {
                let relied_on = engine.relied_on();
                if engine.is_shutting_down() {
                    return;
                }
                if relied_on.is_some() && relied_on != kept {
                    kept.clone_from(&relied_on);
                    if relied_on.is_some_and(|set| sender.send(set).is_err()) {
                        return;
                    }
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Written beside its place and renamed, so that a server that is killed leaves the old file or the new one.
    fn write(&self, served: BTreeSet<String>) -> Result<(), String> {
        let text = serde_json::to_vec(&Raw { served }).map_err(|error| error.to_string())?;
        if fs::read(&self.file).is_ok_and(|before| before == text) {
            return Ok(());
        }
        // Servers may share a directory.
        let draft = self.file.with_extension(format!("{}.draft", std::process::id()));
        let directory = self.file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&draft, text))
            .and_then(|()| fs::rename(&draft, &self.file))
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let memory = Memory::new(&root.path().join("models.state"));
        assert_eq!(memory.read(), BTreeSet::new(), "nothing was written");
        let names = BTreeSet::from(["a".to_owned(), "b \"quoted\"".to_owned()]);
        memory.write(names.clone()).unwrap();
        assert_eq!(memory.read(), names);
        let files: Vec<_> = fs::read_dir(root.path().join("models.state")).unwrap().collect();
        assert_eq!(files.len(), 1, "no draft is left");
        fs::write(&memory.file, "{").unwrap();
        assert_eq!(memory.read(), BTreeSet::new(), "what cannot be read holds no start up");
    }
}
