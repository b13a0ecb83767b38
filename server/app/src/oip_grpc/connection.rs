//! One HTTP/2 connection: answers that are ready together leave in one write.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// Calls of a connection that have begun and have no answer yet.
#[derive(Clone, Default)]
pub(super) struct OpenCalls(Arc<AtomicUsize>);

/// Counts one call until it is dropped.
pub(super) struct OpenCall(OpenCalls);

/// A connection that lets those of its calls go first that are ready. Each answer wakes the connection,
/// which would write it at once: for the answers of a batch, a system call and a wake-up of the client each.
pub(super) struct AfterCalls<C> {
    connection: C,
    calls: OpenCalls,
    waited: bool,
}

// === impl OpenCalls ===

impl OpenCalls {
    pub(super) fn begin(&self) -> OpenCall {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.clone())
    }

    fn are_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl AfterCalls ===

impl<C> AfterCalls<C> {
    pub(super) fn new(connection: C, calls: OpenCalls) -> AfterCalls<C> {
        AfterCalls { connection, calls, waited: false }
    }
}

impl<C: Future + Unpin> Future for AfterCalls<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        if !self.waited && self.calls.are_any() {
            self.waited = true;
            // A task that wakes itself goes to the end of the runtime's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        Pin::new(&mut self.connection).poll(context)
    }
}
