//! Signatures that clients can and cannot go on with.

use super::*;
use crate::tensor::DType;
use crate::testing::batched_signature;

fn changed(change: impl FnOnce(&mut Signature)) -> Result<(), String> {
    let old = batched_signature(DType::Fp32, &[3]);
    let mut new = old.clone();
    change(&mut new);
    check(&old, &new)
}

#[test]
fn what_clients_rely_on_must_stay() {
    assert_eq!(changed(|_| {}), Ok(()));
    assert_eq!(changed(|new| new.inputs[0].name = "z".into()), Err("input 'x' is gone".into()));
    assert_eq!(changed(|new| new.outputs.clear()), Err("output 'y' is gone".into()));
    assert_eq!(
        changed(|new| new.inputs[0].dtype = DType::Fp64),
        Err("input x FP32 [batch, 3] would be x FP64 [batch, 3]".into())
    );
    let more = |new: &mut Signature| new.outputs[0].shape = Some(vec![Dim::Dynamic(None), Dim::Fixed(4)]);
    assert!(changed(more).is_err());
}

#[test]
fn more_may_be_taken_and_given() {
    let wider = |new: &mut Signature| new.inputs[0].shape = Some(vec![Dim::Dynamic(None); 2]);
    assert_eq!(changed(wider), Ok(()));
    let more = |new: &mut Signature| {
        let spec = TensorSpec { name: "score".into(), ..new.outputs[0].clone() };
        new.outputs.push(spec);
    };
    assert_eq!(changed(more), Ok(()));
    let optional = |new: &mut Signature| {
        let spec = TensorSpec { name: "weight".into(), optional: true, ..new.inputs[0].clone() };
        new.inputs.push(spec);
    };
    assert_eq!(changed(optional), Ok(()));
    let required = |new: &mut Signature| {
        let spec = TensorSpec { name: "weight".into(), ..new.inputs[0].clone() };
        new.inputs.push(spec);
    };
    assert_eq!(changed(required), Err("input weight FP32 [batch, 3] is new and required".into()));
}
