//! The registry that reads a directory: which models and versions it has, and whether they may be loaded.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    COMPLETE_MARKER, Desired, DesiredModel, PassedOver, ReadSettings, Registry, RegistryError, SourceState,
    Stamp, VersionSource, check_name, is_stray,
};

/// A directory of `<model>/<version>/model.onnx`.
pub struct DirRegistry {
    root: PathBuf,
    read_settings: ReadSettings,
    settle: Duration,
}

/// Directories below a version's that are looked into: external data may lie in a few.
const DEPTH_MAX: usize = 4;

/// Made by `mkfs` in the root of each ext4 volume.
const LOST_AND_FOUND: &str = "lost+found";

// === impl DirRegistry ===

impl DirRegistry {
    /// `read_settings` is given a model's directory. A version is complete when none of its files was
    /// written to for `settle`.
    pub fn new(root: PathBuf, read_settings: ReadSettings, settle: Duration) -> DirRegistry {
        DirRegistry { root, read_settings, settle }
    }

    /// What is in a directory of the repository, beside what is passed over in it; `None` where it is going away.
    fn model(
        &self,
        root: &Path,
        directory: &Path,
        passed_over: &mut Vec<PassedOver>,
    ) -> Option<DesiredModel> {
        let faulty = |reason| Some(DesiredModel::Faulty { reason });
        let unreadable = |error: io::Error| match is_gone(directory, &error) {
            true => None,
            false => faulty(format!("cannot read {}: {error}", directory.display())),
        };
        match inside(root, directory) {
            Ok(true) => {}
            Ok(false) => return faulty(leads_out(directory)),
            Err(error) => return unreadable(error),
        }
        let settings = match (self.read_settings)(directory) {
            Ok(settings) => settings,
            Err(reason) => return faulty(reason),
        };
        let versions = match self.versions(root, directory, &settings.file_name, passed_over) {
            Ok(versions) => versions,
            Err(error) => return unreadable(error),
        };
        if versions.is_empty() {
            let reason = format!(
                "{} has no version: expected <number>/{file} in it, for example 1/{file}",
                directory.display(),
                file = settings.file_name
            );
            return Some(DesiredModel::Vacant { reason });
        }
        Some(DesiredModel::Sound { versions, settings: Arc::new(settings) })
    }

    /// Version directories are positive whole numbers without leading zeros.
    fn versions(
        &self,
        root: &Path,
        directory: &Path,
        file_name: &str,
        passed_over: &mut Vec<PassedOver>,
    ) -> io::Result<BTreeMap<u64, VersionSource>> {
        let mut versions = BTreeMap::new();
        let mut settings = DefaultHasher::new();
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for path in entries.iter().map(fs::DirEntry::path) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if let Ok(metadata) = fs::metadata(&path)
                && metadata.is_file()
                && !is_stray(Path::new(name))
            {
                hash_file(&mut settings, Path::new(name), &metadata);
            }
        }
        for path in entries.iter().map(fs::DirEntry::path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let version = match version_number(&name) {
                Ok(version) => version,
                Err(why) => {
                    if is_meant_as_version(&path, &name, file_name) {
                        let directory = directory.file_name().unwrap_or_default().to_string_lossy();
                        passed_over.push(PassedOver::version(&directory, &name, why));
                    }
                    continue;
                }
            };
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    versions.insert(version, self.version(root, &path, file_name, settings.clone()));
                }
                Ok(_) => {
                    let directory = directory.file_name().unwrap_or_default().to_string_lossy();
                    let why = format!("it is a file: expected a directory with {file_name} in it");
                    passed_over.push(PassedOver::version(&directory, &name, why));
                }
                Err(error) if is_gone(&path, &error) => {}
                // What serves of it goes on.
                Err(error) => {
                    let state = SourceState::Refused(format!("cannot read {}: {error}", path.display()));
                    let source = VersionSource { path: path.join(file_name), stamp: Stamp(0), state };
                    versions.insert(version, source);
                }
            }
        }
        Ok(versions)
    }

    fn version(
        &self,
        root: &Path,
        directory: &Path,
        file_name: &str,
        mut hasher: DefaultHasher,
    ) -> VersionSource {
        let mut files = Files::default();
        let state = match files.read(root, directory, Path::new(""), file_name) {
            Ok(()) if files.has_marker || !self.may_change(files.changed) => SourceState::Complete,
            Ok(()) => SourceState::Changing,
            Err(reason) => SourceState::Refused(reason),
        };
        for (path, metadata) in &files.found {
            hash_file(&mut hasher, path, metadata);
        }
        VersionSource { path: directory.join(file_name), stamp: Stamp(hasher.finish()), state }
    }

    /// Whether files that last changed at this time may still be written to. A time in the future comes from
    /// another machine's clock, and tells nothing.
    fn may_change(&self, changed: SystemTime) -> bool {
        SystemTime::now().duration_since(changed).is_ok_and(|age| age < self.settle)
    }
}

impl Registry for DirRegistry {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let unreadable = |error: io::Error| {
            RegistryError(format!("cannot read the model repository {}: {error}", self.root.display()))
        };
        let root = self.root.canonicalize().map_err(unreadable)?;
        let (mut models, mut passed_over) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let shown = path.file_name().unwrap_or_default().to_string_lossy();
            if shown.starts_with(['.', '_']) {
                continue;
            }
            let metadata = fs::metadata(&path);
            if metadata.as_ref().is_ok_and(|metadata| !metadata.is_dir()) {
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                passed_over.push(PassedOver::directory(&shown, "its name is not UTF-8: rename it".into()));
                continue;
            };
            if name == LOST_AND_FOUND {
                passed_over.push(PassedOver::directory(name, "it is the file system's own".into()));
                continue;
            }
            let model = match metadata {
                Err(error) if is_gone(&path, &error) => continue,
                // A volume that is being swapped, or a link to nothing that anybody has meant as a model.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let reason = format!("{} is a link to what is not there", path.display());
                    DesiredModel::Vacant { reason }
                }
                Err(error) => {
                    DesiredModel::Faulty { reason: format!("cannot read {}: {error}", path.display()) }
                }
                Ok(_) => match check_name(name) {
                    Ok(()) => match self.model(&root, &path, &mut passed_over) {
                        Some(model) => model,
                        None => continue,
                    },
                    Err(reason) => DesiredModel::Faulty { reason },
                },
            };
            // A directory that was made a moment ago is about to be filled.
            if let DesiredModel::Vacant { reason } = &model
                && !fs::symlink_metadata(&path).is_ok_and(|metadata| self.may_change(changed_at(&metadata)))
            {
                passed_over.push(PassedOver::directory(name, reason.clone()));
            }
            models.insert(name.to_owned(), model);
        }
        passed_over.sort();
        Ok(Desired { models, passed_over, ..Desired::default() })
    }
}

/// The number that a version's directory is called by.
///
/// # Errors
/// The text says why it is none.
fn version_number(name: &str) -> Result<u64, String> {
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    match name.parse::<u64>() {
        Ok(version) if version > 0 && version.to_string() == name => Ok(version),
        Ok(0) => Err("0 is not a version: expected a number from 1".into()),
        Ok(version) => Err(format!("expected the plain number: rename it {version}")),
        Err(_) if is_number => Err(format!("the number is too large: expected 1 to {}", u64::MAX)),
        Err(_) => Err("it is not a whole number: expected a name such as 1 or 20261130".into()),
    }
}

/// Whether somebody may take what has this name for a version: it begins like a number or has a model file.
fn is_meant_as_version(path: &Path, name: &str, file_name: &str) -> bool {
    if name.starts_with(['.', '_']) || !path.is_dir() {
        return false;
    }
    let number = name.trim_start_matches(['v', 'V', '-', '+']);
    number.starts_with(|first: char| first.is_ascii_digit()) || path.join(file_name).exists()
}

/// Whether there is nothing any more, in contrast to a link that leads nowhere.
fn is_gone(path: &Path, error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err()
}

/// The files of a version.
struct Files {
    found: Vec<(PathBuf, fs::Metadata)>,
    /// When the last of them was written to, renamed or created.
    changed: SystemTime,
    has_marker: bool,
}

impl Default for Files {
    fn default() -> Files {
        Files { found: Vec::new(), changed: UNIX_EPOCH, has_marker: false }
    }
}

impl Files {
    /// `below` is the directory's place in the version's. A model's own file counts whatever it is called.
    fn read(&mut self, root: &Path, directory: &Path, below: &Path, model: &str) -> Result<(), String> {
        let depth = below.components().count();
        let unreadable = |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
        if !inside(root, directory).map_err(|error| unreadable(directory, error))? {
            return Err(leads_out(directory));
        }
        let entries = fs::read_dir(directory)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| unreadable(directory, error))?;
        let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            let is_marker = depth == 0 && name == COMPLETE_MARKER;
            if is_stray(Path::new(name)) && !is_marker && below.join(name) != Path::new(model) {
                continue;
            }
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if is_gone(&path, &error) => continue,
                Err(error) => return Err(unreadable(&path, error)),
            };
            if metadata.is_dir() {
                if depth < DEPTH_MAX {
                    self.read(root, &path, &below.join(name), model)?;
                }
                continue;
            }
            if !inside(root, &path).map_err(|error| unreadable(&path, error))? {
                return Err(leads_out(&path));
            }
            if is_marker {
                self.has_marker = true;
                continue;
            }
            self.changed = self.changed.max(changed_at(&metadata));
            self.found.push((below.join(name), metadata));
        }
        if depth == 0 && self.found.is_empty() {
            // The first file may be about to come.
            let metadata = fs::metadata(directory).map_err(|error| unreadable(directory, error))?;
            self.changed = changed_at(&metadata);
        }
        Ok(())
    }
}

/// The time of the last change of the inode: unlike that of the contents no copying tool sets it.
fn changed_at(metadata: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).unwrap_or(0))
}

fn hash_file(hasher: &mut DefaultHasher, path: &Path, metadata: &fs::Metadata) {
    path.hash(hasher);
    (metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()).hash(hasher);
}

/// Whether `path` lies in `root` once every link is followed: a link must not make the server read what
/// the owner of the repository has not put there.
fn inside(root: &Path, path: &Path) -> io::Result<bool> {
    Ok(path.canonicalize()?.starts_with(root))
}

fn leads_out(path: &Path) -> String {
    format!(
        "{} leads out of the model repository: expected files inside it; copy them there, or serve the \
         directory that holds both",
        path.display()
    )
}

#[cfg(test)]
mod tests;
