//! What can go wrong, sorted by what the caller should do about it.

use std::fmt;
use std::time::Duration;

/// Why a request got no answer. A closed list: each variant is one thing that a client can do next,
/// and every dialect maps all of them to codes in one place (`status.rs` of the server).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// Fix the name or the version.
    #[error("{0}")]
    NotFound(String),
    /// Fix the request; the text names the tensor, what was expected and what came.
    #[error("{0}")]
    InvalidInput(String),
    /// Send less; the text names the limit, the size and the setting.
    #[error("{0}")]
    TooLarge(String),
    /// Come back later.
    #[error("{message}")]
    Overloaded { message: String, retry_after: Duration },
    /// Give more time, or less load.
    #[error("deadline exceeded {stage}")]
    DeadlineExceeded { stage: Stage },
    /// Try another replica: this one is loading or shutting down.
    #[error("{0}")]
    Unavailable(String),
    /// Report it: the model or its runtime failed.
    #[error("{0}")]
    Backend(String),
}

/// Where a request was when its deadline passed, or could not be kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was refused: its own run is expected to take longer than it had when it came.
    Arrival,
    Queue,
    Run,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Arrival => {
                "before it could be kept: the run of this request alone is expected to take longer than it has; \
                 give it more time, or send fewer rows"
            }
            Stage::Queue => "while the request was in the queue stage",
            Stage::Run => "while the request was in the run stage",
        })
    }
}

/// Why a model could not be made ready. The text names the file or the tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct LoadError {
    text: String,
    is_permanent: bool,
}

/// Why one run of a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The runtime says that the input's values or sizes are at fault.
    #[error("{0}")]
    Input(String),
    /// Anything else that the runtime reports; the instance can go on.
    #[error("{0}")]
    Failed(String),
    /// Somebody else stopped it, through the instance's stopper; the instance can go on.
    #[error("the run was stopped")]
    Stopped,
}

/// Why an operator's wish was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such model.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for does not fit the state of the model or of the server.
    #[error("{0}")]
    Refused(String),
    /// It was tried and went wrong.
    #[error("{0}")]
    Failed(String),
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

// === impl LoadError ===

impl LoadError {
    /// The same files fail in the same way however often they are tried: a type, an operator, a signature.
    pub fn permanent(text: impl Into<String>) -> LoadError {
        LoadError { text: text.into(), is_permanent: true }
    }

    /// Another try may succeed: a file that could not be read, memory, a device, time.
    pub fn transient(text: impl Into<String>) -> LoadError {
        LoadError { text: text.into(), is_permanent: false }
    }

    pub fn is_permanent(&self) -> bool {
        self.is_permanent
    }
}
