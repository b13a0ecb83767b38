//! Sizes as products of a number and of unknowns, one of which is the number of rows: equal and divisible where they are so for every request.

use std::collections::HashMap;

use smallvec::SmallVec;

/// Bounds from here on are beyond every axis: tf2onnx writes this number, others the largest of 32 or 64 bits.
pub(super) const TO_THE_END: i64 = 1_000_000_000;

/// The number of rows of the batch.
const ROWS: u32 = 0;
/// Set in unknowns that may be negative or no integers.
const ANY: u32 = 1 << 31;

/// `factor` times the unknowns, which are sorted and may repeat. All but [`ROWS`] have the same value
/// whichever rows are in the batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Size {
    factor: i64,
    unknowns: SmallVec<[u32; 4]>,
}

/// Makes unknowns.
#[derive(Debug, Default)]
pub(super) struct Unknowns {
    made: u32,
    merged: HashMap<(Size, Size), Size>,
}

// === impl Size ===

impl Size {
    pub(super) fn known(value: i64) -> Size {
        Size { factor: value, unknowns: SmallVec::new() }
    }

    pub(super) fn one() -> Size {
        Size::known(1)
    }

    pub(super) fn rows() -> Size {
        Size { factor: 1, unknowns: SmallVec::from_slice(&[ROWS]) }
    }

    pub(super) fn value(&self) -> Option<i64> {
        self.unknowns.is_empty().then_some(self.factor)
    }

    pub(super) fn is_one(&self) -> bool {
        self.value() == Some(1)
    }

    pub(super) fn counts_rows(&self) -> bool {
        self.unknowns.first() == Some(&ROWS)
    }

    /// Whether it is a size for certain, and so not negative.
    pub(super) fn is_size(&self) -> bool {
        self.factor >= 0 && self.unknowns.iter().all(|unknown| unknown & ANY == 0)
    }

    /// What each row has of it, where it is a multiple of the number of rows.
    pub(super) fn each(&self) -> Option<Size> {
        let each = self.divided_by(&Size::rows())?;
        (!each.counts_rows()).then_some(each)
    }

    pub(super) fn times(&self, other: &Size) -> Option<Size> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Size::known(0));
        }
        let mut unknowns = self.unknowns.clone();
        unknowns.extend_from_slice(&other.unknowns);
        unknowns.sort_unstable();
        Some(Size { factor, unknowns })
    }

    /// `None` where the quotient is no integer for some values of the unknowns.
    pub(super) fn divided_by(&self, other: &Size) -> Option<Size> {
        if self.factor.checked_rem(other.factor)? != 0 {
            return None;
        }
        let mut unknowns = self.unknowns.clone();
        for unknown in &other.unknowns {
            let index = unknowns.iter().position(|mine| mine == unknown)?;
            unknowns.remove(index);
        }
        Some(Size { factor: self.factor / other.factor, unknowns })
    }

    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Size>) -> Option<Size> {
        sizes.into_iter().try_fold(Size::one(), |product, size| product.times(size))
    }
}

// === impl Unknowns ===

impl Unknowns {
    /// A size of which nothing is known but that it is the same whichever rows are in the batch.
    pub(super) fn size(&mut self) -> Size {
        self.made += 1;
        Size { factor: 1, unknowns: SmallVec::from_slice(&[self.made]) }
    }

    /// The same, and it may be negative or no integer.
    pub(super) fn number(&mut self) -> Size {
        self.made += 1;
        Size { factor: 1, unknowns: SmallVec::from_slice(&[self.made | ANY]) }
    }

    /// The size that two become when they are broadcast, where they can be.
    pub(super) fn broadcast(&mut self, one: &Size, other: &Size) -> Size {
        match (one.value(), other.value()) {
            _ if one == other => one.clone(),
            (Some(1), _) => other.clone(),
            (_, Some(1)) | (Some(_), _) => one.clone(),
            (_, Some(_)) => other.clone(),
            _ => {
                let pair = if one < other { (one, other) } else { (other, one) };
                let pair = (pair.0.clone(), pair.1.clone());
                if let Some(known) = self.merged.get(&pair) {
                    return known.clone();
                }
                let size = self.size();
                self.merged.insert(pair, size.clone());
                size
            }
        }
    }
}
