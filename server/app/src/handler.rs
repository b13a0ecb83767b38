//! What becomes tensors before a model, and of tensors after it, where its `model.toml` says so: TorchServe's usual
//! handlers without Python.

mod classes;
mod decode;
mod elements;
mod loading;
mod picture;
mod resample;
mod settings;
mod text;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;

use std::borrow::Cow;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor, Response};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task;

use self::classes::{Answer, Classes};
use self::elements::Elements;
pub(crate) use self::loading::HandledBackend;
use self::picture::Picture;
pub use self::settings::Sections;
pub(crate) use self::settings::{RawInput, RawOutput};
use self::text::Text;
use crate::codec::json::values::Values;
use crate::features::{Features, Reader};

/// Most texts of a request: a queue takes no more rows unless it is told to.
pub(crate) const TEXTS_MAX: usize = 16_384;
/// Bytes of text from which on it takes a while to find their tokens: about a millisecond.
const LONG_TEXT_BYTES: usize = 4096;

/// What the sections of a model mean for one of its versions.
#[derive(Debug)]
pub struct Handler {
    input: Option<Input>,
    output: Option<Output>,
}

/// What a body is.
#[derive(Debug)]
enum Input {
    Picture(Picture),
    Text(Box<Text>),
    /// Lines of comma-separated values.
    Csv {
        has_header: bool,
    },
    Elements(Elements),
    /// JSON alone.
    Rows,
}

/// What an answer is.
#[derive(Debug)]
enum Output {
    Classes(Classes),
    /// Rows of the output at this place of the signature, or of all.
    Rows(Option<usize>),
}

/// Which bodies are JSON, beside those that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonBodies {
    /// All, whatever they say.
    All,
    /// Those that begin like a list or an object.
    Begun,
    /// Whole lists and objects that do not say that they are text.
    Whole,
    None,
}

/// Writes the answer to a request.
pub(crate) struct Writer<'a> {
    classes: &'a Classes,
    response: &'a Response,
}

// === impl Handler ===

impl Handler {
    /// That of a version, if its sections say something.
    pub(crate) fn of(model: &ModelInfo) -> Option<&Handler> {
        model.companions.get()
    }

    /// The inputs of `model` that `content` is, where the model's `[input]` says how, or `InvalidInput` for what is not
    /// that.
    pub(crate) fn read(&self, model: &ModelInfo, content: &Bytes) -> Option<Result<Features, InferError>> {
        let row = |inputs| Features { inputs, listed: false };
        match self.input.as_ref()? {
            Input::Picture(picture) => {
                Some(beside_io(|| picture.read(content)).map(|input| row(vec![input])))
            }
            Input::Text(text) => {
                let content = text::decode(content);
                Some(content.and_then(|content| read_texts(text, &[content.into()])).map(row))
            }
            Input::Csv { has_header } => Some(text::decode(content).and_then(|text| {
                let features = Reader::new(model, Values::Frame).csv(text, *has_header);
                features.map_err(|error| error.into_infer_error(text))
            })),
            Input::Elements(elements) => Some(elements.read(content)),
            Input::Rows => None,
        }
    }

    /// Which bodies are JSON.
    pub(crate) fn json_bodies(&self) -> JsonBodies {
        match &self.input {
            None | Some(Input::Picture(_)) => JsonBodies::Begun,
            Some(Input::Text(_) | Input::Csv { .. }) => JsonBodies::Whole,
            Some(Input::Elements(_)) => JsonBodies::None,
            Some(Input::Rows) => JsonBodies::All,
        }
    }

    /// Whether a body is text, or JSON with texts.
    pub(crate) fn takes_texts(&self) -> bool {
        matches!(self.input, Some(Input::Text(_)))
    }

    /// The inputs that texts are, one a row, where the model's `[input]` says how.
    pub(crate) fn read_texts(&self, texts: &[Cow<'_, str>]) -> Option<Result<Vec<NamedTensor>, InferError>> {
        match self.input.as_ref()? {
            Input::Text(text) => Some(read_texts(text, texts)),
            _ => None,
        }
    }

    /// The media types of bodies that are not JSON, where the model's `[input]` says what they are.
    pub(crate) fn media_types(&self) -> Option<&'static [&'static str]> {
        Some(match self.input.as_ref()? {
            Input::Elements(_) => &["application/octet-stream"],
            Input::Picture(_) => &["image/jpeg", "image/png"],
            Input::Text(_) => &["text/plain"],
            Input::Csv { .. } => &["text/csv"],
            Input::Rows => &[],
        })
    }

    /// Whether a row is answered with an object of scores by label, or with a label alone; nothing where it is
    /// answered with outputs.
    pub(crate) fn answers_scores(&self) -> Option<bool> {
        match self.output.as_ref()? {
            Output::Classes(classes) => Some(matches!(classes.answer, Answer::Best(_))),
            Output::Rows(_) => None,
        }
    }

    /// What was derived, for people.
    fn notes(&self) -> Vec<String> {
        match &self.input {
            Some(Input::Text(text)) => vec![text.note()],
            _ => Vec::new(),
        }
    }

    /// Writes answers, where the model's `[output]` says that they are classes.
    pub(crate) fn writer<'a>(&'a self, response: &'a Response) -> Option<Writer<'a>> {
        match self.output.as_ref()? {
            Output::Classes(classes) => Some(Writer { classes, response }),
            Output::Rows(_) => None,
        }
    }

    /// The output, by its place in the signature, that an answer has alone, where the model's `[output]` says one.
    pub(crate) fn only_output(&self) -> Option<usize> {
        match self.output {
            Some(Output::Rows(only)) => only,
            Some(Output::Classes(_)) | None => None,
        }
    }
}

fn read_texts(text: &Text, texts: &[Cow<'_, str>]) -> Result<Vec<NamedTensor>, InferError> {
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    match bytes < LONG_TEXT_BYTES {
        true => text.read(texts),
        false => beside_io(|| text.read(texts)),
    }
}

/// Runs what takes a while, a photograph some tenths of a second, while another thread takes over the sockets of this
/// one.
fn beside_io<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => task::block_in_place(work),
        // A thread that serves nobody else.
        Ok(_) | Err(_) => work(),
    }
}

// === impl Writer ===

impl Writer<'_> {
    /// Appends the answer to a row.
    ///
    /// # Errors
    /// `InvalidInput` where the outputs have no such row.
    pub(crate) fn row(&self, row: usize, json: &mut Vec<u8>) -> Result<(), InferError> {
        self.classes.write(self.response, row, json)
    }

    /// Appends a list with the answer to each row.
    ///
    /// # Errors
    /// As [`Writer::row`], and `InvalidInput` for another number of rows than was asked for.
    pub(crate) fn rows(&self, json: &mut Vec<u8>) -> Result<(), InferError> {
        self.classes.check_rows(self.response)?;
        json.push(b'[');
        for row in 0..self.response.rows {
            if row > 0 {
                json.push(b',');
            }
            self.row(row, json)?;
        }
        json.push(b']');
        Ok(())
    }
}
