//! Runs beside those that hold the slots of a CPU: the kernel interrupts one for the other.
//!
//! While a visitor waits for the core that it shares, time passes that it does not use: only the CPU time of its thread
//! is charged and learned, and that much is taken off the time of those it ran beside.

use std::time::{Duration, Instant};

use super::{Account, AccountId, Claim, Class, Holder, LEAD_MAX, Ledger, Outcome, Place, Ticket, Wish};

/// Whether a device's runs can be interrupted for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visits {
    Never,
    /// Runs shorter than `at_once` always visit: the kernel lets them in where the others have less weight, so that a
    /// slot would only keep them waiting, and those who need slots after them. Others visit much longer ones, as many at
    /// a time as there are slots.
    Allowed {
        at_once: Duration,
    },
}

/// A run visits those that take at least so many times as long.
const TIMES_AS_LONG: u32 = 2;
/// Waiters do not look again more often.
const LOOKS_AGAIN_MIN: Duration = Duration::from_millis(1);

// === impl Ledger ===

impl Ledger {
    /// Whether what was granted may wait for its core, so that it is to be measured how much it has of one.
    pub(crate) fn shares_core(&self, ticket: Ticket) -> bool {
        let holder = self.holders.iter().find(|holder| holder.ticket == ticket);
        holder.is_some_and(|holder| holder.place == Place::Visitor && holder.began_beside_others)
    }

    /// Whether a run needs no slot at all.
    pub(super) fn needs_no_slot(&self, claim: &Claim, device: usize) -> bool {
        let of_device = &self.devices[device];
        let Visits::Allowed { at_once } = of_device.visits else { return false };
        let is_short = |account: &Account| account.run.is_some_and(|run| run < at_once);
        claim.class == Class::Serving
            && of_device.needed(claim) == 1
            && is_short(self.get(claim.account))
            && !self.is_ahead(claim.account, device)
    }

    /// Whether a run that needs a slot, and has to wait for one, may begin beside those in progress.
    pub(super) fn may_visit(&self, claim: &Claim, device: usize, now: Instant) -> bool {
        let of_device = &self.devices[device];
        let is_asked = claim.class == Class::Serving && of_device.needed(claim) == 1;
        let is_full = of_device.free(Class::Serving) == 0;
        if of_device.visits == Visits::Never
            || !is_asked
            || !is_full
            || self.long_visitors(device) >= of_device.capacity
        {
            return false;
        }
        let Some(run) = self.get(claim.account).run else { return false };
        let host = self.shortest_host(device, now);
        !self.is_ahead(claim.account, device) && host.is_some_and(|host| run * TIMES_AS_LONG <= host)
    }

    /// How long the shortest of the runs takes that hold slots. One that is overdue takes at least as long as it has
    /// taken.
    fn shortest_host(&self, device: usize, now: Instant) -> Option<Duration> {
        let hosts = self.holders.iter().filter(|holder| holder.device == device && is_host(holder));
        hosts
            .map(|host| {
                host.expected.max(now.saturating_duration_since(host.began).saturating_sub(host.shared))
            })
            .min()
    }

    /// After how long a waiter may be let in though nothing else happened: those that it waits for may be overdue.
    pub(crate) fn looks_again_after(&self, ticket: Ticket) -> Option<Duration> {
        let waiter = self.waiters.iter().find(|waiter| waiter.ticket == ticket)?;
        let of_device = &self.devices[waiter.device];
        let may_ever = of_device.visits != Visits::Never && of_device.needed(&waiter.claim) == 1;
        let run = self.get(waiter.claim.account).run.filter(|_| may_ever)?;
        Some((run * TIMES_AS_LONG).max(LOOKS_AGAIN_MIN))
    }

    /// The next of the waiters of a device who may visit, and what becomes of it.
    pub(super) fn next_visitor(
        &self,
        device: usize,
        now: Instant,
        wish: &mut impl FnMut(AccountId) -> Wish,
    ) -> Option<(Ticket, Outcome)> {
        let here = self.waiters.iter().filter(|waiter| waiter.device == device);
        let mut visitors = here.filter(|waiter| {
            self.needs_no_slot(&waiter.claim, device) || self.may_visit(&waiter.claim, device, now)
        });
        visitors.next().map(|waiter| match wish(waiter.claim.account) {
            Wish::Nothing => (waiter.ticket, Outcome::Dismissed),
            Wish::Work { .. } => (waiter.ticket, Outcome::Granted),
        })
    }

    /// A visitor took so much of the cores: that was not the time of those who hold them, each for its part.
    pub(super) fn take_off_hosts(&mut self, device: usize, took: Duration, now: Instant) {
        let slots = &self.devices[device];
        let hosts = self.holders.iter_mut();
        for host in hosts.filter(|host| host.device == device && is_host(host)) {
            let meanwhile = took.min(now.saturating_duration_since(host.began));
            // How many threads it has makes no difference: all wait for the one that was interrupted.
            let part = slots.needed(&host.claim) as f64 / slots.capacity as f64;
            host.shared += meanwhile.mul_f64(part);
        }
    }

    /// Whether it has had more than its share, so that others go first.
    fn is_ahead(&self, account: AccountId, device: usize) -> bool {
        let lead = self.get(account).used.saturating_sub(self.least_used(device));
        lead > LEAD_MAX.as_nanos() as u64
    }

    /// Those that are not let in at once.
    fn long_visitors(&self, device: usize) -> usize {
        let Visits::Allowed { at_once } = self.devices[device].visits else { return 0 };
        let is_visitor = |holder: &&Holder| holder.device == device && holder.place == Place::Visitor;
        self.holders.iter().filter(is_visitor).filter(|visitor| visitor.expected >= at_once).count()
    }
}

/// Whether it holds slots for a run that callers wait for.
pub(super) fn is_host(holder: &Holder) -> bool {
    holder.claim.class == Class::Serving && holder.place == Place::Slots
}
