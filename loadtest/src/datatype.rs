//! Decides the Open Inference Protocol's datatypes: names, sizes, random elements, JSON in and out.

use bytes::{Buf, BufMut};
use half::{bf16, f16};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use serde_json::Value;

/// An element type, named as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// A string or blob of any length; in binary form, a little-endian u32 length and then the bytes.
    Bytes,
}

// === impl Datatype ===

impl Datatype {
    const ALL: [(Datatype, &'static str, usize); 14] = [
        (Datatype::Bool, "BOOL", 1),
        (Datatype::Int8, "INT8", 1),
        (Datatype::Int16, "INT16", 2),
        (Datatype::Int32, "INT32", 4),
        (Datatype::Int64, "INT64", 8),
        (Datatype::Uint8, "UINT8", 1),
        (Datatype::Uint16, "UINT16", 2),
        (Datatype::Uint32, "UINT32", 4),
        (Datatype::Uint64, "UINT64", 8),
        (Datatype::Fp16, "FP16", 2),
        (Datatype::Bf16, "BF16", 2),
        (Datatype::Fp32, "FP32", 4),
        (Datatype::Fp64, "FP64", 8),
        (Datatype::Bytes, "BYTES", 0),
    ];

    pub(crate) fn parse(name: &str) -> Option<Datatype> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(datatype, _, _)| *datatype)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Bytes per element, or `None` where elements differ in length.
    pub(crate) fn size_bytes(self) -> Option<usize> {
        Some(Self::ALL[self as usize].2).filter(|size| *size > 0)
    }

    /// Appends one random element in binary form: floats in [0, 1), integers in 0..=9 (which are valid
    /// indices and categories for most models), eight hexadecimal digits for BYTES.
    pub(crate) fn put_random(self, rng: &mut SmallRng, out: &mut Vec<u8>) {
        let small = rng.random_range(0..10_u8);
        let fraction = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
        match self {
            Datatype::Bool => out.put_u8(small & 1),
            Datatype::Int8 | Datatype::Uint8 => out.put_u8(small),
            Datatype::Int16 | Datatype::Uint16 => out.put_u16_le(small.into()),
            Datatype::Int32 | Datatype::Uint32 => out.put_u32_le(small.into()),
            Datatype::Int64 | Datatype::Uint64 => out.put_u64_le(small.into()),
            Datatype::Fp16 => out.put_u16_le(f16::from_f32(fraction).to_bits()),
            Datatype::Bf16 => out.put_u16_le(bf16::from_f32(fraction).to_bits()),
            Datatype::Fp32 => out.put_f32_le(fraction),
            Datatype::Fp64 => out.put_f64_le(fraction.into()),
            Datatype::Bytes => {
                out.put_u32_le(8);
                out.put_slice(format!("{:08x}", rng.next_u32()).as_bytes());
            }
        }
    }

    /// Appends the binary form of one JSON scalar; `None` where the scalar does not fit this datatype.
    pub(crate) fn put_json(self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Datatype::Bool => out.put_u8(value.as_bool().or(value.as_u64().map(|n| n != 0))?.into()),
            Datatype::Int8 => out.put_i8(value.as_i64()?.try_into().ok()?),
            Datatype::Int16 => out.put_i16_le(value.as_i64()?.try_into().ok()?),
            Datatype::Int32 => out.put_i32_le(value.as_i64()?.try_into().ok()?),
            Datatype::Int64 => out.put_i64_le(value.as_i64()?),
            Datatype::Uint8 => out.put_u8(value.as_u64()?.try_into().ok()?),
            Datatype::Uint16 => out.put_u16_le(value.as_u64()?.try_into().ok()?),
            Datatype::Uint32 => out.put_u32_le(value.as_u64()?.try_into().ok()?),
            Datatype::Uint64 => out.put_u64_le(value.as_u64()?),
            Datatype::Fp16 => out.put_u16_le(f16::from_f64(value.as_f64()?).to_bits()),
            Datatype::Bf16 => out.put_u16_le(bf16::from_f64(value.as_f64()?).to_bits()),
            Datatype::Fp32 => out.put_f32_le(value.as_f64()? as f32),
            Datatype::Fp64 => out.put_f64_le(value.as_f64()?),
            Datatype::Bytes => {
                let text = value.as_str()?.as_bytes();
                out.put_u32_le(text.len().try_into().ok()?);
                out.put_slice(text);
            }
        }
        Some(())
    }

    /// Takes one element off the front of `data` as JSON; `None` at the end of the data, or where BYTES
    /// is not text.
    pub(crate) fn take_json(self, data: &mut &[u8]) -> Option<Value> {
        Some(match self {
            Datatype::Bool => Value::Bool(data.try_get_u8().ok()? != 0),
            Datatype::Int8 => data.try_get_i8().ok()?.into(),
            Datatype::Int16 => data.try_get_i16_le().ok()?.into(),
            Datatype::Int32 => data.try_get_i32_le().ok()?.into(),
            Datatype::Int64 => data.try_get_i64_le().ok()?.into(),
            Datatype::Uint8 => data.try_get_u8().ok()?.into(),
            Datatype::Uint16 => data.try_get_u16_le().ok()?.into(),
            Datatype::Uint32 => data.try_get_u32_le().ok()?.into(),
            Datatype::Uint64 => data.try_get_u64_le().ok()?.into(),
            Datatype::Fp16 => f16::from_bits(data.try_get_u16_le().ok()?).to_f32().into(),
            Datatype::Bf16 => bf16::from_bits(data.try_get_u16_le().ok()?).to_f32().into(),
            // The shortest text of the f32, as a client would write it, not the longer one of the same f64.
            Datatype::Fp32 => data.try_get_f32_le().ok()?.to_string().parse::<f64>().ok()?.into(),
            Datatype::Fp64 => data.try_get_f64_le().ok()?.into(),
            Datatype::Bytes => {
                let length = data.try_get_u32_le().ok()? as usize;
                let (element, rest) = data.split_at_checked(length)?;
                *data = rest;
                str::from_utf8(element).ok()?.into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_datatype_survives_the_way_through_json() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (datatype, name, size) in Datatype::ALL {
            assert_eq!((Datatype::parse(name), datatype.name()), (Some(datatype), name));
            let mut data = Vec::new();
            (0..20).for_each(|_| datatype.put_random(&mut rng, &mut data));
            assert_eq!(data.len(), 20 * if size == 0 { 12 } else { size }, "{name}");
            let (mut rest, mut again) = (&data[..], Vec::new());
            while !rest.is_empty() {
                let value = datatype.take_json(&mut rest).unwrap();
                datatype.put_json(&value, &mut again).unwrap();
            }
            assert_eq!(again, data, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (datatype, text) in [
            (Datatype::Int8, "128"),
            (Datatype::Uint8, "-1"),
            (Datatype::Uint64, "1.5"),
            (Datatype::Fp32, "\"1\""),
            (Datatype::Bytes, "1"),
            (Datatype::Bool, "\"true\""),
        ] {
            let value = serde_json::from_str(text).unwrap();
            assert_eq!(datatype.put_json(&value, &mut Vec::new()), None, "{text} as {}", datatype.name());
        }
    }

    #[test]
    fn a_number_is_written_as_short_as_a_client_would() {
        assert_eq!(Datatype::Fp32.take_json(&mut &0.1_f32.to_le_bytes()[..]).unwrap().to_string(), "0.1");
    }
}
