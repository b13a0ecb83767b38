//! Any bytes as feedback, in JSON and in protobuf: what is accepted says the same in the other of the two.
#![no_main]

use gristmill::feedback::{Told, read_items};
use gristmill::oip_http::decode_feedback;
use gristmill_proto::admin::{FeedbackItem, SendFeedbackRequest};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    if let Ok(feedback) = decode_feedback(data) {
        check(feedback);
    }
    if let Ok(message) = SendFeedbackRequest::decode(data) {
        check(message.feedback);
    }
});

fn check(feedback: Vec<FeedbackItem>) {
    let Ok(items) = read_items(feedback.clone()) else { return };
    let message = SendFeedbackRequest { route: "r".into(), feedback };
    let message = SendFeedbackRequest::decode(message.encode_to_vec().as_slice()).expect("it can be sent");
    // Debug's text, because NaN differs from itself.
    let again = read_items(message.feedback).expect("it was accepted before");
    assert_eq!(format!("{again:?}"), format!("{items:?}"));

    let bodies = items.iter().map(|item| {
        let (name, value) = in_json(&item.told)?;
        Some(json!({"prediction_id": item.prediction_id.to_string(), name: value}))
    });
    if let Some(bodies) = bodies.collect::<Option<Vec<Value>>>() {
        let body = json!({"feedback": bodies}).to_string();
        let again = decode_feedback(body.as_bytes()).and_then(read_items);
        assert_eq!(again.ok(), Some(items));
    }
}

/// A member of an item in JSON, where that can be: rewards are numbers there, and truths more than any text.
fn in_json(told: &Told) -> Option<(&'static str, Value)> {
    match told {
        // serde_json reads some numbers as the one beside it.
        Told::Reward(reward) => {
            let value = json!(reward);
            let read: Option<f64> = serde_json::from_str(&value.to_string()).ok();
            (read == Some(*reward)).then_some(("reward", value))
        }
        // It nests 128 deep at most, with what is around a truth.
        Told::Truth(truth) => {
            let value: Value = serde_json::from_str(truth).ok()?;
            let is_plain = !value.is_null() && truth.matches(['[', '{']).count() < 100;
            (is_plain && value.to_string() == *truth).then_some(("truth", value))
        }
    }
}
