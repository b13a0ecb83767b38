//! Feedback: what became of predictions, told by their ids, late, in any order and perhaps twice.

mod bandits;
mod experiments;
mod keeper;
mod log;
mod place;
mod service;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::prediction::PredictionId;
use gristmill_proto::admin::Experiment;
use tokio::sync::oneshot;

use self::keeper::{Command, Keeper};
pub use self::place::Place;
pub use self::service::read_items;
pub(crate) use self::service::{FeedbackService, ItemBody, response_json};

/// What front doors tell feedback to. Cheap to clone.
#[derive(Clone)]
pub struct Feedback {
    engine: Arc<Engine>,
    commands: SyncSender<Command>,
}

/// The thread that keeps it; ends by [`Feedback::end`].
pub struct Keeping(JoinHandle<()>);

/// Something that is told of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub prediction_id: PredictionId,
    pub told: Told,
}

/// Each of the two can be told once of a prediction.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Reward(f64),
    /// What the answer ought to have been, as JSON.
    Truth(String),
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    Accepted,
    /// The same was told before.
    Duplicate,
    /// Something else was told before, and stays.
    Conflict {
        kept: String,
    },
    /// No such prediction of this route is outstanding.
    Unknown,
    /// It is no reward of this route's.
    Invalid(String),
}

/// What became of a batch.
pub(crate) struct Taken {
    /// In the order of the items.
    pub(crate) fates: Vec<Fate>,
    /// What was accepted is on the disk.
    pub(crate) is_durable: bool,
}

/// Items of one request.
pub(crate) const ITEMS_MAX: usize = 10_000;
/// Of one truth.
pub(crate) const TRUTH_BYTES_MAX: usize = 4096;
/// Batches that wait for the thread that keeps them.
const BATCHES_MAX: usize = 1024;
/// A commit takes a few milliseconds.
const RETRY_AFTER: Duration = Duration::from_millis(100);

// === impl Feedback ===

impl Feedback {
    /// Starts the thread that keeps predictions and their feedback at `place`; `predictions_max` are kept, the newest.
    /// What is kept is written to the experiment log besides, if there is one.
    ///
    /// # Errors
    /// The place or the log was asked for and cannot be written, or the system does not grant a thread.
    pub fn start(
        engine: Arc<Engine>,
        place: Place,
        predictions_max: u64,
        log: Option<&Path>,
    ) -> anyhow::Result<(Feedback, Keeping)> {
        engine.journal().open();
        let (commands, inbox) = std::sync::mpsc::sync_channel(BATCHES_MAX);
        let keeper = Keeper::new(Arc::clone(&engine), place, predictions_max, log)?;
        let thread = std::thread::Builder::new().name("feedback".into()).spawn(move || keeper.run(&inbox))?;
        Ok((Feedback { engine, commands }, Keeping(thread)))
    }

    /// Keeps what is told of predictions of a route; what is accepted has reached the disk when this returns.
    ///
    /// # Errors
    /// There is no such route, too much is told at once, or the disk cannot be written.
    pub(crate) async fn tell(&self, route: &str, items: Vec<Item>) -> Result<Taken, InferError> {
        if !self.engine.routes().iter().any(|known| known.name == route) {
            return Err(InferError::NotFound(format!(
                "there is no route '{route}': feedback is for predictions that a route made"
            )));
        }
        let (answer, taken) = oneshot::channel();
        self.order(Command::Tell { route: route.to_owned(), items, answer })?;
        taken.await.map_err(|_dropped| ended())?.map_err(InferError::Unavailable)
    }

    /// What is known of each arm of the routes in force.
    ///
    /// # Errors
    /// The thread that keeps it has ended, or is too far behind.
    pub(crate) async fn experiments(&self) -> Result<Vec<Experiment>, InferError> {
        let (answer, shown) = oneshot::channel();
        self.order(Command::Show { answer })?;
        shown.await.map_err(|_dropped| ended())
    }

    fn order(&self, command: Command) -> Result<(), InferError> {
        self.commands.try_send(command).map_err(|refused| match refused {
            TrySendError::Full(_) => InferError::Overloaded {
                message: format!("{BATCHES_MAX} batches of feedback wait to be kept"),
                retry_after: RETRY_AFTER,
            },
            TrySendError::Disconnected(_) => ended(),
        })
    }

    /// Writes what is left, and returns when that is on the disk.
    pub fn end(&self, keeping: Keeping) {
        // A thread that has panicked has said so.
        let _ended = self.commands.send(Command::End);
        let _panicked = keeping.0.join();
    }
}

fn ended() -> InferError {
    InferError::Unavailable("the thread that keeps feedback has ended".into())
}
