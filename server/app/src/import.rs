//! Copies a model into a repository so that it appears there whole or not at all, with its checksums.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::golden;
use crate::manifest::{self, FileDigest, Manifest};

/// What a version's model file is called in a repository.
const MODEL_FILE: &str = "model.onnx";

/// Directories that begin so hold imports that are under way. Hidden, so that no server takes one for a
/// model or a version; what a killed import leaves may be removed.
const STAGING_PREFIX: &str = ".import-";

/// Longest name of a model, in bytes: file systems take 255.
const NAME_BYTES_MAX: usize = 200;

/// A version that was copied into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) model: String,
    pub(crate) version: u64,
    /// `<repository>/<model>/<version>`.
    pub(crate) directory: PathBuf,
    /// The files copied, without the manifest.
    pub(crate) files: usize,
    /// Their sizes together.
    pub(crate) bytes: u64,
}

/// Files of the new version by their path in it, with where each is copied from.
type Sources = BTreeMap<String, PathBuf>;

/// Copies the model `source` into `repository` as the version `version` of the model `name`, or as the
/// one after the newest.
///
/// `source` is an ONNX file, which is copied with the data files that it refers to, or a directory that
/// holds `model.onnx`, of which every file is copied that is not hidden. The files are written and
/// synced in a hidden directory, which is then renamed: nobody sees a part of a version.
///
/// # Errors
/// The source is no ONNX model or lacks a file, its manifest or its golden inputs are at fault, the name
/// cannot be one, the version exists, or a file cannot be read or written. Nothing is left behind.
pub(crate) fn import(
    source: &Path,
    repository: &Path,
    name: &str,
    version: Option<u64>,
) -> anyhow::Result<Imported> {
    check_name(name)?;
    ensure!(version != Some(0), "version 0 is none: expected 1 or more");
    let sources = find_sources(source)?;
    let model_directory = repository.join(name);
    let is_new = !model_directory.is_dir();
    let first = match version {
        Some(version) => {
            refuse_existing(&model_directory, version)?;
            version
        }
        None => newest(&model_directory)?.map_or(Ok(1), after)?,
    };

    fs::create_dir_all(repository)
        .with_context(|| format!("cannot create the model repository {}", repository.display()))?;
    let parent = if is_new { repository } else { &model_directory };
    let staging = tempfile::Builder::new()
        .prefix(STAGING_PREFIX)
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a directory in {}", parent.display()))?;
    // Directories of its own within: the temporary one is for this user alone, and stays so.
    let staged_model = staging.path().join(name);
    let staged_version = staged_model.join(first.to_string());
    let manifest = stage(&sources, &staged_version)?;
    sync_directory(&staged_model)?;

    let whole_model = is_new && publish(&staged_model, &model_directory)?;
    let imported =
        if whole_model { first } else { publish_version(&staged_version, &model_directory, first, version)? };
    Ok(Imported {
        model: name.to_owned(),
        version: imported,
        directory: model_directory.join(imported.to_string()),
        files: manifest.files.len(),
        bytes: manifest.files.values().map(|file| file.bytes).sum(),
    })
}

fn check_name(name: &str) -> anyhow::Result<()> {
    ensure!(!name.is_empty(), "the model's name is empty: expected a name such as my_model");
    let refused = name.chars().find(|&character| matches!(character, '/' | '\\') || character.is_control());
    if let Some(refused) = refused {
        bail!(
            "'{}' cannot be a model's name: it has {refused:?} in it; a name is one directory",
            name.escape_debug()
        );
    }
    ensure!(
        !name.starts_with(['.', '_']),
        "'{name}' cannot be a model's name: directories that begin with '.' or '_' are passed over when models are \
         looked for"
    );
    ensure!(
        name.len() <= NAME_BYTES_MAX,
        "the model's name has {} bytes: expected {NAME_BYTES_MAX} at most",
        name.len()
    );
    Ok(())
}

// === What is copied ===

fn find_sources(source: &Path) -> anyhow::Result<Sources> {
    let kind = fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
    if kind.is_dir() { directory_sources(source) } else { file_sources(source) }
}

fn file_sources(source: &Path) -> anyhow::Result<Sources> {
    let mut sources = Sources::from([(MODEL_FILE.to_owned(), source.to_owned())]);
    add_external_data(&mut sources, source, source.file_name() == Some(MODEL_FILE.as_ref()))?;
    Ok(sources)
}

fn directory_sources(source: &Path) -> anyhow::Result<Sources> {
    let model = source.join(MODEL_FILE);
    if !model.is_file() {
        let hint = match newest(source)? {
            Some(version) => {
                format!("it has versions: import one, such as {}", source.join(version.to_string()).display())
            }
            None => "name the model's file".to_owned(),
        };
        bail!("{} holds no {MODEL_FILE}; {hint}", source.display());
    }
    manifest::verify(source).map_err(anyhow::Error::msg)?;
    golden::read_directory(source, "").map_err(anyhow::Error::msg)?;
    let mut sources = manifest::list(source).map_err(anyhow::Error::msg)?;
    sources
        .retain(|name, _| name != manifest::FILE_NAME && !name.split('/').any(|part| part.starts_with('.')));
    add_external_data(&mut sources, &model, true)?;
    Ok(sources)
}

/// Adds the files that `model` refers to. `keeps_name` says that it is called `model.onnx` already.
fn add_external_data(sources: &mut Sources, model: &Path, keeps_name: bool) -> anyhow::Result<()> {
    let directory = model.parent().unwrap_or(Path::new(""));
    for file in gristmill_onnx::external_data_files(model)? {
        let Some(name) = manifest::name_of(&file) else {
            bail!("the file name {} is not UTF-8: rename the file", directory.join(file).display());
        };
        let is_taken = name == manifest::FILE_NAME || (name == MODEL_FILE && !keeps_name);
        ensure!(
            !is_taken,
            "{} keeps weights in a file called {name}, which is a version's own file: rename the data file",
            model.display()
        );
        sources.insert(name, directory.join(file));
    }
    Ok(())
}

// === Copying ===

/// Writes the files and their manifest into the new directory `target`, all synced to the disk.
fn stage(sources: &Sources, target: &Path) -> anyhow::Result<Manifest> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut directories = vec![target.to_owned()];
    let mut manifest = Manifest::default();
    for (name, source) in sources {
        let copy = target.join(name);
        for directory in copy.ancestors().skip(1).take_while(|directory| *directory != target) {
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
            }
        }
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let digest = copy_file(source, &copy)
            .with_context(|| format!("cannot copy {} to {}", source.display(), copy.display()))?;
        manifest.files.insert(name.clone(), digest);
    }
    let path = target.join(manifest::FILE_NAME);
    write_manifest(&manifest, &path).with_context(|| format!("cannot write {}", path.display()))?;
    for directory in &directories {
        sync_directory(directory)?;
    }
    Ok(manifest)
}

fn copy_file(source: &Path, copy: &Path) -> anyhow::Result<FileDigest> {
    let state = |metadata: fs::Metadata| (metadata.len(), metadata.modified().ok());
    let before = state(fs::metadata(source)?);
    let mut file = File::create_new(copy)?;
    let digest = manifest::digest(source, &mut file)?;
    file.sync_all()?;
    let after = state(fs::metadata(source)?);
    ensure!(
        before == after && digest.bytes == after.0,
        "the file changed while it was copied: import it when it is complete"
    );
    Ok(digest)
}

fn write_manifest(manifest: &Manifest, path: &Path) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(manifest)?;
    text.push('\n');
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}

/// Makes a rename or a new entry in `directory` survive a power cut.
fn sync_directory(directory: &Path) -> anyhow::Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync {}", directory.display()))
}

// === Publishing ===

/// Renames a staged directory to `target`, unless that is there already: then false.
fn publish(staged: &Path, target: &Path) -> anyhow::Result<bool> {
    match fs::rename(staged, target) {
        Ok(()) => {
            if let Some(parent) = target.parent() {
                sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
            }
            Ok(true)
        }
        Err(error) => match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => Ok(false),
            _ => Err(error)
                .with_context(|| format!("cannot rename {} to {}", staged.display(), target.display())),
        },
    }
}

/// Publishes as `version` if that was `asked` for, and else as the first from it on that nobody has taken.
fn publish_version(
    staged: &Path,
    model_directory: &Path,
    mut version: u64,
    asked: Option<u64>,
) -> anyhow::Result<u64> {
    loop {
        let target = model_directory.join(version.to_string());
        if target.symlink_metadata().is_err() && publish(staged, &target)? {
            return Ok(version);
        }
        match asked {
            Some(asked) => refuse_existing(model_directory, asked)?,
            None => version = newest(model_directory)?.map_or(Ok(1), after)?,
        }
    }
}

fn refuse_existing(model_directory: &Path, version: u64) -> anyhow::Result<()> {
    let target = model_directory.join(version.to_string());
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    bail!(
        "version {version} exists: {}; versions are not overwritten. Leave --version out to import as the one after \
         the newest, or remove that directory",
        target.display()
    )
}

/// The highest version in a model's directory, with a model in it or not; `None` without one.
fn newest(model_directory: &Path) -> anyhow::Result<Option<u64>> {
    let unreadable = || format!("cannot read {}", model_directory.display());
    let entries = match fs::read_dir(model_directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(unreadable),
    };
    let mut newest = None;
    for entry in entries {
        let name = entry.with_context(unreadable)?.file_name();
        let version =
            name.to_str().and_then(|name| name.parse::<u64>().ok().filter(|v| v.to_string() == name));
        newest = newest.max(version.filter(|&version| version > 0));
    }
    Ok(newest)
}

fn after(version: u64) -> anyhow::Result<u64> {
    version.checked_add(1).with_context(|| format!("there is no version after {version}"))
}
