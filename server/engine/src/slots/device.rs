//! The slots of one device, and how many of them each class holds.

use super::{Claim, Class, Place, Visits};
use crate::backend::Device;

#[derive(Debug)]
pub(super) struct DeviceSlots {
    pub(super) device: Device,
    pub(super) visits: Visits,
    pub(super) capacity: usize,
    pub(super) serving: usize,
    pub(super) background: usize,
    pub(super) spare: usize,
    /// Runs beside those that hold slots.
    pub(super) visitors: usize,
    /// The least that anybody had used who ran or waited when slots were granted: what an account that comes back
    /// after a pause begins with.
    pub(super) clock: u64,
}

// === impl DeviceSlots ===

impl DeviceSlots {
    pub(super) fn new(device: Device, capacity: usize, visits: Visits) -> DeviceSlots {
        DeviceSlots { device, visits, capacity, serving: 0, background: 0, spare: 0, visitors: 0, clock: 0 }
    }

    pub(super) fn needed(&self, claim: &Claim) -> usize {
        claim.slots.clamp(1, self.capacity)
    }

    pub(super) fn free(&self, class: Class) -> usize {
        match class {
            Class::Serving => self.capacity - self.serving,
            Class::Background => self.left().saturating_sub(self.background),
            Class::Spare => self.left().saturating_sub(self.background + self.spare),
        }
    }

    /// How much of the device a class uses, in slots or beside them.
    pub(super) fn used(&mut self, class: Class, place: Place) -> &mut usize {
        match (class, place) {
            (_, Place::Visitor) => &mut self.visitors,
            (Class::Serving, Place::Slots) => &mut self.serving,
            (Class::Background, Place::Slots) => &mut self.background,
            (Class::Spare, Place::Slots) => &mut self.spare,
        }
    }

    /// What runs that callers wait for leave of it.
    fn left(&self) -> usize {
        self.capacity.saturating_sub(self.serving + self.visitors)
    }
}
