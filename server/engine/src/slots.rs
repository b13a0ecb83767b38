//! Who runs next when several models want the same cores: pure.
//!
//! A device has slots: one for each core that is granted, or a few for a GPU. A run holds one for each of its
//! threads. Whoever wants to run first has an account, one a version, which says how much it has used.
//!
//! The order among those who wait is that of earliest eligible deadline first (Stoica and Abdel-Wahab, 1995), with
//! a clock like that of start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): who is far ahead of its
//! weighted share of the time comes after all who are not; among the others the earliest deadline goes first. Work
//! without a deadline is due when it has waited in proportion to its own length, so that short runs pass long ones
//! and nobody waits for ever. Where the first one needs more slots than are free, others may use those only if they
//! are expected to be done by the time it could begin (EASY backfilling, Lifka 1995).
//!
//! Runs are not interrupted here, so a short one could wait for a whole long one. On a CPU it may therefore visit: see
//! [`visits`].

mod account;
mod device;
mod visits;

use std::time::{Duration, Instant};

use self::account::Account;
use self::device::DeviceSlots;
pub(crate) use self::visits::Visits;
use crate::backend::Device;

/// By how much of a device's time, divided by its weight, an account may be ahead of another that waits before
/// it has to let that one pass, whatever the deadlines say.
const LEAD_MAX: Duration = Duration::from_millis(100);

/// Work without a deadline is due when it has waited so many times as long as its runs take.
const PATIENCE: u32 = 4;

/// All devices, and those who use them or wait for them.
#[derive(Debug)]
pub(crate) struct Ledger {
    devices: Vec<DeviceSlots>,
    /// By number; those that were closed are used again.
    accounts: Vec<Option<Account>>,
    holders: Vec<Holder>,
    waiters: Vec<Waiter>,
    tickets: u64,
}

/// Names a holder or a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Names an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountId(usize);

/// Slots that somebody wants for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) account: AccountId,
    pub(crate) device: Device,
    /// No more than the device has are ever taken.
    pub(crate) slots: usize,
    pub(crate) class: Class,
}

/// Who goes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Runs that callers wait for.
    Serving,
    /// Loading and the like, on threads that leave their cores to others at once: takes what is left over, and
    /// what it has taken does not count for [`Class::Serving`].
    Background,
    /// The same, after all others, and never waited for: see [`Ledger::ask_spare`].
    Spare,
}

/// What an account has to run at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Work { deadline: Option<Instant> },
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Slots,
    /// Beside those that hold slots. It has one thread.
    Visitor,
}

/// What became of a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted,
    /// There is nothing to run for it any more.
    Dismissed,
}

#[derive(Debug)]
struct Holder {
    ticket: Ticket,
    claim: Claim,
    device: usize,
    place: Place,
    /// There were other runs on the device when it began.
    began_beside_others: bool,
    began: Instant,
    expected: Duration,
    /// CPU time that visitors took from its slots meanwhile.
    shared: Duration,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    claim: Claim,
    device: usize,
    since: Instant,
}

// === impl AccountId ===

impl AccountId {
    /// Small, and used again when the account is closed.
    pub(crate) fn number(self) -> usize {
        self.0
    }
}

// === impl Ledger ===

impl Ledger {
    /// Slots of a device that nobody ever waits for.
    pub(crate) const UNBOUNDED: usize = usize::MAX / 2;

    pub(crate) fn new() -> Ledger {
        let (devices, accounts, holders, waiters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ledger { devices, accounts, holders, waiters, tickets: 0 }
    }

    /// Adds a device of so many slots; false if it is there already.
    pub(crate) fn add_device(&mut self, device: Device, capacity: usize, visits: Visits) -> bool {
        let is_new = self.devices.iter().all(|known| known.device != device);
        if is_new {
            self.devices.push(DeviceSlots::new(device, capacity, visits));
        }
        is_new
    }

    /// A new account. Twice the weight, twice the time beside others that want all they can get.
    pub(crate) fn open(&mut self, weight: usize) -> AccountId {
        let account = Account::new(weight);
        match self.accounts.iter().position(Option::is_none) {
            Some(free) => {
                self.accounts[free] = Some(account);
                AccountId(free)
            }
            None => {
                self.accounts.push(Some(account));
                AccountId(self.accounts.len() - 1)
            }
        }
    }

    /// Ends an account that holds nothing and waits for nothing.
    pub(crate) fn close(&mut self, account: AccountId) {
        let closed = self.accounts[account.0].take();
        assert!(closed.is_some_and(|closed| closed.active == 0), "an account is closed last; this is a bug");
    }

    /// Grants at once, if the device has the slots and nobody waits for it who goes first.
    ///
    /// # Errors
    /// It has to wait: [`Ledger::settle`] says when its time has come.
    pub(crate) fn ask(&mut self, claim: Claim, now: Instant) -> Result<Ticket, Ticket> {
        let device = self.device(claim.device);
        let ticket = self.ticket();
        self.arrive(&claim, device);
        let place = if self.needs_no_slot(&claim, device) {
            Some(Place::Visitor)
        } else if self.may_begin(&claim, device) {
            Some(Place::Slots)
        } else {
            self.may_visit(&claim, device, now).then_some(Place::Visitor)
        };
        let Some(place) = place else {
            self.waiters.push(Waiter { ticket, claim, device, since: now });
            return Err(ticket);
        };
        self.grant(ticket, claim, device, place, now);
        Ok(ticket)
    }

    /// Grants at once, in the class of what is spare, if nobody waits for anything and the slots are free; or never.
    pub(crate) fn ask_spare(
        &mut self,
        account: AccountId,
        device: Device,
        slots: usize,
        now: Instant,
    ) -> Option<Ticket> {
        let claim = Claim { account, device, slots, class: Class::Spare };
        let device = self.device(device);
        if !self.may_begin(&claim, device) {
            return None;
        }
        let ticket = self.ticket();
        self.arrive(&claim, device);
        self.grant(ticket, claim, device, Place::Slots, now);
        Some(ticket)
    }

    /// Whether the slots are free and nobody waits for them who goes first.
    fn may_begin(&self, claim: &Claim, device: usize) -> bool {
        let goes_first = |waiter: &Waiter| {
            waiter.device == device && (waiter.claim.class == Class::Serving || claim.class != Class::Serving)
        };
        let of_device = &self.devices[device];
        of_device.needed(claim) <= of_device.free(claim.class) && !self.waiters.iter().any(goes_first)
    }

    /// Gives back what was granted and asks for as much again. Who does this is at no moment without a claim, so
    /// that what the account is behind the others is not forgotten.
    ///
    /// # Errors
    /// As [`Ledger::ask`].
    pub(crate) fn ask_again(
        &mut self,
        ticket: Ticket,
        now: Instant,
        cpu_time: Option<Duration>,
    ) -> Result<Ticket, Ticket> {
        let holder = self.holders.iter().find(|holder| holder.ticket == ticket);
        let claim = holder.expect("who asks again holds slots; this is a bug").claim;
        self.account(claim.account).active += 1;
        self.release(ticket, now, cpu_time);
        let asked = self.ask(claim, now);
        self.account(claim.account).active -= 1;
        asked
    }

    /// Takes a waiter away; false when it waits no more.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        match self.waiters.iter().position(|waiter| waiter.ticket == ticket) {
            Some(index) => {
                let waiter = self.waiters.swap_remove(index);
                self.account(waiter.claim.account).active -= 1;
                true
            }
            None => false,
        }
    }

    /// Gives back what was granted. `cpu_time` is what the run used of a core, where that was measured: it is
    /// needed where [`Ledger::shares_core`], and makes no difference for others.
    pub(crate) fn release(&mut self, ticket: Ticket, now: Instant, cpu_time: Option<Duration>) {
        let index = self.holders.iter().position(|holder| holder.ticket == ticket);
        let index = index.expect("what was granted is given back once; this is a bug");
        let Holder { claim, device, place, began, expected, shared, .. } = self.holders.swap_remove(index);
        let slots = self.devices[device].needed(&claim);
        *self.devices[device].used(claim.class, place) -= slots;
        let elapsed = now.saturating_duration_since(began);
        let took = match place {
            Place::Visitor => cpu_time.unwrap_or(elapsed).min(elapsed),
            Place::Slots => elapsed.saturating_sub(shared),
        };
        if place == Place::Visitor {
            self.take_off_hosts(device, took, now);
        }
        let account = self.account(claim.account);
        account.active -= 1;
        if claim.class == Class::Serving {
            account.used = account.used - account.cost(expected, slots) + account.cost(took, slots);
            account.learn(took);
        }
    }

    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Slots of a device, and how many serving runs use, with one for each visitor.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (Device, usize, usize)> {
        let in_use = |device: &DeviceSlots| device.serving + device.visitors;
        self.devices.iter().map(move |device| (device.device, device.capacity, in_use(device)))
    }

    /// Grants what can be granted now, and sends away those who have nothing to run, in this order.
    pub(crate) fn settle(
        &mut self,
        now: Instant,
        mut wish: impl FnMut(AccountId) -> Wish,
    ) -> Vec<(Ticket, Outcome)> {
        let mut settled = Vec::new();
        for device in 0..self.devices.len() {
            while self.devices[device].serving < self.devices[device].capacity {
                match self.next(device, now, &mut wish) {
                    Some((ticket, outcome)) => {
                        self.conclude(ticket, outcome, Place::Slots, now);
                        settled.push((ticket, outcome));
                    }
                    None => break,
                }
            }
            while let Some((ticket, outcome)) = self.next_visitor(device, now, &mut wish) {
                self.conclude(ticket, outcome, Place::Visitor, now);
                settled.push((ticket, outcome));
            }
        }
        settled
    }

    /// The next thing to do for the waiters of a device.
    fn next(
        &self,
        device: usize,
        now: Instant,
        wish: &mut impl FnMut(AccountId) -> Wish,
    ) -> Option<(Ticket, Outcome)> {
        let of_class = |class| move |waiter: &&Waiter| waiter.device == device && waiter.claim.class == class;
        let mut serving: Vec<(&Waiter, Option<Instant>)> = Vec::new();
        for waiter in self.waiters.iter().filter(of_class(Class::Serving)) {
            match wish(waiter.claim.account) {
                Wish::Nothing => return Some((waiter.ticket, Outcome::Dismissed)),
                Wish::Work { deadline } => serving.push((waiter, deadline)),
            }
        }
        let used = |waiter: &Waiter| self.get(waiter.claim.account).used;
        let least = serving.iter().map(|(waiter, _)| used(waiter)).min();
        serving.sort_by_cached_key(|(waiter, deadline)| {
            let is_ahead = used(waiter) > least.unwrap_or(0).saturating_add(LEAD_MAX.as_nanos() as u64);
            let patience = self.get(waiter.claim.account).expected() * PATIENCE;
            (is_ahead, deadline.unwrap_or(waiter.since + patience), used(waiter), waiter.ticket)
        });
        let slots = &self.devices[device];
        let mut turns = serving.into_iter().map(|(waiter, _)| waiter);
        if let Some(first) = turns.next() {
            let needed = slots.needed(&first.claim);
            if needed <= slots.free(Class::Serving) {
                return Some((first.ticket, Outcome::Granted));
            }
            let begins = self.begins(device, needed, now);
            let filler = turns.find(|waiter| {
                slots.needed(&waiter.claim) <= slots.free(Class::Serving)
                    && now + self.get(waiter.claim.account).expected() <= begins
            });
            return filler.map(|waiter| (waiter.ticket, Outcome::Granted));
        }
        let mut background = self.waiters.iter().filter(of_class(Class::Background));
        let oldest = background.find(|waiter| slots.needed(&waiter.claim) <= slots.free(Class::Background));
        oldest.map(|waiter| (waiter.ticket, Outcome::Granted))
    }

    /// When so many slots of the device are expected to be free. A run that is overdue is expected to take as long
    /// again as it has taken.
    fn begins(&self, device: usize, needed: usize, now: Instant) -> Instant {
        let slots = &self.devices[device];
        let serving = |holder: &&Holder| holder.device == device && visits::is_host(holder);
        let mut ends: Vec<(Instant, usize)> = self
            .holders
            .iter()
            .filter(serving)
            .map(|holder| {
                let elapsed = now.saturating_duration_since(holder.began).saturating_sub(holder.shared);
                let rest = if elapsed > holder.expected { elapsed } else { holder.expected - elapsed };
                (now + rest, slots.needed(&holder.claim))
            })
            .collect();
        ends.sort();
        let mut free = slots.free(Class::Serving);
        for (end, freed) in ends {
            free += freed;
            if free >= needed {
                return end;
            }
        }
        now
    }

    fn conclude(&mut self, ticket: Ticket, outcome: Outcome, place: Place, now: Instant) {
        let index = self.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let Waiter { claim, device, .. } =
            self.waiters.remove(index.expect("it was found among them; this is a bug"));
        match outcome {
            Outcome::Granted => self.grant(ticket, claim, device, place, now),
            Outcome::Dismissed => self.account(claim.account).active -= 1,
        }
    }

    fn arrive(&mut self, claim: &Claim, device: usize) {
        let clock = self.devices[device].clock;
        let account = self.account(claim.account);
        if account.active == 0 {
            // Time that was not wanted is not owed.
            account.used = account.used.max(clock);
        }
        account.active += 1;
    }

    fn grant(&mut self, ticket: Ticket, claim: Claim, device: usize, place: Place, now: Instant) {
        let slots = self.devices[device].needed(&claim);
        let expected = self.get(claim.account).expected();
        let began_beside_others = self.holders.iter().any(|holder| holder.device == device);
        if claim.class == Class::Serving {
            let least = self.least_used(device).min(self.get(claim.account).used);
            let of_device = &mut self.devices[device];
            of_device.clock = of_device.clock.max(least);
            let account = self.account(claim.account);
            account.used += account.cost(expected, slots);
        }
        *self.devices[device].used(claim.class, place) += slots;
        let shared = Duration::ZERO;
        let holder =
            Holder { ticket, claim, device, place, began_beside_others, began: now, expected, shared };
        self.holders.push(holder);
    }

    /// By those who run or wait on a device.
    fn least_used(&self, device: usize) -> u64 {
        let holders = self.holders.iter().map(|holder| (holder.device, &holder.claim));
        let waiters = self.waiters.iter().map(|waiter| (waiter.device, &waiter.claim));
        let here =
            holders.chain(waiters).filter(|(on, claim)| *on == device && claim.class == Class::Serving);
        here.map(|(_, claim)| self.get(claim.account).used).min().unwrap_or(u64::MAX)
    }

    fn device(&self, device: Device) -> usize {
        let index = self.devices.iter().position(|known| known.device == device);
        index.expect("a device is added before anything runs on it; this is a bug")
    }

    fn get(&self, account: AccountId) -> &Account {
        self.accounts[account.0].as_ref().expect("an account is open while it is used; this is a bug")
    }

    fn account(&mut self, account: AccountId) -> &mut Account {
        self.accounts[account.0].as_mut().expect("an account is open while it is used; this is a bug")
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "slots_visit_tests.rs"]
mod visit_tests;

#[cfg(test)]
#[path = "slots_preemption_tests.rs"]
mod preemption_tests;
