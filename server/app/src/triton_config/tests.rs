//! What configurations come to, and how their faults read.

mod declared;
mod examples;
mod faults;
mod json;
mod notes;
mod signatures;
mod syntax;

use expect_test::Expect;

use super::*;

/// What a configuration says, one fact a line; what it does not say is left out.
fn summary(config: &TritonConfig) -> String {
    let mut lines = Vec::new();
    let mut say =
        |what: &str, value: Option<String>| lines.extend(value.map(|value| format!("{what}: {value}")));
    say("name", config.name.clone());
    say("model file", config.model_file.clone());
    say("versions", config.version_policy.as_ref().map(|policy| format!("{policy:?}")));
    say("batching", Some(format!("{:?}", config.batching)));
    say("dynamic batching", config.dynamic_batching.as_ref().map(|batching| format!("{batching:?}")));
    say("instances", config.instances.map(|instances| instances.to_string()));
    say("threads", config.threads.map(|threads| threads.to_string()));
    say("weight", config.weight.map(|weight| weight.to_string()));
    for provider in config.providers.iter().flatten() {
        say("provider", Some(format!("{} {:?}", provider.kind, provider.options)));
    }
    let tensor = |tensor: &DeclaredTensor| {
        let mut text = format!("{} {} {}", tensor.name, tensor.dtype, tensor.dims);
        if let Some(reshape) = &tensor.reshape {
            text.push_str(&format!(" as {reshape}"));
        }
        if tensor.optional {
            text.push_str(", optional");
        }
        if let Some(file) = &tensor.label_file {
            text.push_str(&format!(", labels in {file}"));
        }
        Some(text)
    };
    for input in &config.inputs {
        say("input", tensor(input));
    }
    for output in &config.outputs {
        say("output", tensor(output));
    }
    for sample in &config.warm_up {
        say("warm-up", Some(format!("{sample:?}")));
    }
    for note in &config.notes {
        say("note", Some(note.clone()));
    }
    lines.join("\n")
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&parse_pbtxt(text).map_or_else(|fault| fault, |config| summary(&config)));
}

fn check_json(text: &str, expected: Expect) {
    expected.assert_eq(&parse_json(text).map_or_else(|fault| fault, |config| summary(&config)));
}
