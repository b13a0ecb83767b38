//! Where a request says by which key a route deals it, and how an answer says what the route chose.

use std::borrow::Cow;

use gristmill_engine::prediction::Routed;
use gristmill_engine::routing::{KEY_HEADER, KeySource, Keyed};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use http::HeaderMap;

use crate::codec::json::InferBody;
use crate::codec::proto::InferCall;

/// What a message says of its request beside the tensors.
pub(crate) trait Said: Sync {
    /// Empty where it has none.
    fn id(&self) -> &str {
        ""
    }

    /// A parameter as text: whole numbers in decimal digits.
    fn parameter(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// All that a request may be dealt by.
pub(crate) struct Keys<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) said: &'a dyn Said,
}

/// The request's id where its message has no place for one.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Parameters of a routed answer, where its dialect has some.
pub(crate) fn routed_members(routed: &Routed) -> [(&'static str, String); 3] {
    [
        ("gristmill_route", routed.arm.route.clone()),
        ("gristmill_arm", routed.arm.arm.clone()),
        ("gristmill_prediction_id", routed.prediction_id.to_string()),
    ]
}

impl Keyed for Keys<'_> {
    fn key(&self, source: &KeySource) -> Option<Cow<'_, [u8]>> {
        let header = |name| self.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()));
        let key = match source {
            KeySource::Header => header(KEY_HEADER),
            KeySource::RequestId => match self.said.id() {
                "" => header(REQUEST_ID_HEADER),
                id => Some(Cow::Borrowed(id.as_bytes())),
            },
            KeySource::Parameter(name) => self.said.parameter(name).map(|value| match value {
                Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
                Cow::Owned(value) => Cow::Owned(value.into_bytes()),
            }),
        };
        key.filter(|key| !key.is_empty())
    }
}

impl Said for () {}

impl Said for InferCall {
    fn id(&self) -> &str {
        &self.id
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.parameters.get(name)?.parameter_choice.as_ref()? {
            ParameterChoice::StringParam(text) => Some(Cow::Borrowed(text)),
            ParameterChoice::Int64Param(number) => Some(Cow::Owned(number.to_string())),
            ParameterChoice::Uint64Param(number) => Some(Cow::Owned(number.to_string())),
            ParameterChoice::BoolParam(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            ParameterChoice::DoubleParam(number) => Some(Cow::Owned(number.to_string())),
        }
    }
}

impl Said for InferBody {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let of_name = self.others.iter().find(|(other, _)| other == name);
        of_name.map(|(_, value)| Cow::Borrowed(value.as_str()))
    }
}
