//! Finds, checks and initialises libonnxruntime, once for the process.

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::memory;

/// The oldest minor version of ONNX Runtime 1.x whose interface has what is used here.
const MINOR_VERSION_MIN: u32 = ort::MINOR_VERSION;
/// Where `make` puts the library, relative to the checkout.
const CACHE: &str = ".cache/onnxruntime";
const TELEMETRY_SWITCH: &str = "ORT_DISABLE_TELEMETRY";
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library is loaded at most once and never unloaded: sessions and tensors point into it.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// The process-wide choice of runtimes, made once at start. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The library, or a clause that says why there is none.
    pub(crate) library: Result<Arc<Library>, Arc<str>>,
}

/// ONNX Runtime, loaded and initialised.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) path: PathBuf,
    /// For example `1.31.1`.
    pub(crate) version: String,
    pub(crate) environment: Environment,
}

/// The library that was asked for cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuntimeError(String);

/// Why a file is not the library.
#[derive(Debug)]
enum Refusal {
    /// The system's loader found nothing, or nothing that it can load.
    NotLoadable(String),
    /// It is there and will not do.
    NotUsable(String),
}

/// Switches off the telemetry of ONNX Runtime for this process. [`Runtime::find`] does so too, before
/// it loads the library; a program with threads of its own calls this at the top of `main`.
pub fn disable_telemetry() {
    if std::env::var_os(TELEMETRY_SWITCH).is_some_and(|value| value == "1") {
        return;
    }
    #[expect(
        unsafe_code,
        reason = "the only way to hand the switch to the library, which latches it when it loads"
    )]
    // SAFETY: Rust's own environment functions share a lock. Only C code that reads the environment in
    // another thread could race, and callers are told to call this before they start threads.
    unsafe {
        std::env::set_var(TELEMETRY_SWITCH, "1");
    }
}

// === impl Runtime ===

impl Runtime {
    /// Finds and initialises ONNX Runtime. Looked at in this order: `library`; the file that
    /// `ORT_DYLIB_PATH` names; beside the executable; `.cache/onnxruntime/` in the current directory and
    /// in the executable's ancestors; the system's library path. Without any, tract serves every model.
    ///
    /// Call it before other threads start: it sets an environment variable (see [`disable_telemetry`]).
    /// Later calls get the library that the first one loaded.
    ///
    /// # Errors
    /// A library that was named (by `library` or the variable) cannot be loaded or is too old, or
    /// another one is loaded already.
    pub fn find(library: Option<&Path>) -> Result<Runtime, RuntimeError> {
        disable_telemetry();
        memory::return_large_blocks();
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let named = library.map(Path::to_path_buf).or_else(|| {
            let value = std::env::var_os(LIBRARY_VARIABLE)?;
            (!value.is_empty()).then(|| PathBuf::from(value))
        });
        if let Some(library) = loaded.as_ref() {
            return match named {
                Some(named) if !same_file(&named, &library.path) => Err(RuntimeError(format!(
                    "ONNX Runtime is already loaded from {}; it cannot be loaded again from {}",
                    library.path.display(),
                    named.display()
                ))),
                _ => Ok(Runtime { library: Ok(Arc::clone(library)) }),
            };
        }
        if let Some(named) = named {
            let library = Arc::new(Library::load(&named).map_err(|refusal| RuntimeError(refusal.text()))?);
            *loaded = Some(Arc::clone(&library));
            return Ok(Runtime { library: Ok(library) });
        }

        let mut refusals = Vec::new();
        for candidate in candidates() {
            match Library::load(&candidate) {
                Ok(library) => {
                    let library = Arc::new(library);
                    *loaded = Some(Arc::clone(&library));
                    return Ok(Runtime { library: Ok(library) });
                }
                // A bare name is a question to the system's loader, whose "no" is no news.
                Err(Refusal::NotLoadable(_)) if candidate.components().count() == 1 => {}
                Err(refusal) => refusals.push(refusal.text()),
            }
        }
        let why = match refusals.first() {
            Some(refusal) => refusal.clone(),
            None => format!(
                "no libonnxruntime beside the executable, in {CACHE}, or on the system's library path"
            ),
        };
        let how = format!(
            "to use it, run `make` or set {LIBRARY_VARIABLE} to a libonnxruntime 1.{MINOR_VERSION_MIN} or later"
        );
        Ok(Runtime { library: Err(format!("ONNX Runtime was not found: {why}; {how}").into()) })
    }

    /// Does without ONNX Runtime, whether it is installed or not.
    pub fn tract_only() -> Runtime {
        Runtime { library: Err("ONNX Runtime is switched off".into()) }
    }

    /// One line for the start-up summary.
    pub fn describe(&self) -> String {
        match &self.library {
            Ok(library) => format!("ONNX Runtime {} ({})", library.version, library.path.display()),
            Err(why) => format!("tract {} (embedded, pure Rust): {why}", crate::tract::VERSION),
        }
    }

    pub fn has_onnx_runtime(&self) -> bool {
        self.library.is_ok()
    }
}

// === impl Library ===

impl Library {
    fn load(path: &Path) -> Result<Library, Refusal> {
        // A path is a file here; a bare name that is no file is a question to the system's loader.
        let absolute = if path.exists() { std::path::absolute(path).ok() } else { None };
        let path = absolute.as_deref().unwrap_or(path);
        let version = probe(path)?;
        let failed = |error: &dyn fmt::Display| {
            Refusal::NotUsable(format!(
                "{} (ONNX Runtime {version}) cannot be initialised: {}",
                path.display(),
                one_line(error)
            ))
        };
        let environment = ort::init_from(path)
            .map_err(|error| failed(&error))?
            .with_name("gristmill")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| failed(&error))?;
        // Without it every verbose message would be formatted, and then dropped here.
        environment.set_log_level(LogLevel::Warning);
        Ok(Library { path: path.to_path_buf(), version, environment })
    }
}

// === impl Refusal ===

impl Refusal {
    fn text(self) -> String {
        match self {
            Refusal::NotLoadable(text) | Refusal::NotUsable(text) => text,
        }
    }
}

/// Loads the library, asks for its version and checks that it has the interface needed here.
#[expect(unsafe_code, reason = "loads foreign code and calls it to learn its version")]
fn probe(path: &Path) -> Result<String, Refusal> {
    let unusable = |reason: &str| Refusal::NotUsable(format!("{} {reason}", path.display()));
    // SAFETY: running a library's initialisers is what its user asked for by installing it there; the
    // export checked below makes it ONNX Runtime before anything else of it is called.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
        Refusal::NotLoadable(format!("{} cannot be loaded: {}", path.display(), one_line(&error)))
    })?;
    // SAFETY: this is the type of `OrtGetApiBase` in onnxruntime_c_api.h, unchanged since version 1.0.
    let base = unsafe {
        library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(
            c"OrtGetApiBase".to_bytes_with_nul(),
        )
    }
    .map_err(|_| unusable("is not ONNX Runtime: it does not export OrtGetApiBase"))?;
    // SAFETY: the function takes nothing and returns a static table or null, which is checked.
    let base = unsafe { base().as_ref() }
        .ok_or_else(|| unusable("gives no interface: OrtGetApiBase returns null"))?;
    // SAFETY: the table's functions are valid while the library is loaded; the version is a static string.
    let (version, has_interface) = unsafe {
        let version = CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned();
        let minor: u32 = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
        (version, minor >= MINOR_VERSION_MIN && !(base.GetApi)(MINOR_VERSION_MIN).is_null())
    };
    if !has_interface {
        return Err(unusable(&format!(
            "is ONNX Runtime {version}; version 1.{MINOR_VERSION_MIN} or later is needed"
        )));
    }
    Ok(version)
}

fn candidates() -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let beside = executable.iter().filter_map(|executable| executable.parent().map(Path::to_path_buf));
    let here = std::env::current_dir().ok();
    let caches = here
        .iter()
        .map(PathBuf::as_path)
        .chain(executable.iter().flat_map(|executable| executable.ancestors().skip(1)))
        .map(|directory| directory.join(CACHE));
    let mut found: Vec<PathBuf> =
        beside.chain(caches).flat_map(|directory| libraries_in(&directory)).collect();
    found.extend([file_name(""), file_name(".1")].map(PathBuf::from));
    found
}

/// Files such as `libonnxruntime.so.1.31.1`, the one with the longest version first.
fn libraries_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let prefix = file_name("");
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    found
}

fn file_name(suffix: &str) -> String {
    format!("{}onnxruntime{}{suffix}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

fn same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => left == right,
    }
}

/// What ONNX Runtime logs, for those who ask for it (`onnxruntime=debug`). Its errors are debug lines
/// too: each of them also comes back as the error of the call, where it is reported with its context,
/// and a client's bad request must not fill the log.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => {
            tracing::trace!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Warning | LogLevel::Error => {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, location, "{message}"),
    }
}

/// A runtime's message as one line.
pub(crate) fn one_line(message: &dyn fmt::Display) -> String {
    message.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A library made of `source`, by the compiler that links Rust's own programs.
    fn compile(directory: &Path, source: &str) -> PathBuf {
        let (code, library) = (directory.join("fake.c"), directory.join("libfake.so"));
        std::fs::write(&code, source).unwrap();
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status();
        assert!(status.unwrap().success());
        library
    }

    #[test]
    fn libraries_that_will_not_do_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let library = compile(directory.path(), "int unrelated(void) { return 1; }");
        let refusal = probe(&library).unwrap_err();
        assert!(matches!(refusal, Refusal::NotUsable(_)));
        assert!(refusal.text().ends_with("libfake.so is not ONNX Runtime: it does not export OrtGetApiBase"));

        let directory = tempfile::tempdir().unwrap();
        let library = compile(
            directory.path(),
            r#"
            struct base { const void *(*api)(unsigned); const char *(*version)(void); };
            static const void *api(unsigned wanted) { return 0; }
            static const char *version(void) { return "1.10.2"; }
            static const struct base base = { api, version };
            const struct base *OrtGetApiBase(void) { return &base; }
            "#,
        );
        let text = probe(&library).unwrap_err().text();
        assert!(
            text.ends_with("libfake.so is ONNX Runtime 1.10.2; version 1.24 or later is needed"),
            "{text}"
        );

        let refusal = probe(&directory.path().join("absent.so")).unwrap_err();
        assert!(matches!(refusal, Refusal::NotLoadable(_)), "{refusal:?}");
    }
}
