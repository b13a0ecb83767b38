//! Weighted rendezvous hashing: a key's arm, from the salt, the arms' names and their weights alone.
//!
//! With XXH64 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) of bytes and a seed:
//!
//! ```text
//! seed(arm)  = XXH64(name of the arm, seed = XXH64(salt, seed = 0))
//! u(arm)     = ((XXH64(key, seed(arm)) >> 12) + 0.5) / 2^52
//! score(arm) = -ln(u(arm)) / weight(arm)
//! ```
//!
//! The key goes to the arm with the smallest score, the first of equals; an arm without weight takes part in nothing.
//! `-ln(u) / w` is exponential with rate `w`, and the smallest of several such is the one of `w` with probability
//! `w / sum` (Thaler and Ravishankar 1998; weights by Schindelhauer and Schomaker 2005). Each score depends on its own
//! arm alone: when an arm's weight grows and the others keep their proportions, keys move to that arm and nowhere else.
//! In general a key moves only to an arm whose weight has grown by a larger factor than that of the arm it leaves.

use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::Route;

pub(super) struct Split {
    arms: SmallVec<[Contender; 4]>,
}

struct Contender {
    index: usize,
    seed: u64,
    weight: f64,
}

// === impl Split ===

impl Split {
    pub(super) fn new(route: &Route) -> Split {
        let shares: Vec<f64> = route.arms.iter().map(|arm| arm.weight.share()).collect();
        Split::with_shares(route, &shares)
    }

    /// With other weights than those of the arms.
    pub(super) fn with_shares(route: &Route, shares: &[f64]) -> Split {
        let salt = xxh64(route.salt.as_bytes(), 0);
        let arms = route.arms.iter().zip(shares).enumerate().map(|(index, (arm, share))| Contender {
            index,
            seed: xxh64(arm.name.as_bytes(), salt),
            weight: *share,
        });
        Split { arms: arms.filter(|arm| arm.weight > 0.0).collect() }
    }

    /// The place of the key's arm among the route's. The first where no arm has a weight.
    pub(super) fn pick(&self, key: &[u8]) -> usize {
        let scores = self.arms.iter().map(|arm| (arm.index, score(xxh64(key, arm.seed), arm.weight)));
        smallest(scores)
    }
}

pub(super) fn score(hash: u64, weight: f64) -> f64 {
    -unit(hash).ln() / weight
}

/// Inside (0, 1): neither end, and every value exact in a double.
pub(super) fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

pub(super) fn smallest(scores: impl Iterator<Item = (usize, f64)>) -> usize {
    let mut best = (0, f64::INFINITY);
    for (index, score) in scores {
        if score < best.1 {
            best = (index, score);
        }
    }
    best.0
}
