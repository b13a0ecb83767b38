//! Puts the rows of a batch's requests side by side in aligned buffers that a worker reuses.

use bytemuck::{Pod, Zeroable};
use smallvec::SmallVec;

use crate::backend::InputView;
use crate::request::Inputs;
use crate::tensor::{Shape, Tensor};

/// A cache line: what vectorised kernels want a tensor to begin on.
const ALIGNMENT: usize = 64;

/// A buffer that grew beyond this is freed after its batch, so that one large request does not
/// keep its memory for ever.
const BUFFER_KEEP_BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// One worker's input buffers.
#[derive(Default)]
pub(crate) struct Gather {
    columns: Vec<Column>,
}

/// One input of the batch being formed.
#[derive(Default)]
struct Column {
    lines: Vec<Line>,
    bytes: usize,
    shape: Shape,
    source: Source,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Source {
    /// The optional input is left out.
    #[default]
    Absent,
    /// The batch is one request whose tensor is aligned already: no copy.
    Request,
    Copied,
}

// === impl Gather ===

impl Gather {
    /// Copies the rows of `requests`, which have equal shape keys. With a batch axis they have
    /// `rows` rows in all; without (`None`) there is one request.
    pub(crate) fn fill<'a>(
        &mut self,
        requests: impl Iterator<Item = &'a Inputs> + Clone,
        rows: Option<usize>,
    ) {
        let inputs = requests.clone().next().map_or(0, |inputs| inputs.len());
        self.columns.resize_with(inputs, Column::default);
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.fill(requests.clone().filter_map(|inputs| inputs[index].as_ref()), rows);
        }
    }

    /// The inputs of the batch that was filled from requests of which `first` was the first.
    pub(crate) fn views<'a>(&'a self, first: &'a Inputs) -> impl Iterator<Item = Option<InputView<'a>>> {
        self.columns.iter().zip(first).map(|(column, tensor)| {
            let tensor = tensor.as_ref()?;
            let (shape, data) = match column.source {
                Source::Absent => return None,
                Source::Request => (tensor.shape(), tensor.data().as_ref()),
                Source::Copied => {
                    (column.shape.as_slice(), &bytemuck::cast_slice(&column.lines)[..column.bytes])
                }
            };
            Some(InputView { dtype: tensor.dtype(), shape, data })
        })
    }

    /// Gives back buffers that an unusually large batch has grown.
    pub(crate) fn shrink(&mut self) {
        for column in &mut self.columns {
            if column.lines.capacity() * ALIGNMENT > BUFFER_KEEP_BYTES_MAX {
                column.lines = Vec::new();
            }
        }
    }
}

impl Column {
    fn fill<'a>(&mut self, tensors: impl Iterator<Item = &'a Tensor>, rows: Option<usize>) {
        let tensors: SmallVec<[_; 64]> = tensors.collect();
        let Some(first) = tensors.first() else {
            self.source = Source::Absent;
            return;
        };
        if tensors.len() == 1 && first.data().as_ptr().align_offset(ALIGNMENT) == 0 {
            self.source = Source::Request;
            return;
        }
        self.source = Source::Copied;
        self.bytes = tensors.iter().map(|tensor| tensor.data().len()).sum();
        let lines = self.bytes.div_ceil(ALIGNMENT);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::zeroed());
        }
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut self.lines);
        let mut offset = 0;
        for tensor in &tensors {
            let end = offset + tensor.data().len();
            buffer[offset..end].copy_from_slice(tensor.data());
            offset = end;
        }
        assert_eq!(offset, self.bytes, "all rows were gathered; this is a bug");
        self.shape.clear();
        self.shape.extend_from_slice(first.shape());
        if let Some(rows) = rows {
            self.shape[0] = rows;
        }
    }
}
