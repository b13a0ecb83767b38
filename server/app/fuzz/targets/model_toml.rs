//! Any text as a `model.toml`: what parses is within bounds, and reads the same when it is written again.
#![no_main]

use std::time::Instant;

use gristmill::config::parse_model_toml;
use libfuzzer_sys::fuzz_target;
use toml::Table;

fuzz_target!(|text: &str| {
    let parsed = match parse_model_toml(text) {
        Ok(parsed) => parsed,
        Err(why) => {
            assert!(!why.is_empty(), "a fault has a text");
            return;
        }
    };
    let tuning = &parsed.tuning;
    let counts = [
        tuning.instances,
        tuning.threads,
        tuning.batch_rows_max,
        tuning.queue_rows_max,
        tuning.queue_bytes_max,
    ];
    assert!(counts.into_iter().all(|count| count != Some(0)), "every count is at least 1");
    if let (Some(batch), Some(queue)) = (tuning.batch_rows_max, tuning.queue_rows_max) {
        assert!(batch <= queue, "a queue holds a batch");
    }
    let lifecycle = &parsed.lifecycle;
    let times = [tuning.batch_delay, tuning.queue_time_max, tuning.run_timeout, tuning.slo];
    let times = times.into_iter().flatten().chain([lifecycle.keep_previous]);
    let mut times = times.chain(lifecycle.watch.as_ref().map(|watch| watch.period));
    assert!(times.all(|time| Instant::now().checked_add(time).is_some()), "a clock can add every time");
    let written = text.parse::<Table>().expect("it was parsed before").to_string();
    assert_eq!(parse_model_toml(&written), Ok(parsed), "{written}");
});
