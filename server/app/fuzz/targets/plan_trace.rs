//! Any text as recorded arrivals: those that are read are in order, with a row at least.
#![no_main]

use gristmill::plan_command::trace::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for model in [None, Some("a")] {
        match parse(text, model) {
            Ok(arrivals) => {
                assert!(!arrivals.is_empty() && arrivals.is_sorted_by_key(|arrival| arrival.at));
                assert!(arrivals.iter().all(|arrival| arrival.rows > 0));
            }
            Err(why) => assert!(!format!("{why:#}").is_empty(), "a fault has a text"),
        }
    }
});
