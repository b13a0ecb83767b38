//! Ends what does not serve any more, off the thread that plans: waits until no request can find it, then drains and frees it.

use std::sync::Weak;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::catalog::Catalog;
use crate::workers::{Freeing, Workers};

/// A thread that retires workers, one after the other, and gives back memory. Freeing sessions is the workers' own
/// affair, on cores that nothing else wants; giving memory back holds locks that serving threads need, so it had
/// better be over soon.
pub(crate) struct Retirer {
    orders: Sender<Order>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

enum Order {
    Retire(Retirement),
    /// Something was freed that no retirement stands for.
    ReleaseMemory,
}

/// Workers that are in none of the catalogs from now on.
struct Retirement {
    workers: Vec<Workers>,
    /// Catalogs that they were in, and that a request may still be looking at.
    snapshots: Vec<Weak<Catalog>>,
}

/// A request looks at a catalog for the microseconds between finding a model and being queued.
const GRACE_PAUSE: Duration = Duration::from_millis(1);

/// Longest that the end waits for what is being retired: on a busy machine cores that nothing else wants are few.
const END_MAX: Duration = Duration::from_secs(5);

// === impl Retirer ===

impl Retirer {
    pub(crate) fn start(release_memory: fn()) -> Retirer {
        let (orders, receiver) = unbounded();
        let (sender, ended) = bounded(0);
        let body = move || {
            serve(&receiver, release_memory);
            drop(sender);
        };
        let thread = std::thread::Builder::new().name("retire".into()).spawn(body);
        let thread = thread.expect("a thread can be started while the server starts");
        Retirer { orders, ended, thread }
    }

    pub(crate) fn retire(&self, workers: Vec<Workers>, snapshots: Vec<Weak<Catalog>>) {
        self.order(Order::Retire(Retirement { workers, snapshots }));
    }

    pub(crate) fn release_memory(&self) {
        self.order(Order::ReleaseMemory);
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the thread ends only after this sender; this is a bug");
    }

    /// Waits until everything is retired, or for so long that what is left had better go with the process.
    pub(crate) fn finish(self) {
        drop(self.orders);
        // Nothing is ever sent: the channel is cut when the thread ends.
        if self.ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("replaced versions are still being freed after {END_MAX:?}: not waited for");
        } else if self.thread.join().is_err() {
            tracing::error!("the thread that retires versions had panicked");
        }
    }
}

fn serve(orders: &Receiver<Order>, release_memory: fn()) {
    for order in orders {
        if let Order::Retire(Retirement { workers, snapshots }) = order {
            // A request that has found these workers in an old catalog must be queued before their queue closes.
            while snapshots.iter().any(|snapshot| snapshot.strong_count() > 0) {
                std::thread::park_timeout(GRACE_PAUSE);
            }
            for one in workers {
                one.retire(Freeing::WhenIdle);
            }
        }
        if orders.is_empty() {
            release_memory();
        }
    }
}
