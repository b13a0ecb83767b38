//! Handles that are resolved when one of them is first used: series of what nobody uses take memory and make scrapes long.

use std::ops::Deref;
use std::sync::OnceLock;

/// Handles of one owner. All of them are resolved together, so that what has been used once shows every series.
pub(crate) struct OnUse<O, H> {
    owner: O,
    resolve: fn(&O) -> H,
    resolved: OnceLock<H>,
}

// === impl OnUse ===

impl<O, H> OnUse<O, H> {
    pub(crate) fn new(owner: O, resolve: fn(&O) -> H) -> OnUse<O, H> {
        OnUse { owner, resolve, resolved: OnceLock::new() }
    }

    /// The handles, if one of them has been used.
    pub(crate) fn if_used(&self) -> Option<&H> {
        self.resolved.get()
    }
}

impl<O, H> Deref for OnUse<O, H> {
    type Target = H;

    /// Counts as use.
    fn deref(&self) -> &H {
        self.resolved.get_or_init(|| (self.resolve)(&self.owner))
    }
}
