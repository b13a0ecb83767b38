//! Any text as Triton's model configuration, as `config.pbtxt` and as JSON: what is read is the same with blanks and
//! comments around it, and the engine can be told it.
#![no_main]

use gristmill::triton_config::{TritonConfig, parse_json, parse_pbtxt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(config) = check(parse_pbtxt(text)) {
        assert_eq!(parse_pbtxt(&format!("# again\n{text}\n#")), Ok(config));
    }
    if let Some(config) = check(parse_json(text)) {
        assert_eq!(parse_json(&format!("\n {text}\n")), Ok(config));
    }
});

fn check(parsed: Result<TritonConfig, String>) -> Option<TritonConfig> {
    match parsed {
        Ok(config) => {
            let tuning = config.tuning();
            let counts = [tuning.instances, tuning.threads, tuning.weight, tuning.batch_rows_max];
            assert!(counts.into_iter().all(|count| count != Some(0)), "every count is at least 1");
            Some(config)
        }
        Err(why) => {
            assert!(!why.is_empty(), "a fault has a text");
            None
        }
    }
}
