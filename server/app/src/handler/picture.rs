//! A JPEG or PNG file as a model's input: decoded, resized, cropped and normalised as torchvision does it.

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Shape, Tensor};

use super::decode::decode;
use super::resample::{Axis, Pixels};

/// How an image becomes an input.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) color: Color,
    pub(super) layout: Layout,
    pub(super) height: usize,
    pub(super) width: usize,
    /// The shorter side before the middle is cut out; without it the image is stretched to the size.
    pub(super) shorter_side: Option<usize>,
    pub(super) values: Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    Rgb,
    Bgr,
    Gray,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Channels, rows, columns.
    Planes,
    /// Rows, columns, channels.
    Interleaved,
}

/// What becomes of a value of 8 bits.
#[derive(Debug)]
pub(super) enum Values {
    /// It stays.
    Bytes,
    /// By channel and value: (value / 255 − mean) / std.
    Floats(Vec<[f32; 256]>),
}

// === impl Color ===

impl Color {
    pub(super) fn channels(self) -> usize {
        match self {
            Color::Rgb | Color::Bgr => 3,
            Color::Gray => 1,
        }
    }
}

// === impl Values ===

impl Values {
    /// One mean and one standard deviation for each channel.
    pub(super) fn normalized(mean: &[f32], std: &[f32]) -> Values {
        let table =
            |(mean, std): (&f32, &f32)| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        Values::Floats(mean.iter().zip(std).map(table).collect())
    }
}

// === impl Picture ===

impl Picture {
    /// # Errors
    /// `InvalidInput` for what is no JPEG or PNG, or too large.
    pub(super) fn read(&self, content: &Bytes) -> Result<NamedTensor, InferError> {
        use tokio::runtime::{Handle, RuntimeFlavor};
        // Decoding takes milliseconds, in which other requests of this thread would wait.
        let data = match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| self.data(content)),
            _ => self.data(content),
        }?;
        let dtype = match self.values {
            Values::Bytes => DType::Uint8,
            Values::Floats(_) => DType::Fp32,
        };
        let tensor = Tensor::new(dtype, self.shape.clone(), data.into())
            .map_err(|error| InferError::InvalidInput(format!("input '{}': {error}", self.name)))?;
        Ok(NamedTensor { name: self.name.clone(), tensor })
    }

    /// The elements of the tensor.
    fn data(&self, content: &[u8]) -> Result<Vec<u8>, InferError> {
        let decoded = decode(content).map_err(|why| {
            InferError::InvalidInput(format!("input '{}' takes a JPEG or PNG file: {why}", self.name))
        })?;
        let pixels = self.fit(&self.recolor(decoded));
        Ok(self.arrange(&pixels.values))
    }

    /// Colours as the model takes them; grey as Pillow's `convert` makes it.
    fn recolor(&self, mut pixels: Pixels) -> Pixels {
        match self.color {
            Color::Rgb => {}
            Color::Bgr => pixels.values.chunks_exact_mut(3).for_each(<[u8]>::reverse),
            Color::Gray => {
                let weighted = |pixel: &[u8]| {
                    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
                    // ITU-R BT.601 in 16 bits, as Pillow rounds it.
                    ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
                };
                pixels.values = pixels.values.chunks_exact(3).map(weighted).collect();
                pixels.channels = 1;
            }
        }
        pixels
    }

    fn fit(&self, pixels: &Pixels) -> Pixels {
        let (width, height) = (pixels.width, pixels.height);
        let (columns, rows) = match self.shorter_side {
            None => (whole(self.width), whole(self.height)),
            Some(side) => {
                // torchvision cuts the longer side down to a whole number, and rounds the offsets to even ones.
                let long = |long: usize, short: usize| (side as f64 * long as f64 / short as f64) as usize;
                let (to_width, to_height) = match width <= height {
                    true => (side, long(height, width)),
                    false => (long(width, height), side),
                };
                (middle(to_width, self.width), middle(to_height, self.height))
            }
        };
        pixels.resized(&columns, &rows)
    }

    /// Values in the order and the type of the tensor.
    fn arrange(&self, values: &[u8]) -> Vec<u8> {
        let channels = self.color.channels();
        let order = |each: &mut dyn FnMut(usize, u8)| match self.layout {
            Layout::Interleaved => {
                values.iter().enumerate().for_each(|(at, &value)| each(at % channels, value))
            }
            Layout::Planes => (0..channels).for_each(|channel| {
                values[channel..].iter().step_by(channels).for_each(|&value| each(channel, value));
            }),
        };
        let mut data = Vec::with_capacity(values.len() * size_of::<f32>());
        match &self.values {
            Values::Bytes => order(&mut |_channel, value| data.push(value)),
            Values::Floats(tables) => order(&mut |channel, value| {
                data.extend_from_slice(&tables[channel][usize::from(value)].to_le_bytes());
            }),
        }
        data
    }
}

fn whole(length: usize) -> Axis {
    Axis { length, wanted: 0..length }
}

fn middle(length: usize, wanted: usize) -> Axis {
    let first = ((length - wanted) as f64 / 2.0).round_ties_even() as usize;
    Axis { length, wanted: first..first + wanted }
}
