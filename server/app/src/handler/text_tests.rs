//! Tests of `[input]` sections for texts against signatures and tokenizers, and of what becomes of texts; ids are
//! compared with those of Python's `tokenizers` in `tests/python/test_texts.py`.

use std::borrow::Cow;
use std::fs;

use expect_test::{Expect, expect};
use gristmill_engine::error::InferError;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, TensorSpec};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Handler, text};
use crate::config::parse_model_toml;

const TEXT: &str = "input = { kind = \"text\", tokens_max = 6 }";
const USUAL: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// Words by their places, between `[CLS]` and `[SEP]`.
fn tokenizer() -> Value {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"];
    let vocabulary: Value =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |id: usize| json!({"id": words[id], "ids": [id], "tokens": [words[id]]});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "pair": [],
            "special_tokens": {"[CLS]": special(2), "[SEP]": special(3)},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

/// Negative sizes are dynamic.
fn signature(names: &[&str], dtype: DType, shape: &[i64]) -> Signature {
    let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed);
    let spec = |name: &&str| TensorSpec {
        name: (*name).to_owned(),
        dtype,
        shape: Some(shape.iter().map(dim).collect()),
        optional: false,
        labels: Vec::new(),
    };
    Signature { inputs: names.iter().map(spec).collect(), outputs: Vec::new(), batch: BatchAxis::Rows }
}

fn usual() -> Signature {
    signature(&USUAL, DType::Int64, &[-1, -1])
}

/// The tokenizer is in the directory of the version.
fn bind(toml: &str, signature: &Signature, tokenizer: &Value) -> Result<Handler, String> {
    let model = TempDir::new().unwrap();
    let version = model.path().join("1");
    fs::create_dir(&version).unwrap();
    fs::write(version.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(version.join("picture.json"), b"GIF89a").unwrap();
    parse_model_toml(toml)?
        .sections
        .bind(signature, &version, model.path())
        .map_err(|why| why.replace(model.path().to_str().unwrap(), "MODEL"))
}

fn check(toml: &str, signature: &Signature, tokenizer: &Value, expected: Expect) {
    expected.assert_eq(&match bind(toml, signature, tokenizer) {
        Ok(handler) => handler.notes().join("\n"),
        Err(why) => why,
    });
}

fn check_read(toml: &str, signature: &Signature, tokenizer: &Value, texts: &[&str], expected: Expect) {
    let handler = bind(toml, signature, tokenizer).unwrap();
    let texts: Vec<Cow<'_, str>> = texts.iter().copied().map(Cow::Borrowed).collect();
    let shown = match handler.read_texts(&texts).unwrap() {
        Ok(inputs) => inputs
            .iter()
            .map(|input| {
                let (dtype, data) = (input.tensor.dtype(), input.tensor.data());
                let values: Vec<i64> = match dtype {
                    DType::Int64 => {
                        data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
                    }
                    _ => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
                };
                format!("{} {dtype} {:?} {values:?}\n", input.name, input.tensor.shape())
            })
            .collect(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn most_follows_from_the_file_and_the_model() {
    let plain = "input = { kind = \"text\" }";
    check(
        TEXT,
        &usual(),
        &tokenizer(),
        expect![
            "text by tokenizer.json, which knows 7 tokens, into input_ids, attention_mask, token_type_ids: at most 6 tokens a text, filled up to the longest text of a request"
        ],
    );
    check(
        plain,
        &signature(&["x"], DType::Int32, &[8]),
        &tokenizer(),
        expect![
            "text by tokenizer.json, which knows 7 tokens, into x: at most 8 tokens a text, filled up to one of [8]"
        ],
    );
    let mut file = tokenizer();
    file["truncation"] =
        json!({"max_length": 20, "strategy": "OnlySecond", "stride": 30, "direction": "Right"});
    file["padding"] = json!({
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    });
    check(
        plain,
        &usual(),
        &file,
        expect![
            "text by tokenizer.json, which knows 7 tokens, into input_ids, attention_mask, token_type_ids: at most 20 tokens a text, filled up to multiples of 8"
        ],
    );
    check(
        "input = { kind = \"text\", lengths = [4, 16] }",
        &usual(),
        &file,
        expect![
            "text by tokenizer.json, which knows 7 tokens, into input_ids, attention_mask, token_type_ids: at most 16 tokens a text, filled up to one of [4, 16]"
        ],
    );
    file["padding"]["strategy"] = json!({"Fixed": 15});
    check(
        plain,
        &signature(&["input_ids", "input_mask"], DType::Int64, &[-1, -1]),
        &file,
        expect![
            "text by tokenizer.json, which knows 7 tokens, into input_ids, input_mask: at most 20 tokens a text, filled up to one of [16]"
        ],
    );
    let named = "input = { kind = \"text\", tokens_max = 5, ids = \"a\", types = \"b\" }";
    check(
        named,
        &signature(&["b", "a"], DType::Int64, &[-1, 7]),
        &tokenizer(),
        expect![
            "text by tokenizer.json, which knows 7 tokens, into a, b: at most 5 tokens a text, filled up to one of [7]"
        ],
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let with = |more: &str| format!("input = {{ kind = \"text\", {more} }}");
    let refused = |more: &str, expected| check(&with(more), &usual(), &tokenizer(), expected);
    refused(
        "special_tokens = true",
        expect![
            "input.tokens_max is not said, nor by tokenizer.json: expected how many tokens of a text are kept"
        ],
    );
    refused(
        "tokens_max = 2",
        expect!["input.tokens_max is 2: expected 3 to 1048576, as tokenizer.json adds 2 special tokens"],
    );
    refused(
        "tokens_max = 9, lengths = [4, 8]",
        expect!["input.tokens_max is 9: expected 8, the longest length, at most"],
    );
    refused(
        "tokens_max = 4, lengths = [8, 4]",
        expect!["input.lengths is [8, 4]: expected numbers from 1 to 1048576, ascending"],
    );
    refused(
        "tokens_max = 4, lengths = []",
        expect!["input.lengths is []: expected numbers from 1 to 1048576, ascending"],
    );
    refused(
        "tokens_max = 4, pad_token = \"<pad>\"",
        expect![[r#"input.pad_token is "<pad>": expected a token that tokenizer.json knows"#]],
    );
    refused(
        "tokens_max = 4, ids = \"words\"",
        expect!["input.ids is 'words': expected one of 'input_ids', 'attention_mask', 'token_type_ids'"],
    );
    refused(
        "tokens_max = 4, mask = \"input_ids\"",
        expect!["input 'input_ids' is said twice: input.ids, mask and types differ"],
    );
    refused(
        "tokenizer = \"../tokenizer.json\"",
        expect![[
            r#"input.tokenizer is "../tokenizer.json": expected a file in the model's directory, or the version's"#
        ]],
    );
    refused(
        "tokenizer = \"none.json\"",
        expect![[
            r#"input.tokenizer is "none.json": cannot read MODEL/none.json: No such file or directory (os error 2)"#
        ]],
    );
    refused(
        "tokenizer = \"picture.json\"",
        expect![[
            r#"input.tokenizer is "picture.json": it is no tokenizer as Hugging Face's libraries save it: expected value at line 1 column 1"#
        ]],
    );
    refused(
        "size = 4",
        expect![[r#"
        TOML parse error at line 1, column 9
          |
        1 | input = { kind = "text", size = 4 }
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        unknown field `size`, expected one of `tokenizer`, `tokens_max`, `lengths`, `pad_token`, `special_tokens`, `ids`, `mask`, `types`"#]],
    );
    let mut file = tokenizer();
    file["model"]["vocab"] = json!({"one": 0});
    check(
        TEXT,
        &usual(),
        &file,
        expect![
            "input.pad_token is not said, nor by tokenizer.json: expected the token that short texts are filled up with"
        ],
    );
    file["model"] = json!({"type": "Letters"});
    check(
        TEXT,
        &usual(),
        &file,
        expect![[
            r#"input.tokenizer is "tokenizer.json": it is no tokenizer as Hugging Face's libraries save it: data did not match any variant of untagged enum ModelUntagged at line 1 column 486"#
        ]],
    );
    let of = |names: &[&str], dtype, shape: &[i64], expected| {
        check(TEXT, &signature(names, dtype, shape), &tokenizer(), expected);
    };
    of(
        &["image"],
        DType::Fp32,
        &[-1, 3, 8, 8],
        expect!["input 'image' is FP32 [-1, 3, 8, 8]: expected tokens by row, INT64 or INT32"],
    );
    of(
        &["input_ids", "attention_mask", "position_ids"],
        DType::Int64,
        &[-1, -1],
        expect![[
            r#"input.kind is "text", and a text gives no 'position_ids': expected a model that takes the ids of tokens, and perhaps a mask and types: say their names as input.ids, input.mask and input.types"#
        ]],
    );
    of(
        &["words", "lengths"],
        DType::Int64,
        &[-1, -1],
        expect!["input.ids is not said: expected the name of one of 'words', 'lengths'"],
    );
    of(
        &["input_ids"],
        DType::Int64,
        &[-1, 4],
        expect!["input.tokens_max is 6: expected 4, the longest length, at most"],
    );
    let mut mixed = usual();
    mixed.inputs[1].shape = Some(vec![Dim::Dynamic(None)]);
    check(
        TEXT,
        &mixed,
        &tokenizer(),
        expect!["input 'input_ids' is [-1, -1] and 'attention_mask' is [-1]: expected the same shape"],
    );
}

#[test]
fn rows_have_one_length() {
    let file = tokenizer();
    check_read(
        TEXT,
        &usual(),
        &file,
        &["one two", "three", ""],
        expect![[r#"
        input_ids INT64 [3, 4] [2, 4, 5, 3, 2, 6, 3, 0, 2, 3, 0, 0]
        attention_mask INT64 [3, 4] [1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0]
        token_type_ids INT64 [3, 4] [0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
    "#]],
    );
    check_read(
        TEXT,
        &usual(),
        &file,
        &["one two three one two three"],
        expect![[r#"
        input_ids INT64 [1, 6] [2, 4, 5, 6, 4, 3]
        attention_mask INT64 [1, 6] [1, 1, 1, 1, 1, 1]
        token_type_ids INT64 [1, 6] [0, 0, 0, 0, 0, 1]
    "#]],
    );
    let ids = signature(&["input_ids"], DType::Int32, &[-1, -1]);
    let lengths = "input = { kind = \"text\", lengths = [4, 8], special_tokens = false }";
    check_read(
        lengths,
        &ids,
        &file,
        &["one"],
        expect![[r#"
        input_ids INT32 [1, 4] [4, 0, 0, 0]
    "#]],
    );
    check_read(
        lengths,
        &ids,
        &file,
        &["one", "one two three four five"],
        expect![[r#"
        input_ids INT32 [2, 8] [4, 0, 0, 0, 0, 0, 0, 0, 4, 5, 6, 1, 1, 0, 0, 0]
    "#]],
    );
    let bare = "input = { kind = \"text\", tokens_max = 6, special_tokens = false }";
    check_read(
        bare,
        &ids,
        &file,
        &[""],
        expect![[r#"
        input_ids INT32 [1, 1] [0]
    "#]],
    );
    let flat = signature(&["input_ids"], DType::Int64, &[-1]);
    check_read(
        TEXT,
        &flat,
        &file,
        &["one"],
        expect![[r#"
        input_ids INT64 [3] [2, 4, 3]
    "#]],
    );
    check_read(
        TEXT,
        &flat,
        &file,
        &["one", "two"],
        expect!["input 'input_ids' has no axis for rows: expected one text, got 2"],
    );
}

#[test]
fn the_file_says_on_which_side() {
    let mut file = tokenizer();
    file["truncation"] =
        json!({"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Left"});
    file["padding"] = json!({
        "strategy": {"Fixed": 5}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 4, "pad_type_id": 7,
        "pad_token": "one",
    });
    let plain = "input = { kind = \"text\" }";
    check_read(
        plain,
        &usual(),
        &file,
        &["two", "one two three two one"],
        expect![[r#"
        input_ids INT64 [2, 5] [4, 4, 2, 5, 3, 2, 6, 5, 4, 3]
        attention_mask INT64 [2, 5] [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
        token_type_ids INT64 [2, 5] [7, 7, 0, 0, 1, 0, 0, 0, 0, 1]
    "#]],
    );
}

#[test]
fn what_is_too_large_is_refused() {
    let lengths = "input = { kind = \"text\", lengths = [16384] }";
    let handler = bind(lengths, &usual(), &tokenizer()).unwrap();
    let refusal = |texts: &[Cow<'_, str>]| match handler.read_texts(texts).unwrap() {
        Err(InferError::TooLarge(text)) => text,
        other => panic!("expected that it is too large, got {other:?}"),
    };
    assert_eq!(
        refusal(&["x".repeat((1 << 20) + 1).into()]),
        "input 'input_ids': a text has 1048577 bytes: expected 1048576 at most, of which 16384 tokens are taken"
    );
    assert_eq!(
        refusal(&vec![Cow::Borrowed(""); 513]),
        "input 'input_ids': 513 texts of 16384 tokens are more than 8388608 together: send fewer texts"
    );
    let fault = text::decode(&b"caf\xe9".as_slice().into()).unwrap_err();
    assert_eq!(fault.to_string(), "the text is not UTF-8 at byte 3: the model takes text in UTF-8");
}
