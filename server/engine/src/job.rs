//! An admitted request on its way to an answer, as the former and the workers see it.

use std::time::Instant;

use crate::answer::Reply;
use crate::request::{Request, ShapeKey};
use crate::waiting::{Due, Item};

/// An admitted request on its way to an answer.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) arrived: Instant,
    pub(crate) due: Due,
    /// Taken by whoever answers. Everybody who removes a job from the queue must.
    pub(crate) reply: Option<Reply>,
}

// === impl Job ===

impl Item for Job {
    fn rows(&self) -> usize {
        self.request.rows()
    }

    fn bytes(&self) -> usize {
        self.request.bytes()
    }

    fn shape_key(&self) -> &ShapeKey {
        self.request.shape_key()
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn due(&self) -> &Due {
        &self.due
    }

    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(Reply::is_abandoned)
    }
}
