//! The W3C Trace Context header `traceparent`: which trace a request belongs to, and whether that trace is sampled.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// One span of a trace, as other processes know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: [u8; 8],
    /// Whether somebody records the trace.
    pub(crate) is_sampled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) [u8; 16]);

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

// === impl TraceParent ===

impl TraceParent {
    /// What the headers, or the metadata, of a request say. `None` where they say nothing or what is not valid, which
    /// the specification has treated alike: the trace begins here.
    pub(crate) fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let value = headers.get(TRACEPARENT)?;
        if headers.get_all(TRACEPARENT).iter().nth(1).is_some() {
            return None;
        }
        TraceParent::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<TraceParent> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let [version, flags] = [hex::<1>(&known[..2])?, hex::<1>(&known[53..])?].map(|[byte]| byte);
        let has_dashes = [2, 35, 52].into_iter().all(|place| known[place] == b'-');
        // Later versions may say more behind a dash; 255 is forbidden.
        let is_whole =
            if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        if version == u8::MAX || !has_dashes || !is_whole {
            return None;
        }
        let trace_id = hex(&known[3..35]).filter(|id| *id != [0; 16])?;
        let span_id = hex(&known[36..52]).filter(|id| *id != [0; 8])?;
        Some(TraceParent { trace_id: TraceId(trace_id), span_id, is_sampled: flags & 1 == 1 })
    }
}

/// As the header has it.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-", self.trace_id)?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes from twice as many digits, in lower case as the specification has them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn the_specifications_example_is_read() {
        let parent = parse(SAMPLED).unwrap();
        assert_eq!(parent.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(parent.is_sampled);
        assert_eq!(parent.to_string(), SAMPLED);
        assert!(!parse(&SAMPLED.replace("-01", "-00")).unwrap().is_sampled);
        assert!(parse(&SAMPLED.replace("-01", "-03")).unwrap().is_sampled, "other flags mean other things");
    }

    #[test]
    fn later_versions_may_say_more() {
        assert!(parse(&SAMPLED.replacen("00", "01", 1)).is_some());
        assert!(parse(&format!("{}-more", SAMPLED.replacen("00", "cc", 1))).is_some());
        assert_eq!(parse(&format!("{}.more", SAMPLED.replacen("00", "cc", 1))), None);
        assert_eq!(parse(&format!("{SAMPLED}-more")), None, "version 0 says no more");
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_of_one_trace() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, SAMPLED.parse().unwrap());
        assert_eq!(TraceParent::of(&headers), parse(SAMPLED));
        headers.append(TRACEPARENT, SAMPLED.parse().unwrap());
        assert_eq!(TraceParent::of(&headers), None, "two say nothing");
    }
}
