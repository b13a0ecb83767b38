//! ONNX's element types: their numbers in files and in ONNX Runtime, their names, and the protocol's dtypes for them.

use gristmill_engine::narrow::Narrow;
use gristmill_engine::tensor::DType;

/// By number in `TensorProto.DataType` of ONNX 1.22.
const NAMES: [&str; 27] = [
    "UNDEFINED",
    "FLOAT",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "INT64",
    "STRING",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
    "UINT32",
    "UINT64",
    "COMPLEX64",
    "COMPLEX128",
    "BFLOAT16",
    "FLOAT8E4M3FN",
    "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ",
    "UINT4",
    "INT4",
    "FLOAT4E2M1",
    "FLOAT8E8M0",
    "UINT2",
    "INT2",
];

/// ONNX's name of the type with that number in a file.
pub(crate) fn name(element: i32) -> String {
    let name = usize::try_from(element).ok().and_then(|element| NAMES.get(element));
    name.map_or_else(|| format!("number {element}"), |name| (*name).to_owned())
}

/// The protocol's dtype for the type with that number in a file.
pub(crate) fn dtype(element: i32) -> Option<DType> {
    Some(match element {
        1 => DType::Fp32,
        2 => DType::Uint8,
        3 => DType::Int8,
        4 => DType::Uint16,
        5 => DType::Int16,
        6 => DType::Int32,
        7 => DType::Int64,
        8 => DType::Bytes,
        9 => DType::Bool,
        10 => DType::Fp16,
        11 => DType::Fp64,
        12 => DType::Uint32,
        13 => DType::Uint64,
        16 => DType::Bf16,
        17 => DType::Narrow(Narrow::Float8E4m3fn),
        18 => DType::Narrow(Narrow::Float8E4m3fnuz),
        19 => DType::Narrow(Narrow::Float8E5m2),
        20 => DType::Narrow(Narrow::Float8E5m2fnuz),
        21 => DType::Narrow(Narrow::Uint4),
        22 => DType::Narrow(Narrow::Int4),
        23 => DType::Narrow(Narrow::Float4E2m1),
        _ => return None,
    })
}

/// The number in a file of the type that ONNX Runtime's interface gives this number: the last three differ.
pub(crate) fn of_runtime(element: i32) -> i32 {
    match element {
        24 => 25,
        25 => 26,
        26 => 24,
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_dtype_has_one_onnx_number() {
        let mut found: Vec<DType> = (0..64).filter_map(dtype).collect();
        found.sort();
        let all: Vec<DType> = DType::ALL.into_iter().chain(Narrow::ALL.map(DType::Narrow)).collect();
        assert_eq!(found, all);
        for narrow in Narrow::ALL {
            assert!(NAMES.contains(&narrow.name()));
        }
    }

    #[test]
    fn types_have_the_names_of_the_standard() {
        assert_eq!(name(1), "FLOAT");
        assert_eq!(name(17), "FLOAT8E4M3FN");
        assert_eq!(name(of_runtime(26)), "FLOAT8E8M0");
        assert_eq!(name(26), "INT2");
        assert_eq!(name(99), "number 99");
        assert_eq!(name(-1), "number -1");
    }
}
