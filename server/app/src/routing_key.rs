//! Where a request says by which key a route deals it, and how an answer says what the route chose.

use std::borrow::Cow;
use std::str::FromStr;

use gristmill_engine::prediction::Routed;
use gristmill_engine::routing::{KEY_HEADER, KeySource, Keyed};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use http::HeaderMap;
use regex::Regex;

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

    /// Its answer carries outputs as the model gave them, not classes of them or their places in shared memory.
    fn gets_whole_outputs(&self) -> bool {
        true
    }
}

/// All that a request may be dealt by.
pub(crate) struct Keys<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) said: &'a dyn Said,
    pub(crate) forwarded: Option<&'a ForwardPattern>,
}

/// Which headers count as parameters of a request that has none of that name, as with Triton's
/// `--http-header-forward-pattern` and `--grpc-header-forward-pattern`.
#[derive(Clone, Debug)]
pub struct ForwardPattern(Regex);

// === impl ForwardPattern ===

impl FromStr for ForwardPattern {
    type Err = regex::Error;

    /// The whole name must match, in any case.
    fn from_str(pattern: &str) -> Result<ForwardPattern, regex::Error> {
        Regex::new(&format!("^(?i:{pattern})$")).map(ForwardPattern)
    }
}

impl ForwardPattern {
    fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
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
        let header = |name: &str| self.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes()));
        let key = match source {
            KeySource::Header => header(KEY_HEADER),
            KeySource::RequestId => match self.said.id() {
                "" => header(REQUEST_ID_HEADER),
                id => Some(Cow::Borrowed(id.as_bytes())),
            },
            KeySource::Parameter(name) => match self.said.parameter(name) {
                Some(Cow::Borrowed(value)) => Some(Cow::Borrowed(value.as_bytes())),
                Some(Cow::Owned(value)) => Some(Cow::Owned(value.into_bytes())),
                None if self.forwarded.is_some_and(|pattern| pattern.matches(name)) => header(name),
                None => None,
            },
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

    fn gets_whole_outputs(&self) -> bool {
        self.classes.is_empty() && self.placed.is_empty()
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

    fn gets_whole_outputs(&self) -> bool {
        self.placed.is_empty() && self.outputs.iter().all(|output| output.classes == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Parameters(&'static [(&'static str, &'static str)]);

    impl Said for Parameters {
        fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
            let of_name = self.0.iter().find(|(other, _)| *other == name);
            of_name.map(|(_, value)| Cow::Borrowed(*value))
        }
    }

    #[test]
    fn headers_are_parameters_where_their_whole_names_match() {
        let mut headers = HeaderMap::new();
        headers.insert("user-id", "7".parse().unwrap());
        headers.insert("x-user-id", "8".parse().unwrap());
        let key = |pattern: Option<&str>, name: &str, said: &dyn Said| {
            let forwarded = pattern.map(|pattern| pattern.parse::<ForwardPattern>().unwrap());
            let keys = Keys { headers: &headers, said, forwarded: forwarded.as_ref() };
            let key = keys.key(&KeySource::Parameter(name.into()));
            key.map(|key| String::from_utf8_lossy(&key).into_owned())
        };
        assert_eq!(key(None, "user-id", &()), None);
        assert_eq!(key(Some("user-.*"), "user-id", &()).as_deref(), Some("7"));
        assert_eq!(key(Some("user-.*"), "User-ID", &()).as_deref(), Some("7"));
        assert_eq!(key(Some("user-.*"), "x-user-id", &()), None);
        assert_eq!(key(Some("user|x-user-id"), "x-user-id", &()).as_deref(), Some("8"));
        assert_eq!(key(Some(".*"), "user-id", &Parameters(&[("user-id", "9")])).as_deref(), Some("9"));
        assert!("(".parse::<ForwardPattern>().is_err());
    }
}
