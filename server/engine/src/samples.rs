//! Made-up inputs: rows that differ from each other in every element, over what a type and a model admit.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::backend::{InputView, Instance};
use crate::error::RunError;
use crate::gather::Gather;
use crate::request::Inputs;
use crate::tensor::{DType, Dim, Shape, Signature, Tensor, TensorSpec, push_bytes_element};

/// Sizes tried for dynamic dimensions other than the batch axis, until a sample run succeeds:
/// convolutions and poolings need some room, and 224 is what image models are usually made for.
pub(crate) const DYNAMIC_SIZES: [usize; 4] = [16, 64, 1, 224];

/// How wide the values of an input may be, from 0, the widest: what whole numbers and texts a model takes is not
/// written in its file.
pub(crate) const LEVELS: u8 = 6;
/// Inputs that have a level of their own; those after them share the last one's.
const LEVELS_HELD: usize = 16;

/// A model's inputs for some rows, made up.
pub(crate) struct Sample {
    inputs: Inputs,
    rows: Option<usize>,
}

/// How samples of a model are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// The size of dynamic dimensions other than the batch axis.
    pub(crate) dynamic_size: usize,
    /// All zeros and empty strings, for models that refuse everything else. Such rows are all alike.
    pub(crate) is_plain: bool,
    /// Optional inputs are given too.
    pub(crate) gives_optional: bool,
    levels: [u8; LEVELS_HELD],
}

/// A row of the endless made-up data set: it has the same values in every sample of one recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SampleRow {
    pub(crate) number: usize,
    pub(crate) manner: Manner,
}

/// What kind of values a row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Manner {
    /// Around 1, and whole numbers and texts over their whole range.
    Ordinary,
    Large,
    Small,
    /// Zeros from some place on, as in masks and in padded sequences.
    Padded,
    /// Floats that are not there (NaN), and empty texts.
    Missing,
    Zeros,
    /// The largest whole numbers, floats near the end of half precision, the longest texts.
    Extreme,
}

// === impl Recipe ===

impl Recipe {
    pub(crate) fn new(dynamic_size: usize, level: u8) -> Recipe {
        Recipe { dynamic_size, is_plain: false, gives_optional: false, levels: [level; LEVELS_HELD] }
    }

    pub(crate) fn plain(dynamic_size: usize) -> Recipe {
        Recipe { is_plain: true, ..Recipe::new(dynamic_size, LEVELS - 1) }
    }

    /// The same with another level for the values of one input.
    pub(crate) fn with_level(mut self, input: usize, level: u8) -> Recipe {
        self.levels[input.min(LEVELS_HELD - 1)] = level;
        self
    }

    pub(crate) fn level(&self, input: usize) -> u8 {
        self.levels[input.min(LEVELS_HELD - 1)]
    }

    /// All that are worth trying for a signature, the widest first; without plain ones.
    pub(crate) fn all(signature: &Signature) -> impl Iterator<Item = Recipe> {
        let sizes = if has_dynamic_dims(signature) { &DYNAMIC_SIZES[..] } else { &DYNAMIC_SIZES[..1] };
        let levels = if signature.inputs.iter().any(is_narrowable) { LEVELS } else { 1 };
        sizes.iter().flat_map(move |size| (0..levels).map(|level| Recipe::new(*size, level)))
    }
}

/// Whether the level makes a difference to an input's values.
pub(crate) fn is_narrowable(spec: &TensorSpec) -> bool {
    !matches!(spec.dtype, DType::Bool | DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64)
}

pub(crate) fn has_dynamic_dims(signature: &Signature) -> bool {
    let skip = usize::from(signature.is_batched());
    signature.inputs.iter().any(|spec| match &spec.shape {
        None => true,
        Some(dims) => dims.iter().skip(skip).any(|dim| matches!(dim, Dim::Dynamic(_))),
    })
}

// === impl SampleRow ===

impl SampleRow {
    pub(crate) fn ordinary(number: usize) -> SampleRow {
        SampleRow { number, manner: Manner::Ordinary }
    }
}

// === impl Manner ===

impl Manner {
    /// Those that an ordinary row may meet in its batch.
    pub(crate) const HOSTILE: [Manner; 6] =
        [Manner::Large, Manner::Small, Manner::Padded, Manner::Missing, Manner::Zeros, Manner::Extreme];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Manner::Ordinary => "ordinary",
            Manner::Large => "large",
            Manner::Small => "small",
            Manner::Padded => "padded",
            Manner::Missing => "missing",
            Manner::Zeros => "zero",
            Manner::Extreme => "extreme",
        }
    }
}

// === impl Sample ===

impl Sample {
    /// Ordinary rows.
    pub(crate) fn new(signature: &Signature, rows: Range<usize>, recipe: Recipe) -> Sample {
        let rows: Vec<SampleRow> = rows.map(SampleRow::ordinary).collect();
        Sample::of(signature, &rows, recipe)
    }

    /// These rows, in this order. A model without a batch axis gets the first one's values.
    pub(crate) fn of(signature: &Signature, rows: &[SampleRow], recipe: Recipe) -> Sample {
        let batched = signature.is_batched();
        let tensor = |(index, spec): (usize, &TensorSpec)| {
            (!spec.optional || recipe.gives_optional).then(|| tensor(spec, index, rows, batched, recipe))
        };
        let inputs = signature.inputs.iter().enumerate().map(tensor).collect();
        Sample { inputs, rows: batched.then_some(rows.len()) }
    }

    pub(crate) fn run(&self, instance: &mut dyn Instance) -> Result<Vec<Tensor>, RunError> {
        self.lend(|views| instance.run(views))
    }

    /// See [`Instance::give_back_memory`].
    pub(crate) fn give_back_memory(&self, instance: &mut dyn Instance) -> Result<(), RunError> {
        self.lend(|views| instance.give_back_memory(views))
    }

    fn lend<R>(&self, take: impl FnOnce(&[Option<InputView<'_>>]) -> R) -> R {
        // Tensors own unaligned memory; instances are promised 64 bytes.
        let mut gather = Gather::default();
        gather.fill(std::iter::once(&self.inputs), self.rows);
        let views: Vec<Option<InputView<'_>>> = gather.views(&self.inputs).collect();
        take(&views)
    }
}

fn tensor(spec: &TensorSpec, input: usize, rows: &[SampleRow], batched: bool, recipe: Recipe) -> Tensor {
    let dims = spec.shape.as_deref().unwrap_or(&[]);
    let mut shape: Shape = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => recipe.dynamic_size,
        })
        .collect();
    let row_elements: usize = shape.iter().skip(usize::from(batched)).product();
    let width = shape.last().copied().filter(|_| shape.len() > usize::from(batched)).unwrap_or(1).max(1);
    if batched {
        shape[0] = rows.len();
    }
    let rows = if batched { rows } else { &rows[..1] };
    let mut data = BytesMut::new();
    let pieces = match spec.dtype {
        // Bytes, which two elements may share: they have no rows then.
        DType::Narrow(_) => spec.dtype.size_of(row_elements).unwrap_or_default(),
        _ => row_elements,
    };
    for row in rows {
        for element in 0..pieces {
            let element = Element { row: *row, input, number: element, width, recipe };
            element.push(&mut data, spec.dtype);
        }
    }
    Tensor::new(spec.dtype, shape, data.freeze())
        .expect("the sample has the elements of its shape; this is a bug")
}

/// One element of one row of one input.
struct Element {
    row: SampleRow,
    input: usize,
    number: usize,
    /// Elements along the last axis.
    width: usize,
    recipe: Recipe,
}

// === impl Element ===

impl Element {
    fn push(&self, data: &mut BytesMut, dtype: DType) {
        match dtype {
            DType::Bool => data.put_u8(u8::from(self.logical())),
            DType::Int8 => data.put_u8(self.whole(1 << 7) as u8),
            DType::Uint8 => data.put_u8(self.whole(1 << 8) as u8),
            DType::Int16 | DType::Uint16 => data.put_u16_le(self.whole(1 << 15) as u16),
            DType::Int32 | DType::Uint32 => data.put_u32_le(self.whole(1 << 15) as u32),
            DType::Int64 | DType::Uint64 => data.put_u64_le(self.whole(1 << 15)),
            DType::Fp16 => data.put_slice(&half::f16::from_f64(self.real()).to_le_bytes()),
            DType::Bf16 => data.put_slice(&half::bf16::from_f64(self.real()).to_le_bytes()),
            DType::Fp32 => data.put_f32_le(self.real() as f32),
            DType::Fp64 => data.put_f64_le(self.real()),
            // Small numbers near one, and no infinities, in every type of eight bits.
            DType::Narrow(_) => data.put_u8(0x38 | (self.whole(1 << 3) as u8 & 0x07)),
            DType::Bytes => {
                push_bytes_element(data, self.text().as_bytes()).expect("a short element fits; this is a bug")
            }
        }
    }

    /// Differs from row to row.
    fn noise(&self) -> u64 {
        mix(self.row.number as u64, self.input as u64, self.number as u64)
    }

    /// The same for all rows.
    fn phase(&self) -> u64 {
        mix(u64::from(u16::MAX), self.input as u64, self.number as u64)
    }

    /// Whether the row is filled up from before this element on: rows have different lengths, and the inputs of one
    /// row the same, as sequences and their masks have.
    fn is_padding(&self) -> bool {
        self.row.manner == Manner::Padded && self.number % self.width > (self.row.number * 3) % self.width
    }

    fn logical(&self) -> bool {
        match self.row.manner {
            _ if self.recipe.is_plain || self.is_padding() => false,
            Manner::Zeros => false,
            Manner::Extreme | Manner::Padded => true,
            _ => self.phase().wrapping_add(self.row.number as u64) % 2 == 1,
        }
    }

    /// Rows whose numbers are next to each other never have the same.
    fn whole(&self, end: u64) -> u64 {
        let (least, span) = match self.recipe.level(self.input) {
            0 => (0, 1000),
            1 => (0, 100),
            // Of lengths: from one element to all.
            2 => (1, self.recipe.dynamic_size.max(2) as u64),
            3 => (0, 8),
            4 => (1, 3),
            _ => (0, 2),
        };
        let span = span.min(end - least);
        match self.row.manner {
            _ if self.recipe.is_plain => 0,
            Manner::Zeros => least,
            Manner::Extreme => least + span - 1,
            _ if self.is_padding() => least,
            // 37 has no divisor in common with any of the spans but its own multiples.
            _ => least + (self.phase() % span + self.row.number as u64 * 37) % span,
        }
    }

    /// Rows differ in scale as well as in values, so that a mean or a maximum over the batch shows.
    fn real(&self) -> f64 {
        let unit = (self.noise() >> 40) as f64 / (1u64 << 24) as f64 * 2.0 - 1.0;
        let scaled = unit * [1.0, 0.25, 3.0][self.row.number % 3];
        match self.row.manner {
            _ if self.recipe.is_plain || self.is_padding() => 0.0,
            Manner::Ordinary | Manner::Padded => scaled,
            Manner::Large => scaled * 100.0,
            Manner::Small => scaled * 1e-3,
            Manner::Missing if self.noise().is_multiple_of(3) => f64::NAN,
            Manner::Missing => scaled,
            Manner::Zeros => 0.0,
            // Half precision ends at 65,504.
            Manner::Extreme => 30_000.0_f64.copysign(unit),
        }
    }

    fn text(&self) -> String {
        let noise = self.noise();
        let manner = self.row.manner;
        if self.recipe.is_plain || self.is_padding() || matches!(manner, Manner::Zeros) {
            return String::new();
        }
        match self.recipe.level(self.input) {
            level @ (0 | 1) => {
                let tokens = match (level, manner) {
                    (_, Manner::Missing) if noise.is_multiple_of(2) => return String::new(),
                    (_, Manner::Extreme) => 12,
                    (0, _) => 1 + (self.phase() as usize % 4 + self.row.number) % 5,
                    _ => 1,
                };
                let word = |token: usize| {
                    let letters =
                        if manner == Manner::Extreme { 20 } else { 1 + (noise as usize + token) % 9 };
                    let letter =
                        |place: usize| char::from(b'a' + (mix(noise, token as u64, place as u64) % 26) as u8);
                    (0..letters).map(letter).collect::<String>()
                };
                (0..tokens).map(word).collect::<Vec<_>>().join(" ")
            }
            2 => format!("{:.3}", self.real()),
            3 => (noise % 1000).to_string(),
            4 => (self.phase().wrapping_add(self.row.number as u64) % 8).to_string(),
            _ => (self.phase().wrapping_add(self.row.number as u64) % 2).to_string(),
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) over the element's coordinates.
fn mix(row: u64, input: u64, element: u64) -> u64 {
    let mut z = (row << 48) ^ (input << 32) ^ element;
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::{Elements, elements};
    use crate::tensor::BatchAxis;

    fn signature(dtype: DType, row: &[usize]) -> Signature {
        let mut dims = vec![Dim::Dynamic(None)];
        dims.extend(row.iter().map(|size| Dim::Fixed(*size)));
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            dtype,
            shape: Some(dims.clone()),
            optional: false,
            labels: Vec::new(),
        };
        Signature { inputs: vec![spec("a"), spec("b")], outputs: Vec::new(), batch: BatchAxis::Rows }
    }

    /// Each element of a row, as text.
    fn rows(dtype: DType, row: &[usize], rows: &[SampleRow], recipe: Recipe) -> Vec<Vec<String>> {
        let sample = Sample::of(&signature(dtype, row), rows, recipe);
        let tensors = sample.inputs.iter().flatten();
        let mut found = vec![Vec::new(); rows.len()];
        for tensor in tensors {
            for (index, found) in found.iter_mut().enumerate() {
                let row = tensor.rows(index..index + 1);
                match elements(&row) {
                    Elements::Whole(values) => found.extend(values.iter().map(ToString::to_string)),
                    Elements::Real(values) => found.extend(values.iter().map(ToString::to_string)),
                    Elements::Text(values) => {
                        found.extend(values.iter().map(|text| String::from_utf8_lossy(text).into_owned()));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn every_element_differs_between_rows_whose_numbers_are_near() {
        for dtype in DType::ALL {
            for level in 0..LEVELS {
                let made = rows(dtype, &[5], &[0, 1].map(SampleRow::ordinary), Recipe::new(16, level));
                for (one, other) in made[0].iter().zip(&made[1]) {
                    // Texts of numbers at random may be equal; whole numbers and logical ones are never.
                    assert!(one != other, "{dtype} at level {level}: {made:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_values_wherever_it_stands() {
        let hostile = |manner| SampleRow { number: 4, manner };
        for dtype in DType::ALL {
            let stacked: Vec<_> =
                [SampleRow::ordinary(7)].into_iter().chain(Manner::HOSTILE.map(hostile)).collect();
            let together = rows(dtype, &[3], &stacked, Recipe::new(16, 0));
            for (row, together) in stacked.iter().zip(together) {
                assert_eq!(rows(dtype, &[3], &[*row], Recipe::new(16, 0)), [together], "{dtype} {row:?}");
            }
        }
    }

    #[test]
    fn whole_numbers_go_beyond_one_and_rows_have_lengths() {
        let eight: Vec<_> = (0..8).map(SampleRow::ordinary).collect();
        let lengths = |level| rows(DType::Int64, &[], &eight, Recipe::new(16, level));
        let distinct = |level| lengths(level).into_iter().collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!([0, 1, 2, 3].map(distinct), [8; 4], "{:?}", lengths(3));
        assert!(lengths(0).iter().flatten().any(|length| length.parse::<u64>().is_ok_and(|l| l > 100)));
        let padded: Vec<_> = (0..4).map(|number| SampleRow { number, manner: Manner::Padded }).collect();
        let masks = rows(DType::Bool, &[8], &padded, Recipe::new(16, 0));
        let lengths: Vec<_> =
            masks.iter().map(|row| row[..8].iter().filter(|on| *on == "1").count()).collect();
        assert_eq!(lengths, [1, 4, 7, 2]);
    }

    #[test]
    fn texts_have_different_lengths_and_numbers_of_words() {
        let five: Vec<_> = (0..5).map(SampleRow::ordinary).collect();
        let texts = rows(DType::Bytes, &[1], &five, Recipe::new(16, 0));
        let words: std::collections::BTreeSet<_> =
            texts.iter().map(|row| row[0].split(' ').count()).collect();
        assert_eq!(words.len(), 5, "{texts:?}");
        let extreme = SampleRow { number: 0, manner: Manner::Extreme };
        let [longest] = &rows(DType::Bytes, &[1], &[extreme], Recipe::new(16, 0))[..] else { panic!() };
        assert!(texts.iter().all(|row| row[0].len() < longest[0].len()));
    }

    #[test]
    fn missing_values_and_large_ones_are_among_them() {
        let made = |manner| rows(DType::Fp32, &[16], &[SampleRow { number: 1, manner }], Recipe::new(16, 0));
        assert!(made(Manner::Missing)[0].iter().any(|value| value == "NaN"));
        let largest = |manner| {
            made(manner)[0].iter().map(|value| value.parse::<f64>().unwrap().abs()).fold(0.0, f64::max)
        };
        assert!(largest(Manner::Large) > 10.0 && largest(Manner::Extreme) == 30_000.0);
        assert!(largest(Manner::Small) < 1e-2 && largest(Manner::Zeros) == 0.0);
    }
}
