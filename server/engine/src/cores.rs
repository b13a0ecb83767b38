//! How many cores this process may use, who may run on them now, and how threads are scheduled.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::backend::{Device, Placement};
use crate::metrics::SlotGauges;
use crate::slots::{AccountId, Claim, Class, Ledger, Outcome, Ticket, Visits, Wish};

/// The run slots of all devices. A worker holds slots while it runs, and takes its batch only when it has them, so
/// that batches grow while it waits.
pub(crate) struct Cores {
    state: Mutex<State>,
    /// Of everybody who loads.
    loading: AccountId,
    has_bounds: bool,
    made: Instant,
    /// When a request was last refused for lack of time or room, in nanoseconds since `made`; 0 if none was.
    refused_ns: AtomicU64,
}

struct State {
    ledger: Ledger,
    /// What each account has to run, by its number.
    wishes: Vec<Option<Box<WishOf>>>,
    seats: Vec<(Ticket, Arc<Seat>)>,
    gauges: Vec<(Device, SlotGauges)>,
}

/// Called with a lock held while slots are handed out.
type WishOf = dyn Fn() -> Wish + Send + Sync;

/// One version's account.
pub(crate) struct Share {
    cores: Arc<Cores>,
    account: AccountId,
    /// Where one of its workers waits, another may find a free slot.
    pub(crate) has_several_devices: bool,
}

/// Slots that are held; given back when this is dropped.
pub(crate) struct Slot {
    cores: Arc<Cores>,
    /// `None` once they were given back.
    ticket: Option<Ticket>,
    /// CPU time of the holding thread when it began to share a core; `None` for runs that have their cores to
    /// themselves, which are not asked for it: reading that clock is a system call.
    visit_began: Option<Duration>,
}

/// What became of asking for slots.
pub(crate) enum Asked {
    Granted(Slot),
    Queued(Queued),
}

/// A place in the order, to be waited at by the thread that asked.
#[must_use]
pub(crate) struct Queued {
    cores: Arc<Cores>,
    ticket: Ticket,
    seat: Arc<Seat>,
    /// See [`Ledger::looks_again_after`].
    looks_again_after: Option<Duration>,
}

/// A thread that waits.
struct Seat {
    thread: Thread,
    verdict: AtomicU8,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
/// Beside those that hold all slots.
const VISITING: u8 = 2;
const DISMISSED: u8 = 3;

/// Seats of threads that are to be woken once the lock is free.
type Called = SmallVec<[Arc<Seat>; 2]>;

/// Runs that a GPU has at the same time: while one computes, the inputs of another are copied.
const GPU_SLOTS: usize = 2;

/// Longest that background work waits for free cores. Where all are busy for so long it goes on without: its
/// threads have only the time that nobody else wants.
const BACKGROUND_WAIT_MAX: Duration = Duration::from_millis(500);

/// For so long after a refusal more of them are expected.
const REFUSING_FOR: Duration = Duration::from_secs(1);

/// Cores granted by the cgroup's CPU quota and the affinity mask, whichever is less; at least 1.
///
/// The standard library reads both (cgroup v1 and v2), which the machine's core count does not tell:
/// threads beyond the quota are throttled in every period.
pub fn granted() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// CPU time that the calling thread has used so far.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

// === impl Cores ===

impl Cores {
    /// One slot for each of `granted` cores; as many as anybody wants if `None`. Runs shorter than `at_once` need none.
    pub(crate) fn new(granted: Option<usize>, at_once: Duration) -> Arc<Cores> {
        let mut ledger = Ledger::new();
        let loading = ledger.open(1);
        let (wishes, seats, gauges) = (vec![None], Vec::new(), Vec::new());
        let mut state = State { ledger, wishes, seats, gauges };
        let visits = match granted {
            Some(_) => Visits::Allowed { at_once },
            None => Visits::Never,
        };
        state.add_device(Device::Socket(0), granted.unwrap_or(Ledger::UNBOUNDED), visits);
        Arc::new(Cores {
            state: Mutex::new(state),
            loading,
            has_bounds: granted.is_some(),
            made: Instant::now(),
            refused_ns: AtomicU64::new(0),
        })
    }

    /// Opens an account for a version whose instances are placed on `devices`. `wish` says what it has to run, and
    /// must take no lock that is held while slots are asked for or given back.
    pub(crate) fn open(
        self: &Arc<Cores>,
        weight: usize,
        devices: &[Device],
        wish: impl Fn() -> Wish + Send + Sync + 'static,
    ) -> Share {
        let mut state = self.lock();
        let gpu_slots = if self.has_bounds { GPU_SLOTS } else { Ledger::UNBOUNDED };
        for &device in devices {
            state.add_device(device, gpu_slots, Visits::Never);
        }
        let account = state.ledger.open(weight);
        let number = account.number();
        if state.wishes.len() <= number {
            state.wishes.resize_with(number + 1, || None);
        }
        state.wishes[number] = Some(Box::new(wish));
        drop(state);
        Share { cores: Arc::clone(self), account, has_several_devices: devices.len() > 1 }
    }

    /// Slots for work that nobody waits for, on a thread in the background. `None` when
    /// everything was busy for too long.
    pub(crate) fn background(self: &Arc<Cores>, slots: usize) -> Option<Slot> {
        let device = Device::Socket(0);
        let claim = Claim { account: self.loading, device, slots, class: Class::Background };
        match self.ask(claim) {
            Asked::Granted(slot) => Some(slot),
            Asked::Queued(queued) => queued.wait_at_most(BACKGROUND_WAIT_MAX),
        }
    }

    /// Slots for what nobody waits for and what can be left undone, on a thread in the background: those of one thread,
    /// or all of a GPU, whose runs give way to nobody. `None` unless they are free now and nobody wants them.
    pub(crate) fn spare(self: &Arc<Cores>, device: Device) -> Option<Slot> {
        let slots = match device {
            Device::Socket(_) => 1,
            Device::Gpu(_) => usize::MAX,
        };
        let ticket = self.lock().ledger.ask_spare(self.loading, device, slots, Instant::now())?;
        Some(self.slot(ticket, false))
    }

    /// A request was refused for lack of time or room.
    pub(crate) fn note_refusal(&self, now: Instant) {
        self.refused_ns.store(self.nanoseconds(now), Ordering::Relaxed);
    }

    /// More comes than the cores can do, of whichever model.
    fn is_refusing(&self, now: Instant) -> bool {
        let refused_ns = self.refused_ns.load(Ordering::Relaxed);
        refused_ns > 0 && self.nanoseconds(now).saturating_sub(refused_ns) < REFUSING_FOR.as_nanos() as u64
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.made).as_nanos() as u64
    }

    /// Sets the gauges that describe a moment.
    pub(crate) fn refresh_gauges(&self) {
        let state = self.lock();
        for (device, slots, in_use) in state.ledger.devices() {
            for (_, gauges) in state.gauges.iter().filter(|(other, _)| *other == device) {
                gauges.slots.set(if self.has_bounds { slots as f64 } else { f64::INFINITY });
                gauges.in_use.set(in_use as f64);
            }
        }
    }

    fn ask(self: &Arc<Cores>, claim: Claim) -> Asked {
        let now = Instant::now();
        let mut state = self.lock();
        match state.ledger.ask(claim, now) {
            Ok(ticket) => {
                let shares_core = state.ledger.shares_core(ticket);
                drop(state);
                Asked::Granted(self.slot(ticket, shares_core))
            }
            Err(ticket) => self.queue(state, ticket, now),
        }
    }

    /// A claim has joined those who wait, and may be the one whose turn it is.
    fn queue(self: &Arc<Cores>, mut state: MutexGuard<'_, State>, ticket: Ticket, now: Instant) -> Asked {
        let seat = Arc::new(Seat { thread: std::thread::current(), verdict: AtomicU8::new(WAITING) });
        state.seats.push((ticket, Arc::clone(&seat)));
        let called = state.settle(now);
        let looks_again_after = state.ledger.looks_again_after(ticket);
        drop(state);
        call(called);
        match seat.verdict() {
            verdict @ (GRANTED | VISITING) => Asked::Granted(self.slot(ticket, verdict == VISITING)),
            _ => Asked::Queued(Queued { cores: Arc::clone(self), ticket, seat, looks_again_after }),
        }
    }

    /// For the calling thread.
    fn slot(self: &Arc<Cores>, ticket: Ticket, shares_core: bool) -> Slot {
        Slot { cores: Arc::clone(self), ticket: Some(ticket), visit_began: shares_core.then(thread_cpu_time) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn add_device(&mut self, device: Device, slots: usize, visits: Visits) {
        if self.ledger.add_device(device, slots, visits) {
            self.gauges.push((device, SlotGauges::new(device)));
        }
    }

    fn settle(&mut self, now: Instant) -> Called {
        let State { ledger, wishes, seats, .. } = self;
        let wish = |account: AccountId| match &wishes[account.number()] {
            Some(wish) => wish(),
            None => Wish::Work { deadline: None },
        };
        let settled = ledger.settle(now, wish);
        let called = settled.into_iter().filter_map(|(ticket, outcome)| {
            let index = seats.iter().position(|(waiting, _)| *waiting == ticket)?;
            let (_, seat) = seats.swap_remove(index);
            let verdict = match outcome {
                Outcome::Granted if ledger.shares_core(ticket) => VISITING,
                Outcome::Granted => GRANTED,
                Outcome::Dismissed => DISMISSED,
            };
            seat.verdict.store(verdict, Ordering::Release);
            Some(seat)
        });
        called.collect()
    }
}

fn call(called: Called) {
    for seat in called {
        seat.thread.unpark();
    }
}

// === impl Share ===

impl Share {
    /// Asks for slots for a run.
    pub(crate) fn ask(&self, placement: Placement) -> Asked {
        let slots = match placement.device {
            Device::Socket(_) => placement.threads,
            Device::Gpu(_) => 1,
        };
        let class = Class::Serving;
        self.cores.ask(Claim { account: self.account, device: placement.device, slots, class })
    }

    /// More comes than the cores can do, of whichever model.
    pub(crate) fn is_refusing(&self, now: Instant) -> bool {
        self.cores.is_refusing(now)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.cores.lock();
        state.ledger.close(self.account);
        let wish = state.wishes[self.account.number()].take();
        drop(state);
        // What it refers to may be freed with it.
        drop(wish);
    }
}

// === impl Slot ===

impl Slot {
    /// CPU time that a visitor has used.
    fn visited(&self) -> Option<Duration> {
        self.visit_began.map(|began| thread_cpu_time().saturating_sub(began))
    }

    /// Gives back and asks for as much again: others go first where it is their turn.
    pub(crate) fn ask_again(mut self) -> Asked {
        let now = Instant::now();
        let visited = self.visited();
        let mut state = self.cores.lock();
        let held = self.ticket.take().expect("slots are held until they are given back; this is a bug");
        match state.ledger.ask_again(held, now, visited) {
            Ok(ticket) => {
                let shares_core = state.ledger.shares_core(ticket);
                drop(state);
                self.ticket = Some(ticket);
                self.visit_began = shares_core.then(thread_cpu_time);
                Asked::Granted(self)
            }
            Err(ticket) => self.cores.queue(state, ticket, now),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let now = Instant::now();
        let visited = self.visited();
        let mut state = self.cores.lock();
        state.ledger.release(ticket, now, visited);
        if state.ledger.has_waiters() {
            let called = state.settle(now);
            drop(state);
            call(called);
        }
    }
}

// === impl Queued ===

impl Queued {
    /// The slots, once they are granted; `None` when there is nothing to run any more.
    pub(crate) fn wait(self) -> Option<Slot> {
        while self.seat.verdict() == WAITING {
            let Some(after) = self.looks_again_after else {
                std::thread::park();
                continue;
            };
            std::thread::park_timeout(after);
            if self.seat.verdict() == WAITING {
                let called = self.cores.lock().settle(Instant::now());
                call(called);
            }
        }
        self.granted()
    }

    /// The same; also `None` when it took too long.
    fn wait_at_most(self, patience: Duration) -> Option<Slot> {
        let patience_ends = Instant::now() + patience;
        while self.seat.verdict() == WAITING {
            let left = patience_ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut state = self.cores.lock();
                if state.ledger.leave(self.ticket) {
                    state.seats.retain(|(waiting, _)| *waiting != self.ticket);
                    return None;
                }
            }
            std::thread::park_timeout(left);
        }
        self.granted()
    }

    fn granted(self) -> Option<Slot> {
        let verdict = self.seat.verdict();
        (verdict != DISMISSED).then(|| self.cores.slot(self.ticket, verdict == VISITING))
    }
}

// === impl Seat ===

impl Seat {
    fn verdict(&self) -> u8 {
        self.verdict.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[path = "cores_tests.rs"]
mod tests;
