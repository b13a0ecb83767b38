//! Ends what does not serve any more, off the thread that plans: waits until no request can find it, then drains and frees it.

use std::sync::Weak;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::catalog::Catalog;
use crate::workers::Workers;

/// A thread that retires workers, one after the other.
pub(crate) struct Retirer {
    orders: Sender<Retirement>,
    thread: JoinHandle<()>,
}

/// Workers that are in none of the catalogs from now on.
struct Retirement {
    workers: Vec<Workers>,
    /// Catalogs that they were in, and that a request may still be looking at.
    snapshots: Vec<Weak<Catalog>>,
}

/// A request looks at a catalog for the microseconds between finding a model and being queued.
const GRACE_PAUSE: Duration = Duration::from_millis(1);

// === impl Retirer ===

impl Retirer {
    pub(crate) fn start(release_memory: fn()) -> Retirer {
        let (orders, receiver) = unbounded();
        let body = move || serve(&receiver, release_memory);
        let thread = std::thread::Builder::new().name("retire".into()).spawn(body);
        Retirer { orders, thread: thread.expect("a thread can be started while the server starts") }
    }

    pub(crate) fn retire(&self, workers: Vec<Workers>, snapshots: Vec<Weak<Catalog>>) {
        let sent = self.orders.send(Retirement { workers, snapshots });
        sent.expect("the thread ends only after this sender; this is a bug");
    }

    /// Waits until everything is retired.
    pub(crate) fn finish(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            tracing::error!("the thread that retires versions had panicked");
        }
    }
}

fn serve(orders: &Receiver<Retirement>, release_memory: fn()) {
    for Retirement { workers, snapshots } in orders {
        // A request that has found these workers in an old catalog must be queued before their queue closes.
        while snapshots.iter().any(|snapshot| snapshot.strong_count() > 0) {
            std::thread::park_timeout(GRACE_PAUSE);
        }
        for one in workers {
            one.retire();
        }
        release_memory();
    }
}
