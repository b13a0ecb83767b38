//! Any text as a `model.toml`: what parses is within bounds, and reads the same when it is written again.
#![no_main]

use gristmill::config::{ModelToml, parse_model_toml};
use libfuzzer_sys::fuzz_target;
use toml::{Table, Value};

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
    let written = written(&parsed).to_string();
    assert_eq!(parse_model_toml(&written), Ok(parsed), "{written}");
});

fn written(parsed: &ModelToml) -> Table {
    let integer = |count: Option<usize>| {
        count.map(|count| Value::Integer(i64::try_from(count).expect("it was read from a TOML integer")))
    };
    let table = |entries: Vec<(&str, Option<Value>)>| -> Table {
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    };
    let ModelToml { backend, providers, spinning, tuning } = parsed;
    let providers = providers.as_ref().map(|providers| {
        let providers = providers.iter().map(|provider| {
            let options = provider.options.iter().map(|(key, value)| (key.clone(), value.clone().into()));
            let options: Table = options.collect();
            let name = provider.kind.name().into();
            Value::Table(table(vec![("name", Some(name)), ("options", Some(options.into()))]))
        });
        Value::Array(providers.collect())
    });
    // TOML has no unit for time; nanoseconds lose nothing.
    let delay = tuning.batch_delay.map(|delay| Value::String(format!("{}ns", delay.as_nanos())));
    let batching = table(vec![("rows_max", integer(tuning.batch_rows_max)), ("delay", delay)]);
    let queue = table(vec![
        ("rows_max", integer(tuning.queue_rows_max)),
        ("bytes_max", integer(tuning.queue_bytes_max)),
    ]);
    table(vec![
        ("backend", backend.map(|backend| backend.name().into())),
        ("providers", providers),
        ("spinning", spinning.map(Value::Boolean)),
        ("instances", integer(tuning.instances)),
        ("threads", integer(tuning.threads)),
        ("batching", Some(batching.into())),
        ("queue", Some(queue.into())),
    ])
}
