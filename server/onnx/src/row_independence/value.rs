//! What is known of a tensor: how it depends on the rows of the batch, its shape, and its elements where it holds sizes.

use std::rc::Rc;

use super::size::{Size, Unknowns};
use crate::initializer::{Initializer, Number};

/// Elements that are followed of one tensor: axes, sizes, paddings.
pub(super) const CONTENT_MAX: usize = 64;

/// Why a tensor's rows are not known to be apart, from the least to the worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Undecided(Rc<str>),
    Random(Rc<str>),
    Mixes(Rc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Dependence {
    /// The same whichever rows are in the batch, and however many. It may depend on other sizes.
    Shared,
    /// Depends on the number of rows, and not on what is in them.
    Count,
    /// `axis` has `each` entries for every row, those of one row side by side in the rows' order. They are what
    /// they are when the row is alone.
    Rows { axis: usize, each: Size },
    /// Not to be followed further.
    Lost(Verdict),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Element {
    Size(Size),
    Float(f32),
    /// Depends on the number of rows in some way.
    Count,
}

/// A tensor, or a sequence of tensors of which the same is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) dependence: Dependence,
    /// `None` where not even the number of dimensions is known.
    pub(super) shape: Option<Vec<Size>>,
    /// In row-major order; only of tensors that no row's values are in.
    pub(super) content: Option<Vec<Element>>,
}

// === impl Value ===

impl Value {
    pub(super) fn shared(shape: Option<Vec<Size>>) -> Value {
        Value { dependence: Dependence::Shared, shape, content: None }
    }

    pub(super) fn lost(verdict: Verdict) -> Value {
        Value { dependence: Dependence::Lost(verdict), shape: None, content: None }
    }

    /// With `each` entries a row on `axis` of `shape`, which is corrected to say so.
    pub(super) fn rows(axis: usize, each: Size, shape: Option<Vec<Size>>) -> Value {
        let shape = shape.and_then(|mut shape| {
            *shape.get_mut(axis)? = each.times(&Size::rows())?;
            Some(shape)
        });
        Value { dependence: Dependence::Rows { axis, each }, shape, content: None }
    }

    /// A tensor that depends on no row's values.
    pub(super) fn with_content(shape: Vec<Size>, content: Vec<Element>) -> Value {
        let counts = content.iter().any(Element::counts_rows);
        let dependence = if counts { Dependence::Count } else { Dependence::Shared };
        let content = (content.len() <= CONTENT_MAX).then_some(content);
        Value { dependence, shape: Some(shape), content }
    }

    /// A vector of sizes.
    pub(super) fn sizes(sizes: Vec<Size>) -> Value {
        let shape = vec![length(sizes.len())];
        Value::with_content(shape, sizes.into_iter().map(Element::Size).collect())
    }

    pub(super) fn weights(tensor: &Initializer) -> Value {
        let shape = tensor.dims.iter().map(|&dim| Size::known(dim)).collect();
        let numbers = tensor.numbers().filter(|numbers| numbers.len() <= CONTENT_MAX);
        let element = |number| match number {
            Number::Integer(value) => Element::Size(Size::known(value)),
            Number::Float(value) => Element::Float(value),
        };
        let content = numbers.map(|numbers| numbers.into_iter().map(element).collect());
        Value { dependence: Dependence::Shared, shape: Some(shape), content }
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.dependence == Dependence::Shared
    }

    pub(super) fn is_count(&self) -> bool {
        self.dependence == Dependence::Count
    }

    /// The axis of the rows.
    pub(super) fn row_axis(&self) -> Option<usize> {
        match self.dependence {
            Dependence::Rows { axis, .. } => Some(axis),
            _ => None,
        }
    }

    /// Whether it has exactly one element.
    pub(super) fn is_single(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.iter().all(Size::is_one))
    }

    /// Its elements, where all are known integers.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        self.content.as_ref()?.iter().map(Element::integer).collect()
    }

    /// Its elements, each a size or an unknown: also where only their number is known.
    pub(super) fn elements(&self, unknowns: &mut Unknowns) -> Option<Vec<Element>> {
        if let Some(content) = &self.content {
            return Some(content.clone());
        }
        let count = Size::product(self.shape.as_ref()?)?.value()?;
        let count = usize::try_from(count).ok().filter(|&count| count <= CONTENT_MAX)?;
        let element = |_| match self.dependence {
            Dependence::Shared => Some(Element::Size(unknowns.number())),
            Dependence::Count => Some(Element::Count),
            _ => None,
        };
        (0..count).map(element).collect()
    }

    /// The same tensor without its elements.
    pub(super) fn without_content(&self) -> Value {
        Value { content: None, ..self.clone() }
    }
}

// === impl Element ===

impl Element {
    pub(super) fn counts_rows(&self) -> bool {
        match self {
            Element::Size(size) => size.counts_rows(),
            Element::Float(_) => false,
            Element::Count => true,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Element::Size(size) => size.value(),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Element::Size(size) => size.value().map(|value| value as f64),
            Element::Float(value) => Some((*value).into()),
            Element::Count => None,
        }
    }

    pub(super) fn size(&self) -> Option<&Size> {
        match self {
            Element::Size(size) => Some(size),
            _ => None,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// The worse of several is told.
    pub(super) fn severity(&self) -> u8 {
        match self {
            Verdict::Undecided(_) => 0,
            Verdict::Random(_) => 1,
            Verdict::Mixes(_) => 2,
        }
    }
}

/// The size of an axis with so many entries.
pub(super) fn length(entries: usize) -> Size {
    Size::known(i64::try_from(entries).unwrap_or(i64::MAX))
}
