//! Panics inside tract as errors: many of its operators check sizes and indices that way, and a client's bad index must not print a backtrace.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::library::one_line;

thread_local! {
    /// Whether this thread's panics are caught here, and so reported by whoever called.
    static CAUGHT_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`, and gives the text of its panic as the error. What `work` changes must not be used
/// again after a panic, or be made anew.
pub(crate) fn as_errors<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    pass_over_caught_panics();
    let before = CAUGHT_HERE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT_HERE.set(before);
    result.map_err(|panic| text(&*panic))
}

/// Puts a hook before the process's own that says nothing of panics which come back as errors.
fn pass_over_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if CAUGHT_HERE.get() {
                tracing::debug!(target: "tract", "{}", one_line(panic));
            } else {
                before(panic);
            }
        }));
    });
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    one_line(&text.unwrap_or("it panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        assert_eq!(as_errors(|| 7), Ok(7));
        let index = std::hint::black_box(5);
        let error = as_errors(|| [1, 2, 3][index]).unwrap_err();
        assert_eq!(error, "index out of bounds: the len is 3 but the index is 5");
        assert!(!CAUGHT_HERE.get());
    }
}
