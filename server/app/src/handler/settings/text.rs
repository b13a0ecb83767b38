//! What `[input]` with `kind = "text"` means for a signature: the tokenizer, its limits, and the inputs that it fills.

use gristmill_engine::tensor::{DType, Dim, Signature, TensorSpec};
use serde::Deserialize;
use tokenizers::{
    PaddingDirection, PaddingParams, PaddingStrategy, PostProcessor as _, Tokenizer, TruncationParams,
    TruncationStrategy,
};

use super::{Directories, named};
use crate::handler::text::{Padding, Target, Text};

/// The file where nothing is said, as Hugging Face's libraries save it.
const FILE_BY_DEFAULT: &str = "tokenizer.json";
/// Most tokens of a text: more is a typing error.
const TOKENS_MAX: usize = 1 << 20;

/// Names that models give their inputs, as PyTorch's exports, BERT's and TensorFlow Hub's do.
const IDS: [&str; 2] = ["input_ids", "input_word_ids"];
const MASK: [&str; 2] = ["attention_mask", "input_mask"];
const TYPES: [&str; 3] = ["token_type_ids", "segment_ids", "input_type_ids"];
/// Names that tokenizers give the token that fills texts up, where their file has no padding.
const PAD_TOKENS: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<|padding|>"];

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawText {
    tokenizer: Option<String>,
    tokens_max: Option<usize>,
    lengths: Option<Vec<usize>>,
    pad_token: Option<String>,
    special_tokens: Option<bool>,
    ids: Option<String>,
    mask: Option<String>,
    types: Option<String>,
}

/// The inputs of a model that takes texts.
struct Targets {
    ids: Target,
    mask: Option<Target>,
    types: Option<Target>,
    has_rows: bool,
    /// The length of texts, where the model has only one.
    length: Option<usize>,
}

/// # Errors
/// The text names the field, what was expected and what the model or the file has.
pub(super) fn text(
    raw: &RawText,
    signature: &Signature,
    directories: Directories<'_>,
) -> Result<Text, String> {
    let Targets { ids, mask, types, has_rows, length } = targets(raw, signature)?;
    let file_name = raw.tokenizer.as_deref().unwrap_or(FILE_BY_DEFAULT);
    let fault = |why: String| format!("input.tokenizer is \"{file_name}\": {why}");
    let content = directories.read(file_name).map_err(fault)?;
    let mut tokenizer = Tokenizer::from_bytes(content)
        .map_err(|error| fault(format!("it is no tokenizer as Hugging Face's libraries save it: {error}")))?;
    let padding = padding(raw, &ids.name, length, &tokenizer, file_name)?;
    let room = raw.lengths.as_ref().and_then(|lengths| lengths.last().copied()).or(length);
    let tokens_max = tokens_max(raw, room, &tokenizer, file_name)?;
    // What does not fit is dropped; the direction stays the file's.
    let truncation = TruncationParams {
        max_length: tokens_max,
        stride: 0,
        strategy: TruncationStrategy::LongestFirst,
        direction: tokenizer.get_truncation().map(|file| file.direction).unwrap_or_default(),
    };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| fault(error.to_string()))?;
    tokenizer.with_padding(None);
    let special_tokens = raw.special_tokens.unwrap_or(true);
    let file_name = file_name.to_owned();
    Ok(Text { tokenizer, file_name, tokens_max, special_tokens, padding, ids, mask, types, has_rows })
}

fn targets(raw: &RawText, signature: &Signature) -> Result<Targets, String> {
    let inputs = signature.inputs.as_slice();
    let is_called = |names: &'static [&str]| move |spec: &TensorSpec| names.contains(&spec.name.as_str());
    let optional = |field: &str, wanted: Option<&str>, names: &'static [&str]| match wanted {
        None if !inputs.iter().any(is_called(names)) => Ok(None),
        wanted => named(field, wanted, inputs, is_called(names)).map(|(_, spec)| Some(spec)),
    };
    let is_ids = |spec: &TensorSpec| inputs.len() == 1 || is_called(&IDS)(spec);
    let (_, ids) = named("input.ids", raw.ids.as_deref(), inputs, is_ids)?;
    let mask = optional("input.mask", raw.mask.as_deref(), &MASK)?;
    let types = optional("input.types", raw.types.as_deref(), &TYPES)?;
    let specs = || [Some(ids), mask, types].into_iter().flatten();
    for spec in inputs {
        match specs().filter(|target| target.name == spec.name).count() {
            0 if !spec.optional => {
                return Err(format!(
                    "input.kind is \"text\", and a text gives no '{}': expected a model that takes the ids of tokens, \
                     and perhaps a mask and types: say their names as input.ids, input.mask and input.types",
                    spec.name
                ));
            }
            0 | 1 => {}
            _ => {
                return Err(format!("input '{}' is said twice: input.ids, mask and types differ", spec.name));
            }
        }
    }
    let (has_rows, mut length) = row_of(ids)?;
    for spec in specs() {
        let (rows, fixed) = row_of(spec)?;
        if rows != has_rows || fixed.zip(length).is_some_and(|(fixed, length)| fixed != length) {
            return Err(format!(
                "input '{}' is {:?} and '{}' is {:?}: expected the same shape",
                ids.name,
                ids.protocol_shape(),
                spec.name,
                spec.protocol_shape()
            ));
        }
        length = length.or(fixed);
    }
    let target = |spec: &TensorSpec| Target { name: spec.name.clone(), dtype: spec.dtype };
    Ok(Targets { ids: target(ids), mask: mask.map(target), types: types.map(target), has_rows, length })
}

/// Whether an input has an axis for rows, and how many tokens a row has, where the model says it.
fn row_of(spec: &TensorSpec) -> Result<(bool, Option<usize>), String> {
    let length = |dim: &Dim| match dim {
        Dim::Fixed(length) => Some(*length),
        Dim::Dynamic(_) => None,
    };
    match (spec.dtype, spec.shape.as_deref()) {
        (DType::Int64 | DType::Int32, Some([tokens])) => Ok((false, length(tokens))),
        (DType::Int64 | DType::Int32, Some([Dim::Fixed(1) | Dim::Dynamic(_), tokens])) => {
            Ok((true, length(tokens)))
        }
        _ => Err(format!(
            "input '{}' is {} {:?}: expected tokens by row, INT64 or INT32",
            spec.name,
            spec.dtype.name(),
            spec.protocol_shape()
        )),
    }
}

fn padding(
    raw: &RawText,
    ids: &str,
    fixed: Option<usize>,
    tokenizer: &Tokenizer,
    file_name: &str,
) -> Result<Padding, String> {
    let file = tokenizer.get_padding();
    let (lengths, multiple_of) = match (&raw.lengths, fixed) {
        (Some(lengths), Some(fixed)) if *lengths != [fixed] => {
            return Err(format!(
                "input.lengths is {lengths:?}: expected [{fixed}], the only length of input '{ids}'"
            ));
        }
        (Some(lengths), _) => (lengths.clone(), 1),
        (None, Some(fixed)) => (vec![fixed], 1),
        (None, None) => file.map_or_else(|| (Vec::new(), 1), lengths_of_file),
    };
    let is_sound = |lengths: &[usize]| {
        lengths.is_sorted_by(|one, next| one < next)
            && lengths.iter().all(|length| (1..=TOKENS_MAX).contains(length))
    };
    if !is_sound(&lengths) || raw.lengths.as_ref().is_some_and(Vec::is_empty) {
        return Err(format!(
            "input.lengths is {lengths:?}: expected numbers from 1 to {TOKENS_MAX}, ascending"
        ));
    }
    let id = match (&raw.pad_token, file) {
        (Some(token), _) => tokenizer
            .token_to_id(token)
            .ok_or_else(|| format!("input.pad_token is \"{token}\": expected a token that {file_name} knows"))?,
        (None, Some(file)) => file.pad_id,
        (None, None) => PAD_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token)).ok_or_else(|| {
            format!(
                "input.pad_token is not said, nor by {file_name}: expected the token that short texts are filled up \
                 with"
            )
        })?,
    };
    let before = file.is_some_and(|file| matches!(file.direction, PaddingDirection::Left));
    Ok(Padding { lengths, multiple_of, before, id, type_id: file.map_or(0, |file| file.pad_type_id) })
}

/// As the tokenizer would do it itself: to a fixed length, or to the longest text of those that come together.
fn lengths_of_file(file: &PaddingParams) -> (Vec<usize>, usize) {
    let multiple_of = file.pad_to_multiple_of.unwrap_or(1).max(1);
    match file.strategy {
        PaddingStrategy::Fixed(length) => (vec![length.next_multiple_of(multiple_of)], 1),
        PaddingStrategy::BatchLongest => (Vec::new(), multiple_of),
    }
}

/// Of a text. What a file fills texts up to by itself bounds nothing: longer ones stay as they are.
fn tokens_max(
    raw: &RawText,
    room: Option<usize>,
    tokenizer: &Tokenizer,
    file_name: &str,
) -> Result<usize, String> {
    let of_file = tokenizer.get_truncation().map(|truncation| truncation.max_length);
    let tokens_max = match (raw.tokens_max, room) {
        (Some(tokens_max), Some(room)) if tokens_max > room => {
            return Err(format!("input.tokens_max is {tokens_max}: expected {room}, the longest length, at most"));
        }
        (Some(tokens_max), _) => tokens_max,
        (None, room) => of_file.into_iter().chain(room).min().ok_or_else(|| {
            format!("input.tokens_max is not said, nor by {file_name}: expected how many tokens of a text are kept")
        })?,
    };
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    match (special + 1..=TOKENS_MAX).contains(&tokens_max) {
        true => Ok(tokens_max),
        false => Err(format!(
            "input.tokens_max is {tokens_max}: expected {} to {TOKENS_MAX}, as {file_name} adds {special} special tokens",
            special + 1
        )),
    }
}
