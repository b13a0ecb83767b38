//! `routes.toml` in the model repository: what it may say, when it is taken for whole, and how it is replaced.

pub(crate) mod bandit;
mod canary;
mod text;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gristmill_engine::registry::DesiredRoutes;
use gristmill_engine::routing::Route;

pub(crate) use self::text::parse_policy;
pub use self::text::{parse, write};

/// In the repository's directory.
const FILE_NAME: &str = "routes.toml";

/// The file, and what was last taken over of it.
pub(crate) struct RoutesFile {
    root: PathBuf,
    settle: Duration,
    /// The text that was taken for whole; empty for no file.
    known: Option<String>,
    /// An editor may take a file away for a moment, to put another in its place.
    missing_since: Option<Instant>,
}

// === impl RoutesFile ===

impl RoutesFile {
    /// A file that nobody has written to for `settle` is whole.
    pub(crate) fn new(root: &Path, settle: Duration) -> RoutesFile {
        RoutesFile { root: root.to_owned(), settle, known: None, missing_since: None }
    }

    pub(crate) fn read(&mut self) -> DesiredRoutes {
        let (text, age) = match self.text() {
            Ok(found) => found,
            Err(reason) => return DesiredRoutes::Faulty { reason },
        };
        if self.known.as_ref() != Some(&text) {
            if age < self.settle {
                return DesiredRoutes::Changing;
            }
            self.known = Some(text.clone());
        }
        match parse(&text) {
            Ok(routes) => DesiredRoutes::Read(routes),
            Err(why) => DesiredRoutes::Faulty { reason: format!("{}: {why}", self.path().display()) },
        }
    }

    /// Replaces the file in one step: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// The text names the file.
    pub(crate) fn write(&mut self, routes: &[Route]) -> Result<(), String> {
        let text = write(routes);
        replace(&self.root, &self.path(), &text).map_err(|error| {
            format!(
                "cannot write {}: {error}: make the repository writable, or edit the routes where they come from",
                self.path().display()
            )
        })?;
        self.known = Some(text);
        Ok(())
    }

    /// What the file says, and how long it has said that.
    fn text(&mut self) -> Result<(String, Duration), String> {
        let path = self.path();
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let is_inside =
            || -> io::Result<bool> { Ok(path.canonicalize()?.starts_with(self.root.canonicalize()?)) };
        match is_inside() {
            Ok(true) => {}
            Ok(false) => return Err(format!("{} leads out of the model repository", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let was_there = self.known.as_ref().is_some_and(|text| !text.is_empty());
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                let age = if was_there { since.elapsed() } else { Duration::MAX };
                return Ok((String::new(), age));
            }
            Err(error) => return Err(unreadable(error)),
        }
        self.missing_since = None;
        let text = fs::read_to_string(&path).map_err(unreadable)?;
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        Ok((text, age(&metadata)))
    }

    fn path(&self) -> PathBuf {
        self.root.join(FILE_NAME)
    }
}

/// Since the last change of the inode, which no copying tool sets. A time in the future is another machine's, and
/// tells nothing.
fn age(metadata: &fs::Metadata) -> Duration {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let changed = UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).unwrap_or(0));
    SystemTime::now().duration_since(changed).unwrap_or(Duration::MAX)
}

/// Written beside its place, to the disk, and renamed; then the directory's entry is brought to the disk too.
fn replace(root: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Hidden, so that it is no model, and on the same file system.
    let draft = root.join(format!(".{FILE_NAME}.draft"));
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(root)?.sync_all()
}

#[cfg(test)]
mod tests;
