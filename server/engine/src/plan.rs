//! Decides the next steps of one model towards what ought to be served: pure, with no clock, lock, thread or I/O.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::registry::Stamp;

/// What ought to be served of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// These versions, in these contents.
    Versions(BTreeMap<u64, Stamp>),
    /// It cannot be told; what serves goes on.
    Unknown,
    /// The model is gone, or was unloaded on purpose.
    Nothing,
}

/// What there is of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// The contents that serve, or could at once.
    pub(crate) ready: Option<Stamp>,
    pub(crate) loading: Option<Stamp>,
    pub(crate) failed: Option<Failed>,
    /// It is to stay loaded until then for a way back, wanted or not, unless something else is to be loaded.
    pub(crate) keep_until: Option<Instant>,
    /// Requests without a version get it: another is chosen before it goes.
    pub(crate) is_default: bool,
}

/// A load that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) stamp: Stamp,
    /// `None` where these contents fail whenever they are tried.
    pub(crate) retry_at: Option<Instant>,
}

/// What to do next. All steps of one plan may be begun at once, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Load these contents; they replace older contents of the same version when they are proved.
    Load { version: u64, stamp: Stamp },
    /// Take the version out of the catalog, let it finish, free it.
    Retire { version: u64 },
    /// Nothing is loaded of the version and nobody wants it: forget that it was tried.
    Forget { version: u64 },
}

// === impl Failed ===

impl Failed {
    /// Whether `stamp` is to be tried: other contents at once, the same when it is time.
    fn is_due(&self, stamp: Stamp, now: Instant) -> bool {
        self.stamp != stamp || self.retry_at.is_some_and(|retry_at| retry_at <= now)
    }
}

// === impl Wanted ===

impl Wanted {
    pub(crate) fn includes(&self, version: u64) -> bool {
        matches!(self, Wanted::Versions(versions) if versions.contains_key(&version))
    }
}

/// The steps from `held` towards `wanted`; none when nothing can be done now.
///
/// Whoever applies them keeps two promises: from any mix of states, repeated plans reach a state in which
/// exactly the wanted versions that can be loaded serve; and a model of which something is wanted and
/// something serves never gets into a state in which nothing does.
pub(crate) fn plan(wanted: &Wanted, held: &BTreeMap<u64, Held>, now: Instant) -> Vec<Step> {
    let none = BTreeMap::new();
    let versions = match wanted {
        Wanted::Versions(versions) => versions,
        Wanted::Unknown => return Vec::new(),
        Wanted::Nothing => &none,
    };
    let mut steps = Vec::new();
    // The newest first: it is what most requests are for.
    for (&version, &stamp) in versions.iter().rev() {
        let missing = match held.get(&version) {
            None => true,
            Some(held) if held.loading.is_some() || held.ready == Some(stamp) => false,
            Some(held) => held.failed.is_none_or(|failed| failed.is_due(stamp, now)),
        };
        if missing {
            steps.push(Step::Load { version, stamp });
        }
    }
    let is_ready = |version: &u64| held.get(version).is_some_and(|held| held.ready.is_some());
    // What is still to be tried may fail, and then others are wanted: those that go now would have to come back.
    let is_tried = |(version, stamp): (&u64, &Stamp)| {
        held.get(version).is_some_and(|held| {
            let has_failed = held.failed.is_some_and(|failed| failed.stamp == *stamp);
            held.loading.is_none() && (held.ready == Some(*stamp) || has_failed)
        })
    };
    let has_successor = versions.keys().any(is_ready) && versions.iter().all(is_tried);
    // Memory for what comes is worth more than a quick way back.
    let loads = !steps.is_empty() || held.values().any(|held| held.loading.is_some());
    let has_default = held.values().any(|held| held.is_default && held.ready.is_some());
    let makes_room = loads && has_default;
    let gone = matches!(wanted, Wanted::Nothing);
    for (&version, held) in held.iter().filter(|(version, _)| !versions.contains_key(version)) {
        let is_over = match held.keep_until {
            Some(until) if until > now => makes_room,
            _ => has_successor,
        };
        if held.ready.is_some() && (gone || is_over && !held.is_default) {
            steps.push(Step::Retire { version });
        } else if held.ready.is_none() && held.loading.is_none() {
            steps.push(Step::Forget { version });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Applies plans as the reconciler does. Loads of `broken` contents fail, others succeed.
    struct World {
        held: BTreeMap<u64, Held>,
        broken: BTreeSet<(u64, u64)>,
        start: Instant,
        now: Instant,
    }

    const RETRY: Duration = Duration::from_secs(10);

    impl World {
        fn apply(&mut self, step: Step) {
            match step {
                Step::Load { version, stamp } => self.held.entry(version).or_default().loading = Some(stamp),
                Step::Retire { version } => {
                    let held = self.held.get_mut(&version).expect("only what is held is retired");
                    held.ready = None;
                }
                Step::Forget { version } => {
                    let forgotten = self.held.remove(&version).expect("only what is held is forgotten");
                    assert_eq!((forgotten.ready, forgotten.loading), (None, None));
                }
            }
        }

        /// Ends the load of the `choice`th version that is being loaded.
        fn finish_one(&mut self, choice: usize) -> bool {
            let now = self.now;
            let mut loading: Vec<_> =
                self.held.iter_mut().filter(|(_, held)| held.loading.is_some()).collect();
            if loading.is_empty() {
                return false;
            }
            let index = choice % loading.len();
            let (version, held) = loading.swap_remove(index);
            let version = *version;
            let stamp = held.loading.take().expect("filtered");
            if self.broken.contains(&(version, stamp.0)) {
                held.failed = Some(Failed { stamp, retry_at: Some(now + RETRY) });
            } else {
                held.failed = None;
                held.ready = Some(stamp);
            }
            true
        }

        fn serves(&self) -> bool {
            self.held.values().any(|held| held.ready.is_some())
        }

        /// The newest that is wanted and serves, as soon as there is one.
        fn choose_default(&mut self, wanted: &Wanted) {
            let Wanted::Versions(versions) = wanted else { return };
            let mut serving: Vec<_> = self.held.iter_mut().filter(|(_, held)| held.ready.is_some()).collect();
            let Some(chosen) = serving.iter().rposition(|(version, _)| versions.contains_key(version)) else {
                return;
            };
            for (index, (_, held)) in serving.iter_mut().enumerate() {
                held.is_default = index == chosen;
            }
        }

        /// One round of planning, checked.
        fn round(&mut self, wanted: &Wanted) -> usize {
            let served = self.serves();
            self.choose_default(wanted);
            let steps = plan(wanted, &self.held, self.now);
            for &step in &steps {
                self.apply(step);
            }
            if served && *wanted != Wanted::Nothing {
                assert!(self.serves(), "{wanted:?} left nothing serving: {steps:?} gave {:?}", self.held);
            }
            steps.len()
        }
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        let versions = prop::collection::btree_map(1..6u64, (0..3u64).prop_map(Stamp), 0..4);
        prop_oneof![
            8 => versions.prop_map(Wanted::Versions),
            1 => Just(Wanted::Unknown),
            1 => Just(Wanted::Nothing),
        ]
    }

    /// Any state of a version, reachable or not.
    fn held(start: Instant) -> impl Strategy<Value = Held> {
        let stamp = || prop::option::of((0..3u64).prop_map(Stamp));
        (stamp(), stamp(), stamp(), 0..30u64, prop::option::of(0..30u64)).prop_map(
            move |(ready, loading, failed, retry_s, keep_s)| Held {
                ready,
                loading,
                failed: failed
                    .map(|stamp| Failed { stamp, retry_at: Some(start + Duration::from_secs(retry_s)) }),
                keep_until: keep_s.map(|seconds| start + Duration::from_secs(seconds)),
                is_default: false,
            },
        )
    }

    proptest! {
        #[test]
        fn any_mix_of_states_converges_and_never_stops_serving(
            initial in {
                let start = Instant::now();
                prop::collection::btree_map(1..6u64, held(start), 0..6).prop_map(move |held| (start, held))
            },
            broken in prop::collection::btree_set((1..6u64, 0..3u64), 0..6),
            changes in prop::collection::vec((wanted(), 0..6usize), 1..6),
            last in wanted(),
        ) {
            let (start, held) = initial;
            let mut world = World { held, broken, start, now: start };
            for (wanted, loads) in changes {
                world.round(&wanted);
                for choice in 0..loads {
                    world.finish_one(choice);
                    world.now += Duration::from_secs(1);
                    world.round(&wanted);
                }
            }
            // Everything that is kept runs out, every load ends, retries come and fail again.
            for round in 0..60 {
                while world.finish_one(round) {
                    world.round(&last);
                }
                world.now += Duration::from_secs(1);
                world.round(&last);
            }
            while world.finish_one(0) {}
            prop_assert!(world.now > world.start + Duration::from_secs(30), "nothing is kept any more");
            let ready: BTreeMap<u64, Stamp> =
                world.held.iter().filter_map(|(&version, held)| Some((version, held.ready?))).collect();
            match last {
                Wanted::Unknown => {}
                Wanted::Nothing => prop_assert_eq!(ready, BTreeMap::new()),
                Wanted::Versions(versions) => {
                    let sound = |(version, stamp): &(&u64, &Stamp)| !world.broken.contains(&(**version, stamp.0));
                    for (version, stamp) in versions.iter().filter(sound) {
                        prop_assert_eq!(ready.get(version), Some(stamp));
                    }
                    if versions.keys().any(|version| ready.contains_key(version)) {
                        for version in ready.keys() {
                            prop_assert!(versions.contains_key(version), "{} is not wanted and serves", version);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_old_version_goes_only_when_its_successor_serves() {
        let now = Instant::now();
        let ready = |stamp| Held { ready: Some(Stamp(stamp)), ..Held::default() };
        let wanted = Wanted::Versions(BTreeMap::from([(2, Stamp(0))]));
        let mut held = BTreeMap::from([(1, ready(0))]);
        assert_eq!(plan(&wanted, &held, now), [Step::Load { version: 2, stamp: Stamp(0) }]);
        held.insert(2, Held { loading: Some(Stamp(0)), ..Held::default() });
        assert_eq!(plan(&wanted, &held, now), []);
        held.insert(2, ready(0));
        assert_eq!(plan(&wanted, &held, now), [Step::Retire { version: 1 }]);
        held.insert(1, Held { keep_until: Some(now + RETRY), ..ready(0) });
        assert_eq!(plan(&wanted, &held, now), []);
        assert_eq!(plan(&wanted, &held, now + RETRY), [Step::Retire { version: 1 }]);
        held.insert(1, Held { is_default: true, ..ready(0) });
        assert_eq!(plan(&wanted, &held, now), []);
    }

    #[test]
    fn what_is_kept_for_a_way_back_makes_room_for_what_is_loaded() {
        let now = Instant::now();
        let ready = Held { ready: Some(Stamp(0)), ..Held::default() };
        let kept = Held { keep_until: Some(now + RETRY), ..ready.clone() };
        let default = Held { is_default: true, ..ready.clone() };
        let mut held = BTreeMap::from([(1, kept.clone()), (2, default)]);
        let wanted = |version| Wanted::Versions(BTreeMap::from([(version, Stamp(0))]));
        assert_eq!(plan(&wanted(2), &held, now), []);
        let load = Step::Load { version: 3, stamp: Stamp(0) };
        assert_eq!(plan(&wanted(3), &held, now), [load, Step::Retire { version: 1 }]);
        held.insert(3, Held { loading: Some(Stamp(0)), ..Held::default() });
        assert_eq!(plan(&wanted(3), &held, now), [Step::Retire { version: 1 }]);
        // Before its turn there is nothing to load, and without a default it may be what is asked.
        let failed = Some(Failed { stamp: Stamp(0), retry_at: Some(now + RETRY) });
        held.insert(3, Held { failed, ..Held::default() });
        assert_eq!(plan(&wanted(3), &held, now), []);
        let held = BTreeMap::from([(1, kept)]);
        assert_eq!(plan(&wanted(3), &held, now), [load]);
    }

    #[test]
    fn a_failed_load_is_retried_when_it_is_time_or_when_the_contents_change() {
        let now = Instant::now();
        let failed = Some(Failed { stamp: Stamp(0), retry_at: Some(now + RETRY) });
        let held = BTreeMap::from([(1, Held { failed, ..Held::default() })]);
        let same = Wanted::Versions(BTreeMap::from([(1, Stamp(0))]));
        let other = Wanted::Versions(BTreeMap::from([(1, Stamp(1))]));
        assert_eq!(plan(&same, &held, now), []);
        assert_eq!(plan(&same, &held, now + RETRY), [Step::Load { version: 1, stamp: Stamp(0) }]);
        assert_eq!(plan(&other, &held, now), [Step::Load { version: 1, stamp: Stamp(1) }]);
    }

    #[test]
    fn a_permanent_fault_is_tried_again_only_when_the_contents_change() {
        let now = Instant::now();
        let failed = Some(Failed { stamp: Stamp(0), retry_at: None });
        let held = BTreeMap::from([(1, Held { failed, ..Held::default() })]);
        let same = Wanted::Versions(BTreeMap::from([(1, Stamp(0))]));
        let other = Wanted::Versions(BTreeMap::from([(1, Stamp(1))]));
        assert_eq!(plan(&same, &held, now + 1_000_000 * RETRY), []);
        assert_eq!(plan(&other, &held, now), [Step::Load { version: 1, stamp: Stamp(1) }]);
    }
}
