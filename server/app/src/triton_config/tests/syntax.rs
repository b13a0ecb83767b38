//! Faults of the syntax, and fields and values that do not exist.

use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[test]
fn the_syntax_is_checked_with_its_lines() {
    check("name: \"a\"\n}", expect!["line 2: expected a field's name, got '}'"]);
    check("input [\n {\n  name: \"x\"\n]", expect!["line 4: expected a field's name or '}', got ']'"]);
    check("name \"a\"", expect![[r#"line 1: expected ':' or '{' after 'name', got "a""#]]);
    check("name:", expect!["line 1: expected a value for 'name', got the end of the file"]);
    check("dims: [ 1 2 ]", expect!["line 1: expected ',' or ']' in the list of 'dims', got '2'"]);
    check("# a\n# b\nname: \"a", expect![[r#"line 3: a string is not closed with ""#]]);
    check("name: \"a\nb\"", expect![[r#"line 1: a string is not closed with ""#]]);
    check("name: 'a\\q'", expect![[r#"line 1: unknown escape \q in a string"#]]);
    check("name: '\\xff'", expect!["line 1: a string is not UTF-8"]);
    check("\n// a\nname: 'a'", expect!["line 2: unexpected '/': comments begin with #"]);
    check("7: 'a'", expect!["line 1: expected a field's name, got '7'"]);
    check("name: - }", expect!["line 1: expected a number after '-', got '}'"]);
    check("name: ü", expect!["line 1: unexpected character 'ü'"]);
    check(&"input {".repeat(40), expect!["line 1: 'input' is nested too deep: expected at most 32 levels"]);
}

#[test]
fn fields_and_values_are_checked_with_their_lines() {
    check(
        "name: 'a'\nmax_batchsize: 8",
        expect![
            "line 2: max_batchsize: there is no such field: expected one of name, platform, version_policy, max_batch_size, input, output, instance_group, default_model_filename, cc_model_filenames, metric_tags, dynamic_batching, optimization, sequence_batching, parameters, ensemble_scheduling, model_warmup, backend, model_operations, model_transaction_policy, batch_input, batch_output, model_repository_agents, response_cache, runtime, model_metrics"
        ],
    );
    check(
        "input [\n { name: 'x'\n   dim: [ 1 ] } ]",
        expect![
            "line 3: input[0].dim: there is no such field: expected one of name, data_type, format, dims, reshape, is_shape_tensor, allow_ragged_batch, optional, is_non_linear_format_io"
        ],
    );
    check(
        "version_policy { all { versions: 1 } }",
        expect!["line 1: version_policy.all.versions: there is no such field: no field can be given here"],
    );
    check("max_batch_size: 8\nmax_batch_size: 8", expect!["line 2: max_batch_size: comes twice"]);
    check(
        "max_batch_size: '8'",
        expect![[
            r#"line 1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got "8""#
        ]],
    );
    check(
        "max_batch_size: 8.5",
        expect!["line 1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got 8.5"],
    );
    check(
        "max_batch_size: 08",
        expect!["line 1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got 08"],
    );
    check(
        "max_batch_size: 4294967296",
        expect![
            "line 1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got 4294967296"
        ],
    );
    check(
        "max_batch_size: { }",
        expect![
            "line 1: max_batch_size: expected a whole number from -2147483648 to 2147483647, got a group of fields"
        ],
    );
    check(
        "max_batch_size: -1",
        expect!["line 1: max_batch_size: expected 1 to 1048576, or 0 for no batch axis, got -1"],
    );
    check("name: a", expect!["line 1: name: expected a string in quotes, got a"]);
    check("input: 'x'", expect![[r#"line 1: input[0]: expected a group of fields in braces, got "x""#]]);
    check(
        "input { data_type: FP32 }",
        expect![
            "line 1: input[0].data_type: expected one of TYPE_INVALID, TYPE_BOOL, TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16, got FP32"
        ],
    );
    check(
        "input { data_type: 99 }",
        expect![
            "line 1: input[0].data_type: expected one of TYPE_INVALID, TYPE_BOOL, TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16, got 99"
        ],
    );
    check("input { optional: yes }", expect!["line 1: input[0].optional: expected true or false, got yes"]);
    check(
        "parameters { value { string_value: 'a' } }",
        expect!["line 1: parameters: expected a key in each of its groups"],
    );
    check(
        "parameters: 'a'",
        expect![[r#"line 1: parameters: expected a group with key and value, got "a""#]],
    );
    check("parameters { key: 'a' }\nparameters { key: 'a' }", expect!["line 2: parameters[a]: comes twice"]);
    check("parameters { key: 'a' key: 'b' }", expect!["line 1: parameters.key: comes twice"]);
    check(
        "parameters { name: 'a' }",
        expect!["line 1: parameters.name: there is no such field: expected one of key, value"],
    );
    check(
        "model_metrics { metric_control { histogram_options { buckets: [ a ] } } }",
        expect![
            "line 1: model_metrics.metric_control[0].histogram_options.buckets[0]: expected a number, got a"
        ],
    );
}

/// Parts of configurations and of faults, apart by blanks.
const PIECES: &str = r#"{ } [ ] < > : , ; - " ' \ # 0 07 0x 1e+3 8 -1 true null \x4 \u00e9 \777 ü "a" 'x' "input"
    "max_batch_size" name input output dims data_type TYPE_FP32 reshape shape max_batch_size dynamic_batching
    preferred_batch_size priority_queue_policy key value instance_group count gpus kind KIND_GPU parameters
    string_value optimization model_warmup inputs batch_size zero_data version_policy specific versions"#;

proptest! {
    /// Both forms can come from a client.
    #[test]
    fn no_text_panics(
        pieces in vec(select(PIECES.split_whitespace().collect::<Vec<_>>()), 0..40),
        noise in ".{0,8}",
        at in 0..40usize,
    ) {
        let mut pieces = pieces;
        pieces.insert(at.min(pieces.len()), &noise);
        for separator in ["", " ", "\n"] {
            let text = pieces.join(separator);
            parse_pbtxt(&text).ok();
            parse_json(&text).ok();
        }
    }
}

#[test]
fn strings_join_and_have_escapes() {
    let name = |text: &str| parse_pbtxt(&format!("name: {text}")).unwrap().name.unwrap();
    assert_eq!(name("\"a\" # one\n 'b'\"\""), "ab");
    assert_eq!(name(r#""\a\b\f\n\r\t\v\?\\\'\"""#), "\x07\x08\x0c\n\r\t\x0b?\\'\"");
    assert_eq!(name(r"'\101\x42\u00e9\U0001F600\303\xA9ü'"), "ABé😀éü");
}
