//! Element types of a byte or less, which travel as raw bytes: floats of eight bits, integers of four.

use gristmill_engine::narrow::Narrow;
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_onnx::BackendChoice;

use crate::bench::{floats, fp32, load, onnx_runtime, run_fixture};

#[test]
fn narrow_elements_come_and_go_as_bytes() {
    let Some(runtime) = onnx_runtime() else { return };
    // Two elements of four bits share a byte, the first in its lower half.
    let cases: [(Narrow, [f32; 3], &[u8]); 6] = [
        (Narrow::Float8E4m3fn, [1., 2., 3.], &[0x38, 0x40, 0x44]),
        (Narrow::Float8E4m3fnuz, [1., 2., 3.], &[0x40, 0x48, 0x4c]),
        (Narrow::Float8E5m2, [1., 2., 3.], &[0x3c, 0x40, 0x42]),
        (Narrow::Float8E5m2fnuz, [1., 2., 3.], &[0x40, 0x44, 0x46]),
        (Narrow::Uint4, [1., 2., 15.], &[0x21, 0x0f]),
        (Narrow::Int4, [-1., 2., -8.], &[0x2f, 0x08]),
    ];
    for (narrow, values, bytes) in cases {
        let fixture = format!("narrow_{}", narrow.name().to_lowercase());
        let signature = load(&runtime, BackendChoice::OnnxRuntime, &fixture).unwrap().signature().clone();
        assert_eq!(signature.outputs[0].to_string(), format!("y {} [batch, 3]", narrow.name()));
        assert_eq!(signature.is_batched(), !narrow.shares_bytes());
        let encoded = Tensor::new(DType::Narrow(narrow), [1, 3].as_slice(), bytes.to_vec().into()).unwrap();
        let inputs = [fp32(&[1, 3], &values), encoded.clone()];
        let outputs = run_fixture(&runtime, BackendChoice::OnnxRuntime, &fixture, &inputs).unwrap();
        assert_eq!(outputs[0].data(), encoded.data(), "{}", narrow.name());
        assert_eq!(floats(&outputs[1]), values, "{}", narrow.name());
    }
}
