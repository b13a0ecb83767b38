//! ONNX's element types of a byte or less that no protocol has: they travel as raw bytes, under ONNX's names.

/// Floats of eight bits, and elements of four, of which the first has the lower half of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Narrow {
    Float8E4m3fn,
    Float8E4m3fnuz,
    Float8E5m2,
    Float8E5m2fnuz,
    Uint4,
    Int4,
    Float4E2m1,
}

// === impl Narrow ===

impl Narrow {
    pub const ALL: [Narrow; 7] = [
        Narrow::Float8E4m3fn,
        Narrow::Float8E4m3fnuz,
        Narrow::Float8E5m2,
        Narrow::Float8E5m2fnuz,
        Narrow::Uint4,
        Narrow::Int4,
        Narrow::Float4E2m1,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Narrow::Float8E4m3fn => "FLOAT8E4M3FN",
            Narrow::Float8E4m3fnuz => "FLOAT8E4M3FNUZ",
            Narrow::Float8E5m2 => "FLOAT8E5M2",
            Narrow::Float8E5m2fnuz => "FLOAT8E5M2FNUZ",
            Narrow::Uint4 => "UINT4",
            Narrow::Int4 => "INT4",
            Narrow::Float4E2m1 => "FLOAT4E2M1",
        }
    }

    /// Two elements lie in a byte, so rows cannot be cut apart.
    pub fn shares_bytes(self) -> bool {
        matches!(self, Narrow::Uint4 | Narrow::Int4 | Narrow::Float4E2m1)
    }
}
