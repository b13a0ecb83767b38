//! One use of an operator: its attributes, its operands, and how a verdict about it is worded.

use super::size::{Size, Unknowns};
use super::value::{Dependence, Value, Verdict};
use crate::graph::{Attribute, Graph, Node};
use crate::initializer::Initializer;

/// Attributes of a node; inside a function they may refer to those of its call.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'c, 'a> {
    pub(super) own: &'a [Attribute],
    pub(super) call: Option<&'c FunctionAttributes<'c, 'a>>,
}

/// What a call gives to a function, and what the function has instead.
pub(super) struct FunctionAttributes<'c, 'a> {
    pub(super) given: Attributes<'c, 'a>,
    pub(super) defaults: &'a [Attribute],
}

pub(super) struct Call<'c, 'a> {
    pub(super) node: &'a Node,
    pub(super) attributes: Attributes<'c, 'a>,
    pub(super) operands: &'c [Option<Value>],
    /// Of the operator's domain, as the model imports it.
    pub(super) version: i64,
}

/// What an operator's outputs are, or why they cannot be followed.
pub(super) type Outcome = Result<Vec<Value>, Verdict>;

// === impl Attributes ===

impl<'a> Attributes<'_, 'a> {
    fn find(&self, name: &str) -> Option<&'a Attribute> {
        let own = self.own.iter().find(|attribute| attribute.name == name)?;
        if own.reference.is_empty() {
            return Some(own);
        }
        let call = self.call?;
        call.given
            .find(&own.reference)
            .or_else(|| call.defaults.iter().find(|default| default.name == own.reference))
    }
}

// === impl Call ===

impl<'a> Call<'_, 'a> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.find(name).is_some()
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.attributes.find(name).map(|attribute| attribute.integer)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.integer(name).unwrap_or(0) != 0
    }

    pub(super) fn integers(&self, name: &str) -> Option<&'a [i64]> {
        self.attributes.find(name).map(|attribute| attribute.integers.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attributes.find(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(&self.attributes.find(name)?.string).ok()
    }

    pub(super) fn texts(&self, name: &str) -> &'a [Vec<u8>] {
        self.attributes.find(name).map_or(&[], |attribute| attribute.strings.as_slice())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a Initializer> {
        self.attributes.find(name)?.tensor.as_ref()
    }

    pub(super) fn graph(&self, name: &str) -> Option<&'a Graph> {
        self.attributes.find(name)?.graph.as_ref()
    }

    fn named(&self, what: &str) -> std::rc::Rc<str> {
        format!("{} '{}' {what}", self.node.operator, self.node.title()).into()
    }

    pub(super) fn mixes(&self, what: &str) -> Verdict {
        Verdict::Mixes(self.named(what))
    }

    pub(super) fn undecided(&self, what: &str) -> Verdict {
        Verdict::Undecided(self.named(what))
    }

    pub(super) fn random(&self, what: &str) -> Verdict {
        Verdict::Random(self.named(what))
    }

    pub(super) fn unranked(&self) -> Verdict {
        self.undecided("takes a tensor whose number of dimensions is not known")
    }

    /// An operand that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.operands.get(index)?.as_ref()
    }

    /// # Errors
    /// It is not there.
    pub(super) fn operand(&self, index: usize) -> Result<&Value, Verdict> {
        self.optional(index).ok_or_else(|| self.undecided(&format!("has no input {index}")))
    }

    /// An operand that says what to do with the others, such as an axis or a shape; it must be the same for all rows.
    ///
    /// # Errors
    /// Rows give it, or their number does.
    pub(super) fn setting(&self, index: usize, what: &str) -> Result<Option<&Value>, Verdict> {
        let Some(value) = self.optional(index) else { return Ok(None) };
        match value.dependence {
            Dependence::Shared => Ok(Some(value)),
            Dependence::Count => Err(self.mixes(&format!("takes its {what} from the number of rows"))),
            _ => Err(self.mixes(&format!("takes its {what} from the values of the rows"))),
        }
    }

    /// Integers from an attribute in older versions of the operator, and from an operand since.
    ///
    /// # Errors
    /// They are there, and what they are is not known.
    pub(super) fn integers_of(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>, Verdict> {
        if let Some(integers) = self.integers(name) {
            return Ok(Some(integers.to_vec()));
        }
        let Some(value) = self.setting(index, name)? else { return Ok(None) };
        match value.integers() {
            Some(integers) => Ok(Some(integers)),
            None => {
                Err(self.undecided(&format!("takes its {name} from a tensor whose values are not known")))
            }
        }
    }

    /// `axis` counted from the front, of a tensor with `rank` dimensions.
    ///
    /// # Errors
    /// It is counted from the back, and the number of dimensions is not known.
    pub(super) fn axis(&self, axis: i64, rank: Option<usize>) -> Result<usize, Verdict> {
        let outside = || self.undecided(&format!("has an axis {axis} that its input lacks"));
        match (usize::try_from(axis), rank) {
            (Ok(axis), None) => Ok(axis),
            (Ok(axis), Some(rank)) if axis < rank => Ok(axis),
            (Ok(_), Some(_)) => Err(outside()),
            (Err(_), Some(rank)) => i64::try_from(rank)
                .ok()
                .and_then(|rank| usize::try_from(axis + rank).ok())
                .ok_or_else(outside),
            (Err(_), None) => Err(self.unranked()),
        }
    }

    /// The shape of an operand.
    ///
    /// # Errors
    /// Its number of dimensions is not known.
    pub(super) fn shape<'v>(&self, value: &'v Value) -> Result<&'v [Size], Verdict> {
        value.shape.as_deref().ok_or_else(|| self.unranked())
    }
}

/// Dimensions of an operand that is broadcast, and which of them counts rows.
pub(super) struct Extent<'v> {
    pub(super) sizes: &'v [Size],
    pub(super) row_axis: Option<usize>,
}

impl Call<'_, '_> {
    /// Broadcasts as numpy does: the axis of the rows, if any, and the sizes.
    ///
    /// # Errors
    /// Rows meet other rows, or what may be an axis of several entries.
    pub(super) fn align(
        &self,
        extents: &[Extent<'_>],
        unknowns: &mut Unknowns,
    ) -> Result<(Option<usize>, Vec<Size>), Verdict> {
        let rank = extents.iter().map(|extent| extent.sizes.len()).max().unwrap_or(0);
        let mut row_axis = None;
        for extent in extents {
            let Some(axis) = extent.row_axis.map(|axis| axis + rank - extent.sizes.len()) else { continue };
            if row_axis.is_some_and(|known| known != axis) {
                return Err(self.mixes("combines every row with every other"));
            }
            row_axis = Some(axis);
        }
        let mut sizes = vec![Size::one(); rank];
        for extent in extents {
            let offset = rank - extent.sizes.len();
            for (index, size) in extent.sizes.iter().enumerate() {
                let merged = &mut sizes[offset + index];
                if Some(offset + index) != row_axis {
                    *merged = unknowns.broadcast(merged, size);
                } else if extent.row_axis.is_some() {
                    if !merged.is_one() && merged != size {
                        return Err(
                            self.undecided("combines tensors with different numbers of entries a row")
                        );
                    }
                    *merged = size.clone();
                } else {
                    match size.value() {
                        Some(1) => {}
                        Some(entries) => {
                            return Err(self
                                .mixes(&format!("combines the rows with the {entries} entries of an axis")));
                        }
                        None => {
                            return Err(
                                self.undecided("combines the rows with an axis that may have any size")
                            );
                        }
                    }
                }
            }
        }
        Ok((row_axis, sizes))
    }

    /// Broadcasts operands, each entry of which gives one entry of the result.
    ///
    /// # Errors
    /// See [`Call::align`].
    pub(super) fn broadcast(&self, operands: &[&Value], unknowns: &mut Unknowns) -> Result<Value, Verdict> {
        if let [only] = operands {
            return Ok(only.without_content());
        }
        let rows = operands.iter().find(|value| value.row_axis().is_some());
        let counts = operands.iter().any(|value| value.is_count());
        if rows.is_some() && counts {
            return Err(self.mixes("uses the number of rows as a value"));
        }
        if operands.iter().any(|value| value.shape.is_none()) {
            return match rows {
                None if counts => Ok(Value { dependence: Dependence::Count, shape: None, content: None }),
                None => Ok(Value::shared(None)),
                // A number for all entries, and no dimension more.
                Some(rows) if operands.iter().all(|value| std::ptr::eq(*value, *rows) || single(value)) => {
                    Ok(rows.without_content())
                }
                Some(_) => Err(self.unranked()),
            };
        }
        let extents: Vec<Extent<'_>> = operands
            .iter()
            .map(|value| Extent {
                sizes: value.shape.as_deref().unwrap_or_default(),
                row_axis: value.row_axis(),
            })
            .collect();
        let (row_axis, sizes) = self.align(&extents, unknowns)?;
        Ok(match row_axis {
            Some(axis) => self.rows_at(axis, sizes)?,
            None if counts => Value { dependence: Dependence::Count, shape: Some(sizes), content: None },
            None => Value::shared(Some(sizes)),
        })
    }

    /// A tensor of these sizes, the one on `axis` a multiple of the number of rows.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn rows_at(&self, axis: usize, sizes: Vec<Size>) -> Result<Value, Verdict> {
        match sizes.get(axis).and_then(Size::each) {
            Some(each) => Ok(Value::rows(axis, each, Some(sizes))),
            None => {
                Err(self.undecided("gives a number of entries that is no multiple of the number of rows"))
            }
        }
    }
}

fn single(value: &Value) -> bool {
    value.is_shared() && value.is_single() && value.rank().is_some_and(|rank| rank <= 1)
}
