//! A route's shadows as messages and as JSON: what they are told to be, how they fare, and their worst mismatches.

use std::time::{Duration, UNIX_EPOCH};

use gristmill_engine::comparison::Tolerance;
use gristmill_engine::control::{ShadowCounts, ShadowDetails};
use gristmill_engine::engine::{Mismatch, ShadowReport, TensorMismatch};
use gristmill_engine::request::{NamedTensor, VersionSelector};
use gristmill_engine::routing::{Arm, Shadow, Weight};
use gristmill_engine::tensor::{DType, Shape, Tensor};
use gristmill_proto::admin as pb;
use serde_json::{Value, json};

use crate::codec::json::nested::{NestedWriter, Texts};
use crate::codec::json::write::NonFinite;

/// A shadow as an operator writes it.
pub(super) fn read(shadow: pb::Shadow) -> Result<Shadow, String> {
    let pb::Shadow { name, model, version, label, percent, absolute, relative, keep_inputs, .. } = shadow;
    let version = match (version, label) {
        (0, label) if label.is_empty() => VersionSelector::Default,
        (0, label) => VersionSelector::Label(label),
        (version, label) if label.is_empty() => VersionSelector::Number(version),
        _ => return Err(format!("shadow '{name}' has a version and a label: give one of the two")),
    };
    let weight = Weight::from_percent(percent.unwrap_or(100.0))
        .map_err(|why| format!("percent of shadow '{name}' {why}"))?;
    let mut target = Arm { name, model, version, weight };
    if target.name.is_empty() {
        target.name = target.target();
    }
    let default = Tolerance::default();
    let tolerance = Tolerance {
        absolute: absolute.unwrap_or(default.absolute),
        relative: relative.unwrap_or(default.relative),
    };
    Ok(Shadow { target, tolerance, keep_inputs })
}

pub(super) fn message((shadow, details): (Shadow, ShadowDetails)) -> pb::Shadow {
    let Shadow { target, tolerance, keep_inputs } = shadow;
    let (version, label) = match target.version {
        VersionSelector::Default => (0, String::new()),
        VersionSelector::Number(version) => (version, String::new()),
        VersionSelector::Label(label) => (0, label),
    };
    pb::Shadow {
        name: target.name,
        model: target.model,
        version,
        label,
        percent: Some(target.weight.percent()),
        absolute: Some(tolerance.absolute),
        relative: Some(tolerance.relative),
        keep_inputs,
        serving_version: details.version.unwrap_or(0),
        counts: Some(counts(details.counts)),
    }
}

fn counts(counts: ShadowCounts) -> pb::ShadowCounts {
    let mismatch_rate = counts.mismatch_rate();
    let ShadowCounts {
        matched,
        mismatched,
        shadow_failed,
        primary_failed,
        both_failed,
        no_room,
        no_core,
        not_serving,
        unanswered,
        last_error,
    } = counts;
    pb::ShadowCounts {
        matched,
        mismatched,
        shadow_failed,
        primary_failed,
        both_failed,
        no_room,
        no_core,
        not_serving,
        unanswered,
        mismatch_rate,
        last_error,
    }
}

pub(super) fn mismatches(report: ShadowReport) -> pb::ShadowMismatches {
    pb::ShadowMismatches {
        shadow: report.name,
        counts: Some(counts(report.counts)),
        mismatches: report.worst.into_iter().map(mismatch).collect(),
    }
}

fn mismatch(found: Mismatch) -> pb::Mismatch {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let input = |NamedTensor { name, tensor }: NamedTensor| pb::MismatchInput {
        name,
        datatype: tensor.dtype().name().to_owned(),
        shape: tensor.shape().iter().map(|size| *size as i64).collect(),
        contents: tensor.data().clone(),
    };
    pb::Mismatch {
        time_ms: found.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
        prediction_id: found.prediction_id.to_string(),
        primary_model: found.primary.0,
        primary_version: found.primary.1,
        shadow_model: found.shadow.0,
        shadow_version: found.shadow.1,
        primary_run_us: us(found.primary_run),
        shadow_run_us: us(found.shadow_run),
        outputs: found.tensors.into_iter().map(output).collect(),
        inputs: found.inputs.into_iter().flatten().map(input).collect(),
    }
}

fn output(TensorMismatch { name, difference }: TensorMismatch) -> pb::OutputDifference {
    let difference = match difference {
        Ok(difference) => difference,
        Err(fault) => return pb::OutputDifference { name, fault, ..pb::OutputDifference::default() },
    };
    let scores = difference.scores.unwrap_or_default();
    pb::OutputDifference {
        name,
        fault: String::new(),
        elements: difference.elements as u64,
        differing: difference.differing as u64,
        absolute: difference.numbers.map(|numbers| numbers.absolute),
        relative: difference.numbers.map(|numbers| numbers.relative),
        rows: scores.rows as u64,
        same_top1_rows: scores.agreeing as u64,
        total_variation: difference.scores.map(|scores| scores.distance),
    }
}

/// Names as in the message.
pub(super) fn shadow_json(shadow: &pb::Shadow) -> Value {
    json!({
        "name": shadow.name,
        "model": shadow.model,
        "version": shadow.version,
        "label": shadow.label,
        "percent": shadow.percent,
        "absolute": shadow.absolute,
        "relative": shadow.relative,
        "keep_inputs": shadow.keep_inputs,
        "serving_version": shadow.serving_version,
        "counts": shadow.counts.as_ref().map(counts_json),
    })
}

fn counts_json(counts: &pb::ShadowCounts) -> Value {
    json!({
        "matched": counts.matched,
        "mismatched": counts.mismatched,
        "shadow_failed": counts.shadow_failed,
        "primary_failed": counts.primary_failed,
        "both_failed": counts.both_failed,
        "no_room": counts.no_room,
        "no_core": counts.no_core,
        "not_serving": counts.not_serving,
        "unanswered": counts.unanswered,
        "mismatch_rate": counts.mismatch_rate,
        "last_error": counts.last_error,
    })
}

/// All shadows of a route, with the worst mismatches of each.
pub(crate) fn mismatches_json(answer: &pb::ListMismatchesResponse) -> Value {
    let shadow = |shadow: &pb::ShadowMismatches| {
        json!({
            "shadow": shadow.shadow,
            "counts": shadow.counts.as_ref().map(counts_json),
            "mismatches": shadow.mismatches.iter().map(mismatch_json).collect::<Value>(),
        })
    };
    json!({ "shadows": answer.shadows.iter().map(shadow).collect::<Value>() })
}

fn mismatch_json(found: &pb::Mismatch) -> Value {
    json!({
        "time_ms": found.time_ms,
        "prediction_id": found.prediction_id,
        "primary_model": found.primary_model,
        "primary_version": found.primary_version,
        "shadow_model": found.shadow_model,
        "shadow_version": found.shadow_version,
        "primary_run_us": found.primary_run_us,
        "shadow_run_us": found.shadow_run_us,
        "outputs": found.outputs.iter().map(output_json).collect::<Value>(),
        "inputs": found.inputs.iter().map(input_json).collect::<Value>(),
    })
}

fn output_json(output: &pb::OutputDifference) -> Value {
    json!({
        "name": output.name,
        "fault": output.fault,
        "elements": output.elements,
        "differing": output.differing,
        "absolute": output.absolute.map(number),
        "relative": output.relative.map(number),
        "rows": output.rows,
        "same_top1_rows": output.same_top1_rows,
        "total_variation": output.total_variation,
    })
}

/// JSON has no infinity: as protobuf's own JSON says it.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!("Infinity") }
}

/// As in the body of a request, so that it can be asked again; null for a number that JSON does not have.
fn input_json(input: &pb::MismatchInput) -> Value {
    let pb::MismatchInput { name, datatype, shape, contents } = input;
    json!({ "name": name, "datatype": datatype, "shape": shape, "data": data(datatype, shape, contents) })
}

/// Null where the elements are none that can be written.
fn data(datatype: &str, shape: &[i64], contents: &bytes::Bytes) -> Value {
    let dims = shape.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Shape>>();
    let tensor = || Tensor::new(DType::parse(datatype)?, dims?, contents.clone()).ok();
    let Some(tensor) = tensor() else { return Value::Null };
    let write = |texts| {
        let mut json = Vec::new();
        let mut writer = NestedWriter::new("", &tensor, texts).with_non_finite(NonFinite::Null);
        writer.write(&[tensor.element_count()], &mut json).ok()?;
        serde_json::from_slice(&json).ok()
    };
    write(Texts::Strings).or_else(|| write(Texts::Base64)).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// What a file of downloaded mismatches has: every number of the comparison, and inputs that can be asked again.
    #[test]
    fn a_mismatch_as_json_says_all_that_is_known_of_it() {
        let output = pb::OutputDifference {
            name: "score".into(),
            elements: 2,
            differing: 1,
            absolute: Some(0.25),
            relative: Some(f64::INFINITY),
            rows: 1,
            same_top1_rows: 1,
            total_variation: Some(0.125),
            ..pb::OutputDifference::default()
        };
        let missing = pb::OutputDifference {
            name: "label".into(),
            fault: "the shadow has no such output".into(),
            ..pb::OutputDifference::default()
        };
        let floats: Vec<u8> = [1.5f32, f32::NAN, 0.1].iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut texts = 4_u32.to_le_bytes().to_vec();
        texts.extend(b"text");
        let input = |name: &str, datatype: &str, shape: &[i64], contents: Vec<u8>| pb::MismatchInput {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents: contents.into(),
        };
        let mismatch = pb::Mismatch {
            time_ms: 7,
            prediction_id: "5".repeat(32),
            primary_model: "m".into(),
            primary_version: 1,
            shadow_model: "m".into(),
            shadow_version: 2,
            primary_run_us: 30.5,
            shadow_run_us: 41.0,
            outputs: vec![output, missing],
            inputs: vec![input("x", "FP32", &[1, 3], floats), input("words", "BYTES", &[1], texts)],
        };
        let shadow = pb::ShadowMismatches {
            shadow: "next".into(),
            mismatches: vec![mismatch],
            ..pb::ShadowMismatches::default()
        };
        let json = mismatches_json(&pb::ListMismatchesResponse { shadows: vec![shadow] });
        assert_eq!(json["shadows"][0]["shadow"], "next");
        expect![[r#"{"time_ms":7,"prediction_id":"55555555555555555555555555555555","primary_model":"m","primary_version":1,"shadow_model":"m","shadow_version":2,"primary_run_us":30.5,"shadow_run_us":41.0,"outputs":[{"name":"score","fault":"","elements":2,"differing":1,"absolute":0.25,"relative":"Infinity","rows":1,"same_top1_rows":1,"total_variation":0.125},{"name":"label","fault":"the shadow has no such output","elements":0,"differing":0,"absolute":null,"relative":null,"rows":0,"same_top1_rows":0,"total_variation":null}],"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1.5,null,0.1]},{"name":"words","datatype":"BYTES","shape":[1],"data":["text"]}]}"#]]
        .assert_eq(&json["shadows"][0]["mismatches"][0].to_string());
    }
}
