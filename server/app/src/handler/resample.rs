//! Resizes 8-bit images as Pillow does (`Image.resize` with `BILINEAR`), and so as torchvision does with antialiasing: a
//! triangle filter as wide as the reduction, in fixed point, columns first and then rows.
//!
//! After `Resample.c` of Pillow 13: its coefficients, its 22 bits of precision and its rounding. Pillow takes rows first
//! where that is less work, which can differ by one level.

use std::ops::Range;

/// Of the coefficients: what 8 bits of a value and 2 of headroom leave of 32.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Interleaved values of 8 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<u8>,
}

/// What an axis becomes: its new length, and the part of that which is wanted.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) length: usize,
    pub(super) wanted: Range<usize>,
}

/// One value of the result: the weights of those from `first` on.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

// === impl Pixels ===

impl Pixels {
    /// The wanted part of the image when it is as large as the axes say.
    pub(super) fn resized(&self, columns: &Axis, rows: &Axis) -> Pixels {
        let by_column = windows(self.width, columns);
        let by_row = windows(self.height, rows);
        // Only the rows that the result needs.
        let first_row = by_row.first().map_or(0, |window| window.first);
        let last_row = by_row.last().map_or(0, |window| window.first + window.weights.len());
        let (width, channels) = (by_column.len(), self.channels);
        let mut narrow = Vec::with_capacity((last_row - first_row) * width * channels);
        for row in self.values.chunks_exact(self.width * channels).take(last_row).skip(first_row) {
            for window in &by_column {
                for channel in 0..channels {
                    let values = row[window.first * channels + channel..].iter().step_by(channels);
                    narrow.push(weighted(values, &window.weights));
                }
            }
        }
        let line = width * channels;
        let mut values = Vec::with_capacity(by_row.len() * line);
        for window in &by_row {
            let above = &narrow[(window.first - first_row) * line..];
            values.extend((0..line).map(|at| weighted(above[at..].iter().step_by(line), &window.weights)));
        }
        Pixels { width, height: by_row.len(), channels, values }
    }
}

fn weighted<'a>(values: impl Iterator<Item = &'a u8>, weights: &[i32]) -> u8 {
    let half = 1 << (PRECISION_BITS - 1);
    let sum = values.zip(weights).fold(half, |sum, (&value, &weight)| sum + i32::from(value) * weight);
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn windows(length: usize, axis: &Axis) -> Vec<Window> {
    let scale = length as f64 / axis.length as f64;
    // Narrower than one value it would miss some.
    let support = scale.max(1.0);
    let window = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(length);
        let triangle = |at: usize| (1.0 - ((at as f64 - center + 0.5) / support).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(triangle).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (0.5 + weight / total * f64::from(1 << PRECISION_BITS)) as i32;
        Window { first, weights: weights.iter().map(fixed).collect() }
    };
    axis.wanted.clone().map(window).collect()
}
