//! What is logged, and how that is changed while the server runs: by Triton's names for it.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use gristmill_engine::error::InferError;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::cli::{LogArgs, LogFormat};

/// The log of the process.
#[derive(Clone)]
pub struct Log {
    filter: reload::Handle<Wanted, Registry>,
    levels: Arc<Mutex<Levels>>,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogValue {
    Switch(bool),
    Number(u32),
    Text(String),
}

/// Which log lines are written; each level by itself, as Triton has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    error: bool,
    warning: bool,
    info: bool,
    /// 0 is nothing, 1 is DEBUG, from 2 on TRACE too.
    verbose: u32,
}

/// Decides which lines are written: the filter of `--log`, or levels that were set since.
type Wanted = Box<dyn Filter<Registry> + Send + Sync>;

const NAMES: &str = "log_info, log_warning, log_error, log_verbose_level, log_format or log_file";
/// The only one of Triton's formats whose times are ours.
const FORMAT: &str = "ISO8601";

/// Sends log lines to standard error.
///
/// # Errors
/// The filter cannot be parsed, or a subscriber is installed already.
pub fn start(args: &LogArgs) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| anyhow::anyhow!("--log \"{}\": {error}; expected for example info", args.log))?;
    // A filter that looks into spans has no bound of its own.
    let levels = Levels::up_to(filter.max_level_hint().unwrap_or(LevelFilter::TRACE));
    let (filter, handle) = reload::Layer::new(Box::new(filter) as Wanted);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Human => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
        }
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    Ok(Log { filter: handle, levels: Arc::new(Mutex::new(levels)) })
}

// === impl Log ===

impl Log {
    /// Each setting by Triton's name for it.
    pub(crate) fn settings(&self) -> [(&'static str, LogValue); 6] {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).settings()
    }

    /// Sets what is named, all of it or nothing. Levels then hold for every part of the program, whatever `--log`
    /// says of one.
    ///
    /// # Errors
    /// `InvalidInput` that names a setting that cannot be so.
    pub(crate) fn update(
        &self,
        changes: impl IntoIterator<Item = (String, LogValue)>,
    ) -> Result<(), InferError> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = *levels;
        for (name, value) in changes {
            wanted.set(&name, value)?;
        }
        if wanted != *levels {
            self.filter.reload(wanted.filter()).map_err(|error| InferError::Backend(error.to_string()))?;
            *levels = wanted;
        }
        Ok(())
    }
}

// === impl LogValue ===

impl std::fmt::Display for LogValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogValue::Switch(value) => write!(f, "{value}"),
            LogValue::Number(value) => write!(f, "{value}"),
            LogValue::Text(value) => write!(f, "'{value}'"),
        }
    }
}

// === impl Levels ===

impl Levels {
    fn up_to(most: LevelFilter) -> Levels {
        Levels {
            error: most >= LevelFilter::ERROR,
            warning: most >= LevelFilter::WARN,
            info: most >= LevelFilter::INFO,
            verbose: u32::from(most >= LevelFilter::DEBUG) + u32::from(most >= LevelFilter::TRACE),
        }
    }

    fn settings(self) -> [(&'static str, LogValue); 6] {
        [
            ("log_file", LogValue::Text(String::new())),
            ("log_info", LogValue::Switch(self.info)),
            ("log_warning", LogValue::Switch(self.warning)),
            ("log_error", LogValue::Switch(self.error)),
            ("log_verbose_level", LogValue::Number(self.verbose)),
            ("log_format", LogValue::Text(FORMAT.to_owned())),
        ]
    }

    fn set(&mut self, name: &str, value: LogValue) -> Result<(), InferError> {
        let expected = match (name, value) {
            ("log_info", LogValue::Switch(is_on)) => return set(&mut self.info, is_on),
            ("log_warning", LogValue::Switch(is_on)) => return set(&mut self.warning, is_on),
            ("log_error", LogValue::Switch(is_on)) => return set(&mut self.error, is_on),
            ("log_verbose_level", LogValue::Number(level)) => return set(&mut self.verbose, level),
            ("log_format", LogValue::Text(format)) if format == FORMAT => return Ok(()),
            ("log_file", LogValue::Text(file)) if file.is_empty() => return Ok(()),
            ("log_info" | "log_warning" | "log_error", value) => format!("true or false, got {value}"),
            ("log_verbose_level", value) => {
                format!("0, 1 for debug or 2 for everything, as a number, got {value}")
            }
            ("log_format", value) => format!(
                "'{FORMAT}', got {value}: times are in that format, the rest is as --log-format said at the start"
            ),
            ("log_file", value) => format!("'', got {value}: the log goes to standard error"),
            _ => {
                return Err(InferError::InvalidInput(format!(
                    "unknown log setting '{name}': expected {NAMES}"
                )));
            }
        };
        Err(InferError::InvalidInput(format!("log setting {name} must be {expected}")))
    }

    fn has(self, level: &Level) -> bool {
        match *level {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info,
            Level::DEBUG => self.verbose >= 1,
            Level::TRACE => self.verbose >= 2,
        }
    }

    fn filter(self) -> Wanted {
        // Least verbose first, so that the last one that is on bounds all.
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        let most = levels.into_iter().rev().find(|level| self.has(level));
        let filter = filter_fn(move |line: &Metadata<'_>| self.has(line.level()));
        Box::new(filter.with_max_level_hint(most.map_or(LevelFilter::OFF, LevelFilter::from_level)))
    }
}

fn set<T>(setting: &mut T, value: T) -> Result<(), InferError> {
    *setting = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use expect_test::expect;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(settings: [(&'static str, LogValue); 6]) -> String {
        settings.map(|(name, value)| format!("{name} {value}")).join(", ")
    }

    /// A log of its own, which is the current thread's while the guard lives.
    fn log(filter: &str) -> (Log, Lines, tracing::subscriber::DefaultGuard) {
        let filter = EnvFilter::new(filter);
        let levels = Levels::up_to(filter.max_level_hint().unwrap());
        let (filter, handle) = reload::Layer::new(Box::new(filter) as Wanted);
        let written = Lines::default();
        let writer = written.clone();
        let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let guard = tracing_subscriber::registry().with(lines.with_filter(filter)).set_default();
        (Log { filter: handle, levels: Arc::new(Mutex::new(levels)) }, written, guard)
    }

    fn say() {
        tracing::error!("broken");
        tracing::warn!("odd");
        tracing::info!("usual");
        tracing::debug!("minute");
        tracing::trace!("tiny");
    }

    fn said(lines: &Lines) -> String {
        let bytes = std::mem::take(&mut *lines.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn levels_are_set_one_by_one_while_the_log_runs() {
        let (log, lines, _guard) = log("warn");
        say();
        assert_eq!(said(&lines), "broken odd");
        let switch = |name: &str, is_on| (name.to_owned(), LogValue::Switch(is_on));
        log.update([switch("log_info", true), switch("log_error", false)]).unwrap();
        say();
        assert_eq!(said(&lines), "odd usual");
        for (level, expected) in [(1, "odd usual minute"), (2, "odd usual minute tiny"), (0, "odd usual")] {
            log.update([("log_verbose_level".to_owned(), LogValue::Number(level))]).unwrap();
            say();
            assert_eq!(said(&lines), expected);
        }
        log.update([switch("log_info", false), switch("log_warning", false)]).unwrap();
        say();
        assert_eq!(said(&lines), "");
    }

    #[test]
    fn the_settings_say_what_the_filter_lets_through() {
        expect!["log_file '', log_info true, log_warning true, log_error true, log_verbose_level 1, log_format 'ISO8601'"]
            .assert_eq(&text(Levels::up_to(EnvFilter::new("info,hyper=debug").max_level_hint().unwrap()).settings()));
        expect!["log_file '', log_info false, log_warning false, log_error false, log_verbose_level 0, log_format 'ISO8601'"]
            .assert_eq(&text(Levels::up_to(LevelFilter::OFF).settings()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_changes_nothing() {
        let (log, _lines, _guard) = log("info");
        let before = log.settings();
        let refusal = |name: &str, value: LogValue| {
            let changes = [("log_error".to_owned(), LogValue::Switch(false)), (name.to_owned(), value)];
            let refusal = log.update(changes).unwrap_err();
            assert!(matches!(refusal, InferError::InvalidInput(_)));
            assert_eq!(log.settings(), before);
            refusal.to_string()
        };
        expect!["unknown log setting 'log_colour': expected log_info, log_warning, log_error, log_verbose_level, log_format or log_file"]
            .assert_eq(&refusal("log_colour", LogValue::Switch(true)));
        expect!["log setting log_info must be true or false, got 1"]
            .assert_eq(&refusal("log_info", LogValue::Number(1)));
        expect![
            "log setting log_verbose_level must be 0, 1 for debug or 2 for everything, as a number, got 'all'"
        ]
        .assert_eq(&refusal("log_verbose_level", LogValue::Text("all".into())));
        expect!["log setting log_format must be 'ISO8601', got 'default': times are in that format, the rest is as --log-format said at the start"]
            .assert_eq(&refusal("log_format", LogValue::Text("default".into())));
        expect!["log setting log_file must be '', got '/tmp/log': the log goes to standard error"]
            .assert_eq(&refusal("log_file", LogValue::Text("/tmp/log".into())));
        let unchanged = log.settings();
        log.update(unchanged.clone().map(|(name, value)| (name.to_owned(), value))).unwrap();
        assert_eq!(log.settings(), unchanged, "what it says can be said to it");
    }
}
