//! Any text as a file of tenants' limits: whoever has not asked before is admitted, whatever the limits.
#![no_main]

use std::time::{Duration, Instant};

use gristmill::limits::Limits;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let start = Instant::now();
    let limits = match Limits::parse(text, start) {
        Ok(limits) => limits,
        Err(why) => {
            assert!(!why.is_empty(), "a fault has a text");
            return;
        }
    };
    let nobody = HeaderMap::new();
    let first = limits.admit(&nobody, "m", start);
    assert!(first.is_ok(), "the first request is admitted");
    for later in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1 << 40)] {
        // Refused or not, it is answered.
        drop(limits.admit(&nobody, "m", start + later));
    }
});
