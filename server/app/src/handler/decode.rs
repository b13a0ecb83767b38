//! JPEG and PNG files as red, green and blue values of 8 bits.

use std::io::Cursor;

use png::{ColorType, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::resample::Pixels;

/// Most memory that a file may take when it is decoded: a photograph of 40 megapixels fits.
const DECODED_BYTES_MAX: usize = 128 << 20;
/// Longest side that a file may have.
const SIDE_MAX: usize = 1 << 15;

const JPEG_START: &[u8] = &[0xff, 0xd8, 0xff];
const PNG_START: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Grey values become three that are equal; how far a PNG file is transparent counts for nothing.
///
/// # Errors
/// The text says what is wrong with the file.
pub(super) fn decode(content: &[u8]) -> Result<Pixels, String> {
    match content {
        _ if content.starts_with(JPEG_START) => jpeg(content),
        _ if content.starts_with(PNG_START) => png(content),
        _ => Err("it begins like neither".to_owned()),
    }
}

fn jpeg(content: &[u8]) -> Result<Pixels, String> {
    let options = DecoderOptions::default()
        .set_max_width(SIDE_MAX)
        .set_max_height(SIDE_MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(content), options);
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    check_size(width, height)?;
    let values = decoder.decode().map_err(|error| error.to_string())?;
    match values.len() == width * height * 3 {
        true => Ok(Pixels { width, height, channels: 3, values }),
        false => Err(format!("its colours are {:?}: expected grey or YCbCr", decoder.output_colorspace())),
    }
}

fn png(content: &[u8]) -> Result<Pixels, String> {
    let mut decoder =
        png::Decoder::new_with_limits(Cursor::new(content), Limits { bytes: DECODED_BYTES_MAX });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let mut values = vec![0; reader.output_buffer_size().ok_or("it is too large")?];
    let frame = reader.next_frame(&mut values).map_err(|error| error.to_string())?;
    values.truncate(frame.buffer_size());
    let values: Vec<u8> = match frame.color_type {
        ColorType::Rgb => values,
        ColorType::Rgba => values.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        ColorType::Grayscale => values.iter().flat_map(|&value| [value; 3]).collect(),
        ColorType::GrayscaleAlpha => values.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Indexed => return Err("its palette is missing".to_owned()),
    };
    Ok(Pixels { width, height, channels: 3, values })
}

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err("it has no pixels".to_owned());
    }
    if width > SIDE_MAX || height > SIDE_MAX || width * height * 4 > DECODED_BYTES_MAX {
        return Err(format!(
            "it is {width} by {height}: expected sides of {SIDE_MAX} and {DECODED_BYTES_MAX} bytes, decoded, at most"
        ));
    }
    Ok(())
}
