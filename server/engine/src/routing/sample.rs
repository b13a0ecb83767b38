//! Which requests a shadow is to answer too: a share of the keys, the same ones for ever.
//!
//! With XXH64 of bytes and a seed, as for arms (see `split`):
//!
//! ```text
//! seed(shadow) = XXH64(name of the shadow, seed = XXH64("shadow", seed = XXH64(salt, seed = 0)))
//! u            = ((XXH64(key, seed(shadow)) >> 12) + 0.5) / 2^52
//! ```
//!
//! A key is mirrored if `u < percent / 100`: a share that grows keeps the keys that it has. Names are salts, so that
//! shadows sample independently of one another and of the arms.

use xxhash_rust::xxh64::xxh64;

use super::{Shadow, split};

pub(crate) struct Sampler {
    seed: u64,
    share: f64,
}

// === impl Sampler ===

impl Sampler {
    pub(crate) fn new(salt: &str, shadow: &Shadow) -> Sampler {
        let salt = xxh64(b"shadow", xxh64(salt.as_bytes(), 0));
        Sampler { seed: xxh64(shadow.target.name.as_bytes(), salt), share: shadow.target.weight.share() }
    }

    /// Whether requests with this key are mirrored.
    pub(crate) fn takes(&self, key: &[u8]) -> bool {
        split::unit(xxh64(key, self.seed)) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Tolerance;
    use crate::request::VersionSelector;
    use crate::routing::{Arm, Weight};

    fn taken(percent: f64, name: &str) -> Vec<bool> {
        let weight = Weight::from_percent(percent).unwrap();
        let target = Arm { name: name.into(), model: "m".into(), version: VersionSelector::Default, weight };
        let shadow = Shadow { target, tolerance: Tolerance::default(), keep_inputs: false };
        let sampler = Sampler::new("salt", &shadow);
        (0..100_000).map(|key| sampler.takes(format!("user-{key}").as_bytes())).collect()
    }

    #[test]
    fn shares_are_exact_grow_by_keys_and_are_independent() {
        let count = |taken: &[bool]| taken.iter().filter(|taken| **taken).count() as f64;
        let (small, large, other) = (taken(5.0, "a"), taken(40.0, "a"), taken(40.0, "b"));
        // Five standard deviations of a binomial count: 69, 155.
        assert!((count(&small) - 5e3).abs() < 345.0, "{}", count(&small));
        assert!((count(&large) - 40e3).abs() < 775.0, "{}", count(&large));
        assert!(small.iter().zip(&large).all(|(small, large)| !small || *large), "keys stay");
        let both: Vec<bool> = large.iter().zip(&other).map(|(one, other)| *one && *other).collect();
        assert!((count(&both) - 16e3).abs() < 580.0, "{}", count(&both));
        assert!(taken(100.0, "a").iter().all(|taken| *taken));
        assert!(!taken(0.0, "a").iter().any(|taken| *taken));
    }
}
