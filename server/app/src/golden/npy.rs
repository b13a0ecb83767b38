//! One array of numpy's `.npy` format: a header that is a Python literal, and the elements.
//!
//! Read here and not by a library: those published bring a parser generator for one line of text, and
//! lack strings. The format is that of numpy's NEP 1, versions 1.0 to 3.0.

use gristmill_engine::tensor::{DType, Shape, Tensor, element_count};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Most dimensions that numpy allows.
const RANK_MAX: usize = 64;

/// The dictionary at the beginning of a file.
#[derive(Debug, PartialEq, Eq)]
struct Header<'a> {
    /// Byte order, kind and size: `<f4`.
    description: &'a str,
    fortran_order: bool,
    shape: Shape,
}

/// How elements are stored.
struct Layout {
    /// `None` for texts in UCS-4, which become `BYTES` in UTF-8.
    dtype: Option<DType>,
    /// Bytes of one element, 1 or more.
    size: usize,
    /// Bytes that are in reverse order where the file is big-endian.
    unit: usize,
    big_endian: bool,
}

/// # Errors
/// The bytes are no array, or one of elements that no model takes.
pub(super) fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let (text, data) = split(bytes)?;
    let header = Cursor::new(text).header()?;
    let layout = Layout::parse(header.description)?;
    let elements = element_count(&header.shape).and_then(|count| count.checked_mul(layout.size));
    if elements != Some(data.len()) {
        return Err(format!(
            "its header announces shape {:?} of {}, which does not agree with the {} bytes after it: the file is \
             damaged",
            header.shape.as_slice(),
            header.description,
            data.len()
        ));
    }
    let mut data = data.to_vec();
    if layout.big_endian && layout.unit > 1 {
        data.chunks_exact_mut(layout.unit).for_each(<[u8]>::reverse);
    }
    if header.fortran_order && header.shape.len() > 1 {
        data = to_row_major(&data, &header.shape, layout.size);
    }
    layout.tensor(header.shape, data)
}

/// The header's text and the elements' bytes.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let cut_short = || "it is cut short".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as numpy's arrays do")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut_short)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut_short)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("it has format version {other}: expected 1, 2 or 3")),
    };
    let (text, data) = rest.split_at_checked(length).ok_or_else(cut_short)?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is not UTF-8".to_owned())?;
    Ok((text, data))
}

/// Elements of `size` bytes from column-major order to row-major order.
fn to_row_major(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut sorted = Vec::with_capacity(data.len());
    let elements: usize = shape.iter().product();
    for element in 0..elements {
        let mut rest = element;
        let mut stride: usize = elements;
        let mut source = 0;
        for &dim in shape.iter().rev() {
            stride /= dim;
            source += rest % dim * stride;
            rest /= dim;
        }
        sorted.extend_from_slice(&data[source * size..(source + 1) * size]);
    }
    sorted
}

// === impl Layout ===

impl Layout {
    fn parse(description: &str) -> Result<Layout, String> {
        let unsupported = |why: &str| format!("its elements are '{description}' in numpy's terms: {why}");
        let (order, rest) = match description.as_bytes().first() {
            Some(order @ (b'<' | b'>' | b'=' | b'|')) => (*order, &description[1..]),
            _ => (b'<', description),
        };
        let kind = rest.chars().next().unwrap_or_default();
        // Objects have no size, and dates a unit after it.
        let size: Option<usize> = rest.get(kind.len_utf8()..).and_then(|size| size.parse().ok());
        let (dtype, size, unit) = match (kind, size) {
            ('b', Some(1)) => (Some(DType::Bool), 1, 1),
            ('i', Some(1)) => (Some(DType::Int8), 1, 1),
            ('i', Some(2)) => (Some(DType::Int16), 2, 2),
            ('i', Some(4)) => (Some(DType::Int32), 4, 4),
            ('i', Some(8)) => (Some(DType::Int64), 8, 8),
            ('u', Some(1)) => (Some(DType::Uint8), 1, 1),
            ('u', Some(2)) => (Some(DType::Uint16), 2, 2),
            ('u', Some(4)) => (Some(DType::Uint32), 4, 4),
            ('u', Some(8)) => (Some(DType::Uint64), 8, 8),
            ('f', Some(2)) => (Some(DType::Fp16), 2, 2),
            ('f', Some(4)) => (Some(DType::Fp32), 4, 4),
            ('f', Some(8)) => (Some(DType::Fp64), 8, 8),
            // numpy has no bfloat16 of its own, and stores that of ml_dtypes as two raw bytes.
            ('V', Some(2)) => (Some(DType::Bf16), 2, 2),
            ('S', Some(size)) if size > 0 => (Some(DType::Bytes), size, 1),
            ('U', Some(length)) if length > 0 => {
                let size = length.checked_mul(4).ok_or_else(|| unsupported("they are too long"))?;
                (None, size, 4)
            }
            ('f', _) => return Err(unsupported("no model takes them; use astype(numpy.float64)")),
            ('c', _) => return Err(unsupported("no model takes complex numbers")),
            ('O', _) => {
                return Err(unsupported(
                    "Python objects are not read; use astype(str), or astype(bytes) for raw bytes",
                ));
            }
            _ => {
                return Err(unsupported(
                    "expected booleans, integers, floats of 2, 4 or 8 bytes, bytes or str",
                ));
            }
        };
        Ok(Layout { dtype, size, unit, big_endian: order == b'>' })
    }

    /// The tensor of `data`, which holds as many elements as `shape` counts, in row-major order.
    fn tensor(&self, shape: Shape, mut data: Vec<u8>) -> Result<Tensor, String> {
        let elements = data.chunks_exact(self.size);
        let made = match self.dtype {
            None => {
                let texts: Vec<String> = elements.map(text).collect::<Result<_, _>>()?;
                Tensor::from_elements(shape, texts)
            }
            // numpy pads with zeros what is shorter than the longest.
            Some(DType::Bytes) => {
                Tensor::from_elements(shape, elements.map(|element| trim_zeros(element, 1)))
            }
            Some(dtype) => {
                if dtype == DType::Bool {
                    data.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
                }
                Tensor::new(dtype, shape, data.into())
            }
        };
        made.map_err(|error| error.to_string())
    }
}

/// UCS-4, little-endian by now, padded with zeros.
fn text(element: &[u8]) -> Result<String, String> {
    let units = trim_zeros(element, 4).as_chunks().0.iter();
    units
        .map(|&unit| char::from_u32(u32::from_le_bytes(unit)))
        .collect::<Option<String>>()
        .ok_or_else(|| "a text holds what is no Unicode character".to_owned())
}

/// `element` without the units at its end that are zero.
fn trim_zeros(element: &[u8], unit: usize) -> &[u8] {
    let kept = element.chunks_exact(unit).rposition(|unit| unit.iter().any(|&byte| byte != 0));
    &element[..kept.map_or(0, |last| (last + 1) * unit)]
}

/// Reads the Python literal of a header: a dictionary of texts, truth values and tuples of numbers.
struct Cursor<'a> {
    rest: &'a str,
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn new(rest: &'a str) -> Cursor<'a> {
        Cursor { rest }
    }

    fn header(mut self) -> Result<Header<'a>, String> {
        let (mut description, mut fortran_order, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.text()?;
            self.expect(':')?;
            match key {
                "descr" if self.peek() == Some('[') => {
                    return Err(
                        "its elements are records of several fields: expected one number or text each".into(),
                    );
                }
                "descr" => description = Some(self.text()?),
                "fortran_order" => fortran_order = Some(self.truth()?),
                "shape" => shape = Some(self.tuple()?),
                other => return Err(format!("its header has the unknown member '{other}'")),
            }
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
        let lacks = |name: &str| format!("its header lacks '{name}'");
        Ok(Header {
            description: description.ok_or_else(|| lacks("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| lacks("fortran_order"))?,
            shape: shape.ok_or_else(|| lacks("shape"))?,
        })
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let Some(quote) = self.peek().filter(|quote| matches!(quote, '\'' | '"')) else {
            return Err(self.unexpected("a text in quotes"));
        };
        let rest = &self.rest[1..];
        let Some((text, after)) = rest.split_once(quote) else {
            return Err(self.unexpected("a text in quotes"));
        };
        self.rest = after;
        Ok(text)
    }

    fn truth(&mut self) -> Result<bool, String> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(after) = self.rest.strip_prefix(word) {
                self.rest = after;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn tuple(&mut self) -> Result<Shape, String> {
        let mut dims = Shape::new();
        self.expect('(')?;
        while !self.take(')') {
            self.peek();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = self.rest.split_at(digits);
            let Ok(dim) = number.parse() else { return Err(self.unexpected("a size")) };
            if dims.len() == RANK_MAX {
                return Err(format!("its shape has more than {RANK_MAX} dimensions"));
            }
            dims.push(dim);
            // Python 2 marks long integers.
            self.rest = after.strip_prefix('L').unwrap_or(after);
            if !self.take(',') && self.peek() != Some(')') {
                return Err(self.unexpected("',' or ')'"));
            }
        }
        Ok(dims)
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, character: char) -> bool {
        let found = self.peek() == Some(character);
        if found {
            self.rest = &self.rest[character.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, character: char) -> Result<(), String> {
        if self.take(character) { Ok(()) } else { Err(self.unexpected(&format!("'{character}'"))) }
    }

    fn unexpected(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(20).collect();
        format!("its header is malformed: expected {expected}, found '{found}'")
    }
}
