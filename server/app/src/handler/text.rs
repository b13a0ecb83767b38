//! Texts as a model's inputs: the tokens of a Hugging Face tokenizer, cut, and filled up to one length.

use std::borrow::Cow;
use std::iter::repeat_n;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Shape, Tensor};
use tokenizers::Tokenizer;

/// Longest text, in UTF-8: its tokens take a hundred times the memory before they are cut.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most elements of an input: as many as a body of 64 MiB has room for.
const ELEMENTS_MAX: usize = 1 << 23;

/// How texts become inputs. It does not change once it is made.
#[derive(Debug)]
pub(super) struct Text {
    /// Cuts texts, and does not fill them up.
    pub(super) tokenizer: Tokenizer,
    /// The file's name, for people.
    pub(super) file_name: String,
    pub(super) tokens_max: usize,
    pub(super) special_tokens: bool,
    pub(super) padding: Padding,
    pub(super) ids: Target,
    /// 1 for tokens and 0 for what is filled up.
    pub(super) mask: Option<Target>,
    pub(super) types: Option<Target>,
    /// Whether the inputs have an axis for rows.
    pub(super) has_rows: bool,
}

/// An input, which is INT64 or INT32.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) dtype: DType,
}

/// How texts of a request come to have the same length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Padding {
    /// The shortest that holds the longest text is taken; ascending.
    pub(super) lengths: Vec<usize>,
    /// Where none does, the length is the next multiple of this, at least 1.
    pub(super) multiple_of: usize,
    /// Whether tokens are filled in before the text, and not behind it.
    pub(super) before: bool,
    pub(super) id: u32,
    pub(super) type_id: u32,
}

/// The tokens of a text.
struct Tokens {
    ids: Vec<u32>,
    mask: Vec<u32>,
    types: Vec<u32>,
}

/// The text that a body is.
///
/// # Errors
/// `InvalidInput` for what is not UTF-8.
pub(super) fn decode(content: &Bytes) -> Result<&str, InferError> {
    std::str::from_utf8(content).map_err(|error| {
        let place = error.valid_up_to();
        InferError::InvalidInput(format!(
            "the text is not UTF-8 at byte {place}: the model takes text in UTF-8"
        ))
    })
}

// === impl Padding ===

impl Padding {
    /// The length of rows the longest of which has `longest` tokens. No row is empty: models seldom take that.
    fn length(&self, longest: usize) -> usize {
        match self.lengths.iter().find(|&&length| length >= longest) {
            Some(&length) => length,
            None => longest.max(1).next_multiple_of(self.multiple_of),
        }
    }
}

// === impl Text ===

impl Text {
    /// # Errors
    /// `TooLarge` for a text that is too long, and for texts that make too large an input together; `InvalidInput` for
    /// several texts where the model has no rows.
    pub(super) fn read(&self, texts: &[Cow<'_, str>]) -> Result<Vec<NamedTensor>, InferError> {
        let count = texts.len();
        if !self.has_rows && count != 1 {
            return Err(InferError::InvalidInput(format!(
                "input '{}' has no axis for rows: expected one text, got {count}",
                self.ids.name
            )));
        }
        let rows: Vec<Tokens> = texts.iter().map(|text| self.tokens(text)).collect::<Result<_, _>>()?;
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let length = self.padding.length(longest);
        if count * length > ELEMENTS_MAX {
            return Err(InferError::TooLarge(format!(
                "input '{}': {count} texts of {length} tokens are more than {ELEMENTS_MAX} together: send fewer texts",
                self.ids.name
            )));
        }
        let mut inputs =
            vec![self.input(&self.ids, length, self.padding.id, rows.iter().map(|row| &row.ids))?];
        if let Some(mask) = &self.mask {
            inputs.push(self.input(mask, length, 0, rows.iter().map(|row| &row.mask))?);
        }
        if let Some(types) = &self.types {
            let filler = self.padding.type_id;
            inputs.push(self.input(types, length, filler, rows.iter().map(|row| &row.types))?);
        }
        Ok(inputs)
    }

    /// What was derived, for people.
    pub(super) fn note(&self) -> String {
        let Padding { lengths, multiple_of, .. } = &self.padding;
        let length = match (lengths.as_slice(), multiple_of) {
            ([], 1) => "the longest text of a request".to_owned(),
            ([], multiple) => format!("multiples of {multiple}"),
            (lengths, _) => format!("one of {lengths:?}"),
        };
        let targets = [Some(&self.ids), self.mask.as_ref(), self.types.as_ref()];
        let names: Vec<&str> = targets.into_iter().flatten().map(|target| target.name.as_str()).collect();
        format!(
            "text by {}, which knows {} tokens, into {}: at most {} tokens a text, filled up to {length}",
            self.file_name,
            self.tokenizer.get_vocab_size(true),
            names.join(", "),
            self.tokens_max,
        )
    }

    fn tokens(&self, text: &str) -> Result<Tokens, InferError> {
        let bytes = text.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(InferError::TooLarge(format!(
                "input '{}': a text has {bytes} bytes: expected {TEXT_BYTES_MAX} at most, of which {} tokens are taken",
                self.ids.name, self.tokens_max
            )));
        }
        let encoding = self.tokenizer.encode_fast(text, self.special_tokens).map_err(|error| {
            InferError::InvalidInput(format!("input '{}': {} fails: {error}", self.ids.name, self.file_name))
        })?;
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            mask: encoding.get_attention_mask().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }

    fn input<'a>(
        &self,
        target: &Target,
        length: usize,
        filler: u32,
        rows: impl ExactSizeIterator<Item = &'a Vec<u32>>,
    ) -> Result<NamedTensor, InferError> {
        let shape: Shape = match self.has_rows {
            true => [rows.len(), length].into_iter().collect(),
            false => [length].into_iter().collect(),
        };
        let mut data = Vec::with_capacity(rows.len() * length * size_of::<i64>());
        let mut push = |value: u32| match target.dtype {
            DType::Int32 => data.extend_from_slice(&(value as i32).to_le_bytes()),
            _ => data.extend_from_slice(&i64::from(value).to_le_bytes()),
        };
        for row in rows {
            let missing = length - row.len();
            let (before, behind) = if self.padding.before { (missing, 0) } else { (0, missing) };
            repeat_n(filler, before)
                .chain(row.iter().copied())
                .chain(repeat_n(filler, behind))
                .for_each(&mut push);
        }
        let tensor = Tensor::new(target.dtype, shape, data.into())
            .map_err(|error| InferError::InvalidInput(format!("input '{}': {error}", target.name)))?;
        Ok(NamedTensor { name: target.name.clone(), tensor })
    }
}
