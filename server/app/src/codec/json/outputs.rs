//! Outputs as JSON without anything around them: whole, or row by row.

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;

use super::nested::{NestedWriter, Texts};
use super::write::write_string;
use crate::codec::rows;

/// A response's outputs while they are written. A single one is written as it is, several as an object with one of
/// each.
pub(crate) struct Outputs<'a> {
    /// How many rows were asked for.
    rows: usize,
    outputs: Vec<Output<'a>>,
}

struct Output<'a> {
    name: &'a str,
    shape: &'a [usize],
    writer: NestedWriter<'a>,
}

// === impl Outputs ===

impl<'a> Outputs<'a> {
    /// `texts` says how elements of the BYTES output of that name are written.
    pub(crate) fn new(response: &'a Response, texts: impl Fn(&str) -> Texts) -> Outputs<'a> {
        Outputs::which(response, |_place| true, texts)
    }

    /// Those at the places of the signature that `is_wanted` says.
    pub(crate) fn which(
        response: &'a Response,
        is_wanted: impl Fn(usize) -> bool,
        texts: impl Fn(&str) -> Texts,
    ) -> Outputs<'a> {
        let signature = &response.model.signature;
        let wanted = response.outputs.iter().filter(|(index, _)| is_wanted(*index));
        let outputs = wanted.map(|(index, tensor)| {
            let name = signature.outputs[*index].name.as_str();
            Output {
                name,
                shape: tensor.shape(),
                writer: NestedWriter::new(name, tensor, texts(name)).within(response.answer_limit),
            }
        });
        Outputs { rows: response.rows, outputs: outputs.collect() }
    }

    /// About how much text they make, in bytes, and no more than they may.
    pub(crate) fn estimate(response: &Response) -> usize {
        let bytes = response.outputs.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>();
        (64 + 3 * bytes).min(response.answer_limit.map_or(usize::MAX, |limit| limit.bytes_max))
    }

    /// Appends whole outputs.
    ///
    /// # Errors
    /// `InvalidInput` for strings that are not UTF-8.
    pub(crate) fn whole(mut self, json: &mut Vec<u8>) -> Result<(), InferError> {
        self.entry(0, json)
    }

    /// Appends a list with an entry for each of the rows that were asked for.
    ///
    /// # Errors
    /// As [`Outputs::whole`], and for outputs without rows or with another number of them.
    pub(crate) fn rows(mut self, json: &mut Vec<u8>) -> Result<(), InferError> {
        for Output { name, shape, .. } in &self.outputs {
            rows::check(self.rows, name, shape)?;
        }
        json.push(b'[');
        for row in 0..self.rows {
            if row > 0 {
                json.push(b',');
            }
            self.entry(1, json)?;
        }
        json.push(b']');
        Ok(())
    }

    /// Appends the outputs for one row: without the axis that counts rows, unless a model gives more or fewer for one.
    ///
    /// # Errors
    /// As [`Outputs::whole`].
    pub(crate) fn of_one_row(mut self, json: &mut Vec<u8>) -> Result<(), InferError> {
        let has_one_each = self.outputs.iter().all(|output| output.shape.first() == Some(&1));
        self.entry(usize::from(has_one_each), json)
    }

    /// Appends the next piece of each output, nested like what follows the first `axes` dimensions.
    fn entry(&mut self, axes: usize, json: &mut Vec<u8>) -> Result<(), InferError> {
        if let [only] = self.outputs.as_mut_slice() {
            return only.writer.write(&only.shape[axes..], json);
        }
        json.push(b'{');
        for (index, output) in self.outputs.iter_mut().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            write_string(output.name, json);
            json.push(b':');
            output.writer.write(&output.shape[axes..], json)?;
        }
        json.push(b'}');
        Ok(())
    }
}
