//! Decides how input tensors come about: at random from a specification, or from rows given in a file.

use bytes::Bytes;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::datatype::Datatype;

/// One input tensor in binary form: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Bytes,
}

// === impl Tensor ===

impl Tensor {
    pub(crate) fn random(name: &str, datatype: Datatype, shape: Vec<i64>, rng: &mut SmallRng) -> Tensor {
        let mut data = Vec::new();
        for _ in 0..shape.iter().product::<i64>() {
            datatype.put_random(rng, &mut data);
        }
        Tensor { name: name.to_owned(), datatype, shape, data: data.into() }
    }

    /// Reads nested or flat JSON `data`. Without `shape` the nesting gives it, and must be regular.
    pub(crate) fn from_json(
        name: &str,
        datatype: Datatype,
        shape: Option<Vec<i64>>,
        data: &Value,
    ) -> Result<Tensor, String> {
        let shape = shape.unwrap_or_else(|| nesting(data));
        let mut bytes = Vec::new();
        let mut elements = 0_i64;
        flatten(data, &mut |scalar| {
            elements += 1;
            datatype.put_json(scalar, &mut bytes).ok_or_else(|| {
                format!("element {} is {scalar}, which is no {}", elements - 1, datatype.name())
            })
        })?;
        let expected: i64 = shape.iter().product();
        if elements != expected {
            return Err(format!("shape {shape:?} takes {expected} elements, `data` has {elements}"));
        }
        Ok(Tensor { name: name.to_owned(), datatype, shape, data: bytes.into() })
    }

    /// Rows `first .. first + count` along axis 0, starting over after the last row.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Tensor {
        let starts = self.row_starts();
        let available = starts.len() - 1;
        let mut data = Vec::new();
        for row in (first..first + count).map(|row| row % available) {
            data.extend_from_slice(&self.data[starts[row]..starts[row + 1]]);
        }
        let mut shape = self.shape.clone();
        shape[0] = count as i64;
        Tensor { name: self.name.clone(), datatype: self.datatype, shape, data: data.into() }
    }

    /// The values as JSON, flat and row-major.
    pub(crate) fn values(&self) -> Result<Vec<Value>, String> {
        if matches!(self.datatype, Datatype::Fp16 | Datatype::Bf16) {
            return Err(format!(
                "{} has no JSON form in this protocol: use `--body binary`",
                self.datatype.name()
            ));
        }
        let mut rest = &self.data[..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            let value = self.datatype.take_json(&mut rest);
            values.push(value.ok_or("the bytes are not UTF-8 text: use `--body binary`")?);
        }
        Ok(values)
    }

    /// The tensor as the protocol's JSON object with flat `data`.
    pub(crate) fn to_json(&self) -> Result<Value, String> {
        Ok(json!({
            "name": self.name,
            "shape": self.shape,
            "datatype": self.datatype.name(),
            "data": self.values()?,
        }))
    }

    /// Offsets in bytes at which the rows start, and the end of the last.
    fn row_starts(&self) -> Vec<usize> {
        let rows = self.shape[0] as usize;
        let row_elements = self.shape[1..].iter().product::<i64>() as usize;
        if let Some(size) = self.datatype.size_bytes() {
            return (0..=rows).map(|row| row * row_elements * size).collect();
        }
        let mut starts = vec![0];
        let mut offset = 0;
        for _ in 0..rows {
            for _ in 0..row_elements {
                let prefix = self.data[offset..offset + 4].try_into().expect(
                    "BYTES elements carry a four-byte length because put_random and put_json wrote it; \
                     this is a bug",
                );
                offset += 4 + u32::from_le_bytes(prefix) as usize;
            }
            starts.push(offset);
        }
        starts
    }
}

fn nesting(data: &Value) -> Vec<i64> {
    let mut shape = Vec::new();
    let mut level = data;
    while let Value::Array(items) = level {
        shape.push(items.len() as i64);
        let Some(first) = items.first() else { break };
        level = first;
    }
    shape
}

fn flatten<'a>(
    data: &'a Value,
    take: &mut impl FnMut(&'a Value) -> Result<(), String>,
) -> Result<(), String> {
    match data {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, take)),
        scalar => take(scalar),
    }
}
