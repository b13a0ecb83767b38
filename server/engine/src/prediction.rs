//! Which route and arm a request went through, and the id by which its outcome can be told later.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// How a request was routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    pub arm: Arc<ArmName>,
    pub prediction_id: PredictionId,
}

/// An arm, and the route that it is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArmName {
    pub route: String,
    pub arm: String,
}

/// Of one routed request, and of no other of any process: 64 random bits of the process, and a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PredictionId {
    process: u64,
    request: u64,
}

/// The standard library seeds its hash maps from the system's randomness.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
static REQUESTS: AtomicU64 = AtomicU64::new(0);

// === impl PredictionId ===

impl PredictionId {
    pub(crate) fn next() -> PredictionId {
        PredictionId { process: *PROCESS, request: scatter(REQUESTS.fetch_add(1, Ordering::Relaxed)) }
    }

    /// The same, as a number.
    pub fn number(self) -> u128 {
        (u128::from(self.process) << 64) | u128::from(self.request)
    }

    /// As a routing key of its own, where a request has none.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.number().to_be_bytes()
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for PredictionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.process, self.request)
    }
}

/// The same 32 digits.
impl FromStr for PredictionId {
    type Err = String;

    fn from_str(text: &str) -> Result<PredictionId, String> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_id);
        let number = number
            .ok_or_else(|| format!("\"{text}\" is no prediction id: expected 32 hexadecimal digits"))?;
        Ok(PredictionId { process: (number >> 64) as u64, request: number as u64 })
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014), which maps no two numbers to the same: ids do not tell how
/// many requests there were.
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_32_digits_and_never_the_same() {
        let ids: HashSet<String> = (0..1000).map(|_| PredictionId::next().to_string()).collect();
        assert_eq!(ids.len(), 1000);
        let id = PredictionId::next();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+2345678901234567890123456789012".parse::<PredictionId>().is_err());
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
