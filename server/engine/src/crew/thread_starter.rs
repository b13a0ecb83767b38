//! The thread that starts the threads of workers, so that whoever brings work does not wait for that, and has them end when they are idle.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{Crew, START_AGAIN_AFTER};

/// Takes orders to start a worker's thread. Its own thread ends with it.
pub(crate) struct ThreadStarter(Sender<Weak<Crew>>);

/// What its thread works with.
struct Starter {
    orders: Receiver<Weak<Crew>>,
    /// Orders for which the system granted no thread.
    failed: Vec<Weak<Crew>>,
    /// Crews that may have threads, and how many batches they had taken when they were last looked at.
    present: Vec<(Weak<Crew>, u64)>,
    /// How often they are looked at.
    idle_max: Duration,
    looked: Instant,
}

// === impl ThreadStarter ===

impl ThreadStarter {
    /// Workers of versions that have had no work for `idle_max` give their threads back, within as long again.
    ///
    /// # Panics
    /// The system does not grant a thread.
    pub(crate) fn start(idle_max: Duration) -> ThreadStarter {
        let (sender, orders) = unbounded();
        let (failed, present, looked) = (Vec::new(), Vec::new(), Instant::now());
        let starter = Starter { orders, failed, present, idle_max, looked };
        let thread = std::thread::Builder::new().name("start-workers".into()).spawn(move || starter.serve());
        thread.expect("a thread can be started while the server starts");
        ThreadStarter(sender)
    }

    pub(super) fn send(&self, crew: &Arc<Crew>) {
        self.0.send(Arc::downgrade(crew)).expect("the thread ends only after this sender; this is a bug");
    }

    /// Has a worker's thread of `crew` started each time that it is called.
    pub(super) fn of(&self, crew: &Arc<Crew>) -> impl Fn() + Send + Sync + 'static {
        let (sender, crew) = (self.0.clone(), Arc::downgrade(crew));
        move || {
            // The thread has ended only where the crew is gone as well.
            let _ended = sender.send(Weak::clone(&crew));
        }
    }
}

// === impl Starter ===

impl Starter {
    fn serve(mut self) {
        loop {
            match self.next() {
                Ok(crew) => {
                    if self.present.iter().all(|(known, _)| !Weak::ptr_eq(known, &crew)) {
                        if self.present.is_empty() {
                            self.looked = Instant::now();
                        }
                        self.present.push((Weak::clone(&crew), u64::MAX));
                    }
                    self.failed.push(crew);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Callers wait for these: what the system does not grant now is asked for again.
            self.failed.retain(|crew| {
                let Some(crew) = crew.upgrade() else { return false };
                let started = crew.start_one();
                if let Err(error) = &started {
                    crew.tell(error);
                }
                started.is_err()
            });
            if self.looked.elapsed() >= self.idle_max {
                self.looked = Instant::now();
                self.present.retain_mut(|(crew, taken)| match crew.upgrade() {
                    Some(crew) if crew.has_threads() => {
                        *taken = crew.deployment.queue.let_go(*taken);
                        true
                    }
                    _ => false,
                });
            }
        }
    }

    fn next(&self) -> Result<Weak<Crew>, RecvTimeoutError> {
        let again = (!self.failed.is_empty()).then_some(START_AGAIN_AFTER);
        let look = self.idle_max.saturating_sub(self.looked.elapsed());
        let look = (!self.present.is_empty()).then_some(look);
        match again.into_iter().chain(look).min() {
            Some(patience) => self.orders.recv_timeout(patience),
            None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}
