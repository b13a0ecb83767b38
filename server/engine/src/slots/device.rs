//! The slots of one device, and how many of them each class holds.

use super::{Claim, Class};
use crate::backend::Device;

/// Whether a device's runs can be interrupted for a short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visits {
    OneAtATime,
    Never,
}

#[derive(Debug)]
pub(super) struct DeviceSlots {
    pub(super) device: Device,
    pub(super) visits: Visits,
    pub(super) capacity: usize,
    pub(super) serving: usize,
    pub(super) background: usize,
    pub(super) spare: usize,
    /// Somebody runs beside those that hold slots.
    pub(super) has_visitor: bool,
    /// The least that anybody had used who ran or waited when slots were granted: what an account that comes back
    /// after a pause begins with.
    pub(super) clock: u64,
}

// === impl DeviceSlots ===

impl DeviceSlots {
    pub(super) fn new(device: Device, capacity: usize, visits: Visits) -> DeviceSlots {
        DeviceSlots {
            device,
            visits,
            capacity,
            serving: 0,
            background: 0,
            spare: 0,
            has_visitor: false,
            clock: 0,
        }
    }

    pub(super) fn needed(&self, claim: &Claim) -> usize {
        claim.slots.clamp(1, self.capacity)
    }

    pub(super) fn free(&self, class: Class) -> usize {
        match class {
            Class::Serving => self.capacity - self.serving,
            Class::Background => self.capacity.saturating_sub(self.serving + self.background),
            Class::Spare => self.capacity.saturating_sub(self.serving + self.background + self.spare),
        }
    }
}
