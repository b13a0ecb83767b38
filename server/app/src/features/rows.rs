//! How lists of numbers become rows of one input: flat or nested, one or many. Pure.

use gristmill_engine::tensor::{Dim, ShapeText};

/// Where the numbers of a nested list go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Without the batch axis.
    pub(super) row: Vec<usize>,
    pub(super) rows: usize,
    /// The caller gave one row and not a list of rows.
    pub(super) single: bool,
}

/// Places lists nested as `found` on an input whose row is `row`. `listed` means that the outermost
/// list, which the caller called `key`, is one of rows, whatever it looks like.
///
/// A flat list is one row; a list of flat lists, or of lists nested as a row is, are many; lists nested
/// as one row are one.
///
/// # Errors
/// What the row takes and what came, to follow `model 'x' `.
pub(super) fn place(found: &[usize], row: &[Dim], listed: bool, key: &str) -> Result<Placed, String> {
    let single = |row| Ok(Placed { row, rows: 1, single: true });
    let many = |row| Ok(Placed { row, rows: found[0], single: false });
    match found {
        [] => match unflatten(1, row).filter(|_| !listed) {
            Some(row) => single(row),
            None => Err("takes a list of features, got a single value".into()),
        },
        &[count] if !listed => match unflatten(count, row) {
            Some(row) => single(row),
            None => Err(format!("takes {} per row, got {count}", feature_count(row))),
        },
        [_] => match unflatten(1, row) {
            Some(row) => many(row),
            None => Err(format!("takes {} per row: each of '{key}' must be a list", feature_count(row))),
        },
        [_, inner @ ..] => {
            if let [count] = inner
                && let Some(row) = unflatten(*count, row)
            {
                return many(row);
            }
            if fits(inner, row) {
                return many(inner.to_vec());
            }
            if !listed && fits(found, row) {
                return single(found.to_vec());
            }
            match inner {
                [count] => Err(wrong_count(row, 0, *count)),
                _ => Err(format!(
                    "takes rows of {} flat or nested as {row:?}, got lists nested as {}",
                    feature_count(row),
                    ShapeText(found),
                    row = protocol_shape(row),
                )),
            }
        }
    }
}

/// The sizes of a row with `count` elements, if they follow from the count.
pub(crate) fn unflatten(count: usize, row: &[Dim]) -> Option<Vec<usize>> {
    let fixed = fixed_product(row);
    let dynamic = row.iter().filter(|dim| matches!(dim, Dim::Dynamic(_))).count();
    let open = match dynamic {
        0 if count == fixed => 1,
        1 if fixed > 0 && count.is_multiple_of(fixed) => count / fixed,
        _ => return None,
    };
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Dynamic(_) => open,
    };
    Some(row.iter().map(size).collect())
}

/// Whether lists nested as `found` are one row.
pub(super) fn fits(found: &[usize], row: &[Dim]) -> bool {
    found.len() == row.len()
        && found.iter().zip(row).all(|(size, dim)| match dim {
            Dim::Fixed(expected) => expected == size,
            Dim::Dynamic(_) => true,
        })
}

/// What is wrong with row `index` (from 0), to follow `model 'x' `.
pub(super) fn wrong_count(row: &[Dim], index: usize, count: usize) -> String {
    format!("takes {} per row, row {index} has {count}", feature_count(row))
}

/// For example `30 features`.
pub(crate) fn feature_count(row: &[Dim]) -> String {
    let fixed = fixed_product(row);
    match row.iter().any(|dim| matches!(dim, Dim::Dynamic(_))) {
        true if fixed == 1 => "any number of features".into(),
        true => format!("a multiple of {fixed} features"),
        false if fixed == 1 => "1 feature".into(),
        false => format!("{fixed} features"),
    }
}

fn fixed_product(row: &[Dim]) -> usize {
    let fixed = row.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Dynamic(_) => None,
    });
    fixed.fold(1, usize::saturating_mul)
}

fn protocol_shape(row: &[Dim]) -> Vec<i64> {
    row.iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size as i64,
            Dim::Dynamic(_) => -1,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[usize], row: &[i64], listed: bool, expected: Result<(&[usize], usize, bool), &str>) {
        let row: Vec<Dim> =
            row.iter().map(|&size| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed)).collect();
        let expected = expected
            .map(|(row, rows, single)| Placed { row: row.to_vec(), rows, single })
            .map_err(str::to_owned);
        assert_eq!(
            place(found, &row, listed, "instances"),
            expected,
            "{found:?} on {row:?}, listed: {listed}"
        );
    }

    #[test]
    fn flat_rows() {
        check(&[30], &[30], false, Ok((&[30], 1, true)));
        check(&[2, 30], &[30], false, Ok((&[30], 2, false)));
        check(&[1, 30], &[30], false, Ok((&[30], 1, false)));
        check(&[1, 30], &[30], true, Ok((&[30], 1, false)));
        check(&[29], &[30], false, Err("takes 30 features per row, got 29"));
        check(&[2, 29], &[30], false, Err("takes 30 features per row, row 0 has 29"));
        check(&[30], &[30], true, Err("takes 30 features per row: each of 'instances' must be a list"));
        check(&[5], &[-1], false, Ok((&[5], 1, true)));
        check(&[3, 5], &[-1], false, Ok((&[5], 3, false)));
        check(&[], &[3], false, Err("takes a list of features, got a single value"));
        check(&[0], &[3], false, Err("takes 3 features per row, got 0"));
    }

    #[test]
    fn single_feature_rows() {
        check(&[1], &[1], false, Ok((&[1], 1, true)));
        check(&[4], &[1], true, Ok((&[1], 4, false)));
        check(&[4], &[], true, Ok((&[], 4, false)));
        check(&[1], &[], false, Ok((&[], 1, true)));
        check(&[4], &[], false, Err("takes 1 feature per row, got 4"));
        check(&[4, 1], &[], false, Ok((&[], 4, false)));
    }

    #[test]
    fn images() {
        check(&[64], &[1, 8, 8], false, Ok((&[1, 8, 8], 1, true)));
        check(&[5, 64], &[1, 8, 8], false, Ok((&[1, 8, 8], 5, false)));
        check(&[1, 8, 8], &[1, 8, 8], false, Ok((&[1, 8, 8], 1, true)));
        check(&[2, 1, 8, 8], &[1, 8, 8], false, Ok((&[1, 8, 8], 2, false)));
        check(&[2, 1, 8, 8], &[1, 8, 8], true, Ok((&[1, 8, 8], 2, false)));
        check(&[8, 8], &[8, 8], false, Ok((&[8, 8], 1, true)));
        check(&[3, 64], &[8, 8], false, Ok((&[8, 8], 3, false)));
        check(&[30], &[-1, 10], false, Ok((&[3, 10], 1, true)));
        check(&[31], &[-1, 10], false, Err("takes a multiple of 10 features per row, got 31"));
        check(&[4], &[-1, -1], false, Err("takes any number of features per row, got 4"));
        check(&[2, 2], &[-1, -1], false, Ok((&[2, 2], 1, true)));
        check(
            &[1, 7, 8],
            &[1, 8, 8],
            false,
            Err("takes rows of 64 features flat or nested as [1, 8, 8], got lists nested as [1, 7, 8]"),
        );
    }
}
