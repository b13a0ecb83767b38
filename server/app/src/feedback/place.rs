//! Where predictions and feedback are kept, and what happens where that cannot be.

use std::fs;
use std::path::{Path, PathBuf};

use redb::Database;

/// A directory for what the server itself must remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    directory: PathBuf,
    /// An operator named it: it is used or the server does not start.
    is_asked_for: bool,
}

/// A database, and whether it outlasts the process.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) is_durable: bool,
}

const FILE_NAME: &str = "feedback.redb";
/// redb takes up to a gigabyte by default.
const CACHE_BYTES: usize = 16 << 20;

// === impl Place ===

impl Place {
    /// What was asked for; else beside the repository, with its name and `.state`.
    pub fn new(asked_for: Option<&Path>, repository: &Path) -> Place {
        let is_asked_for = asked_for.is_some();
        let beside = || {
            let name = repository.file_name().unwrap_or_else(|| "models".as_ref());
            let mut name = name.to_owned();
            name.push(".state");
            repository.with_file_name(name)
        };
        Place { directory: asked_for.map_or_else(beside, Path::to_owned), is_asked_for }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// It is to be used from the start: it was asked for, or there is something already.
    pub(super) fn is_due(&self) -> bool {
        self.is_asked_for || self.file().exists()
    }

    /// In memory where the directory cannot be written and nobody asked for it.
    ///
    /// # Errors
    /// The text names the file and says what to do.
    pub(super) fn open(&self) -> Result<Opened, String> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let file = self.file();
        let opened = fs::create_dir_all(&self.directory)
            .map_err(redb::Error::from)
            .and_then(|()| builder.create(&file).map_err(redb::Error::from));
        let why = match opened {
            Ok(database) => return Ok(Opened { database, is_durable: true }),
            Err(error) => format!("cannot keep feedback in {}: {error}", file.display()),
        };
        if self.is_asked_for {
            return Err(format!("--state-dir: {why}: give a directory that this server alone can write to"));
        }
        tracing::warn!(
            why,
            "predictions and feedback are kept in memory, and lost at the end: set --state-dir"
        );
        let database = builder
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|error| format!("cannot keep feedback in memory: {error}"))?;
        Ok(Opened { database, is_durable: false })
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_beside_the_repository_unless_another_is_asked_for() {
        let directory = |asked_for: Option<&str>, repository: &str| {
            Place::new(asked_for.map(Path::new), Path::new(repository)).directory
        };
        assert_eq!(directory(None, "a/models"), Path::new("a/models.state"));
        assert_eq!(directory(None, "models/"), Path::new("models.state"));
        assert_eq!(directory(Some("b"), "a/models"), Path::new("b"));
    }

    #[test]
    fn one_that_cannot_be_written_is_replaced_by_memory_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("models");
        fs::write(&file, "no directory").unwrap();
        let inside = file.join("models");
        assert!(!Place::new(None, &inside).open().unwrap().is_durable);
        let why = Place::new(Some(&inside), &inside).open().err().unwrap();
        assert!(why.starts_with("--state-dir: cannot keep feedback in "), "{why}");
    }

    #[test]
    fn two_servers_do_not_share_one() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::new(Some(root.path()), Path::new("models"));
        let first = place.open().unwrap();
        assert!(first.is_durable && place.open().is_err());
    }
}
