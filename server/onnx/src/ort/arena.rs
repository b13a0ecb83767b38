//! When the memory that ONNX Runtime keeps for later runs is given back: after runs that were much larger than others, and when nobody asks.
//!
//! The runtime's arena grows to what the largest run needed, and keeps it for as long as its session lives. A run
//! with `memory.enable_memory_arena_shrinkage` frees what is unused when it ends
//! (onnxruntime_run_options_config_keys.h).

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::Session;

use super::values::check;

/// The arena of a session, as one of its instances uses it.
pub(crate) struct Arena {
    allocator: Allocator,
    usage: Usage,
}

/// How large runs are, by the bytes of their inputs.
#[derive(Debug, Default)]
struct Usage {
    /// Decayed mean of the last runs.
    usual: f64,
    /// The largest since memory was given back.
    largest: f64,
}

/// Arenas below this many bytes are not worth it.
pub(super) const WORTH_BYTES: u64 = 32 << 20;
/// How much larger than usual a run must have been. Runs that come again and again are usual, and keep their memory.
const TIMES_USUAL: f64 = 2.0;
const WEIGHT_OF_LAST: f64 = 1.0 / 16.0;
const TOTAL: &CStr = c"TotalAllocated";

// === impl Arena ===

impl Arena {
    /// `session` must outlive it: both belong to one instance.
    ///
    /// # Errors
    /// What the runtime reports.
    pub(crate) fn new(session: &Session) -> Result<Arena, ort::Error> {
        let allocator = Allocator::new(session, MemoryInfo::default())?;
        Ok(Arena { allocator, usage: Usage::default() })
    }

    /// Whether the run that begins, whose inputs have so many bytes, is to give memory back when it ends.
    pub(crate) fn begin(&mut self, bytes: usize) -> bool {
        self.usage.begin(bytes as f64) && self.is_worth_it()
    }

    /// Whether it holds enough for that.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.total_bytes().is_some_and(|bytes| bytes >= WORTH_BYTES)
    }

    /// What it has from the system; `None` where it is switched off or the runtime does not say.
    #[expect(unsafe_code, reason = "calls of ONNX Runtime's C interface")]
    pub(super) fn total_bytes(&self) -> Option<u64> {
        let api = ort::api();
        let mut pairs = ptr::null_mut();
        // SAFETY: the allocator is alive; the pairs are read before they are released, once.
        unsafe {
            check((api.AllocatorGetStats)(self.allocator.ptr(), &mut pairs)).ok()?;
            let value = (api.GetKeyValue)(pairs, TOTAL.as_ptr());
            let total = (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().parse().ok());
            (api.ReleaseKeyValuePairs)(pairs);
            total.flatten()
        }
    }
}

// === impl Usage ===

impl Usage {
    /// Whether memory is to be given back. Then this run counts as the largest since.
    fn begin(&mut self, bytes: f64) -> bool {
        match self.largest {
            0.0 => self.usual = bytes,
            _ => self.usual += (bytes - self.usual) * WEIGHT_OF_LAST,
        }
        self.largest = self.largest.max(bytes);
        let is_outsized = self.largest > TIMES_USUAL * self.usual.max(bytes);
        if is_outsized {
            self.largest = bytes;
        }
        is_outsized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these runs give memory back, by their places.
    fn check(runs: impl IntoIterator<Item = usize>, expected: &[usize]) {
        let mut usage = Usage::default();
        let gives = runs.into_iter().enumerate().filter(|(_, bytes)| usage.begin(*bytes as f64));
        assert_eq!(gives.map(|(place, _)| place).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_run_after_an_outsized_one_gives_its_memory_back() {
        check([1, 1, 100, 1, 1, 1], &[3]);
        check([1, 100, 100, 100, 1, 1], &[4]);
        check([100].into_iter().chain([1; 20]), &[11]);
    }

    #[test]
    fn large_runs_that_come_again_and_again_keep_theirs() {
        check([8, 1, 8, 1, 8, 8, 1, 8].into_iter().cycle().skip(40).take(400), &[]);
        check(vec![5; 100], &[]);
        check((1..100).collect::<Vec<_>>(), &[]);
    }
}
