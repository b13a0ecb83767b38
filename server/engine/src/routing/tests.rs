//! That keys stay, move only where they should, and are dealt by weight; and what is said of routes that cannot be.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use xxhash_rust::xxh64::xxh64;

use super::split::{score, smallest};
use super::*;

const KEYS: usize = 1_000_000;

/// A split of arms `a`, `b`, ... of a model `m`, by percentages.
fn route(salt: &str, percentages: &[f64]) -> Route {
    let arm = |(index, percent): (usize, &f64)| Arm {
        name: char::from(b'a' + index as u8).to_string(),
        model: "m".into(),
        version: VersionSelector::Number(index as u64 + 1),
        weight: Weight::from_percent(*percent).unwrap(),
    };
    Route {
        name: "r".into(),
        policy: Policy::Split,
        key: KeySource::Header,
        salt: salt.into(),
        arms: percentages.iter().enumerate().map(arm).collect(),
        canary: None,
        rollout: Vec::new(),
        shadows: Vec::new(),
    }
}

fn picks(route: &Route, keys: impl Iterator<Item = String>) -> Vec<usize> {
    let split = Split::new(route);
    keys.map(|key| split.pick(key.as_bytes())).collect()
}

fn users(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|user| format!("user-{user}"))
}

fn counts(picks: &[usize], arms: usize) -> Vec<f64> {
    let mut counts = vec![0.0; arms];
    picks.iter().for_each(|pick| counts[*pick] += 1.0);
    counts
}

/// Pearson's statistic.
fn chi_square(counts: &[f64], shares: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    counts.iter().zip(shares).map(|(count, share)| (count - total * share).powi(2) / (total * share)).sum()
}

/// Weights in hundredths of a percent that add up to everything.
fn weights(arms: usize) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(0..=10_000u32, arms - 1).prop_map(|mut cuts| {
        cuts.extend([0, 10_000]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| f64::from(pair[1] - pair[0]) / 100.0).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_key_gets_the_same_arm(salt in ".{0,20}", key in ".{0,40}", weights in weights(4)) {
        let route = route(&salt, &weights);
        let arm = Split::new(&route).pick(key.as_bytes());
        prop_assert_eq!(Split::new(&route.clone()).pick(key.as_bytes()), arm);
        let mut turned = route.clone();
        turned.arms.rotate_left(1);
        let again = &turned.arms[Split::new(&turned).pick(key.as_bytes())];
        prop_assert_eq!(&again.name, &route.arms[arm].name, "whatever the order of the arms");
        prop_assert!(route.arms[arm].weight > Weight::default());
    }

    #[test]
    fn keys_move_only_to_arms_that_grew_more(before in weights(5), after in weights(5)) {
        let (old, new) = (route("s", &before), route("s", &after));
        for (from, to) in picks(&old, users(500)).into_iter().zip(picks(&new, users(500))) {
            // An arm that had nothing has grown more than any.
            let growth = |arm: usize| after[arm] / before[arm];
            prop_assert!(from == to || growth(to) > growth(from), "from {from} to {to}");
        }
    }

    #[test]
    fn of_two_arms_the_one_that_grows_loses_no_key(low in 0..=10_000u32, high in 0..=10_000u32) {
        let (low, high) = (f64::from(low.min(high)) / 100.0, f64::from(low.max(high)) / 100.0);
        let (old, new) = (route("s", &[100.0 - low, low]), route("s", &[100.0 - high, high]));
        for (from, to) in picks(&old, users(500)).into_iter().zip(picks(&new, users(500))) {
            prop_assert!(from == to || to == 1);
        }
    }

    #[test]
    fn one_weight_is_set_and_the_others_share_the_rest(before in weights(5), arm in 0..5usize, to in 0..=10_000u32) {
        let old = route("s", &before);
        let to = Weight::from_percent(f64::from(to) / 100.0).unwrap();
        let new = old.with_weight(&old.arms[arm].name, to).unwrap();
        prop_assert_eq!(new.arms[arm].weight, to);
        prop_assert_eq!(weight::sum(new.arms.iter().map(|arm| arm.weight)), Weight::ALL);
        let held = 100.0 - before[arm];
        for other in (0..5).filter(|other| *other != arm && held > 0.0) {
            let exact = before[other] * (100.0 - to.percent()) / held;
            prop_assert!((new.arms[other].weight.percent() - exact).abs() < 0.01 + 1e-9);
        }
    }
}

#[test]
fn what_an_arm_grows_by_comes_from_all_others_alike() {
    let old = route("s", &[60.0, 30.0, 10.0]);
    let new = old.with_weight("c", Weight::from_percent(55.0).unwrap()).unwrap();
    assert_eq!(new, route("s", &[30.0, 15.0, 55.0]));
    let (before, after) = (picks(&old, users(100_000)), picks(&new, users(100_000)));
    let moved: Vec<_> = before.iter().zip(&after).filter(|(from, to)| from != to).collect();
    assert!(moved.iter().all(|(_, to)| **to == 2), "to the arm that grows and nowhere else");
    assert!((moved.len() as f64 - 45_000.0).abs() < 4.0 * f64::sqrt(1e5 * 0.45 * 0.55), "{}", moved.len());
}

#[test]
fn a_million_keys_are_dealt_by_weight() {
    for percentages in [&[50.0, 50.0][..], &[99.0, 1.0], &[99.99, 0.01], &[60.0, 29.5, 10.25, 0.25]] {
        let counts = counts(&picks(&route("s", percentages), users(KEYS)), percentages.len());
        for (count, percent) in counts.iter().zip(percentages) {
            let share = percent / 100.0;
            let deviation = (KEYS as f64 * share * (1.0 - share)).sqrt();
            // What a fair draw exceeds once in 16,000.
            let far = (count - KEYS as f64 * share).abs() / deviation;
            assert!(far < 4.0, "{percentages:?}: {counts:?}");
        }
    }
}

/// Over a million pairs of hashes spread evenly (a lattice by the golden ratio) there is no chance left in it, only
/// the rule.
#[test]
fn the_rule_gives_each_arm_its_weight_to_a_hundredth_of_a_percent() {
    let step = u64::MAX / KEYS as u64;
    for percent in [50.0, 33.33, 25.0, 10.0, 5.0, 1.0, 0.5, 0.01] {
        let share = percent / 100.0;
        let taken: usize = (0..KEYS as u64)
            .map(|place| [place * step + step / 2, place.wrapping_mul(0x9e37_79b9_7f4a_7c15)])
            .map(|[one, two]| smallest([(0, score(one, 1.0 - share)), (1, score(two, share))].into_iter()))
            .sum();
        let found = taken as f64 / KEYS as f64;
        assert!((found - share).abs() < 1e-4, "{percent} %: {found}");
    }
}

#[test]
fn keys_of_any_form_are_dealt_evenly() {
    let shares = [0.1; 10];
    let route = route("experiment-7", &[10.0; 10]);
    let numbers = (0..KEYS).map(|number| number.to_string());
    let ids = (0..KEYS).map(|number| format!("{:032x}", number as u128 * 0x9e37_79b9_7f4a_7c15_f39c));
    let addresses =
        (0..KEYS).map(|number| format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255));
    for picks in
        [picks(&route, numbers), picks(&route, ids), picks(&route, addresses), picks(&route, users(KEYS))]
    {
        let counts = counts(&picks, 10);
        // The 99.9th percentile with nine degrees of freedom.
        assert!(chi_square(&counts, &shares) < 27.88, "{counts:?}");
    }
}

#[test]
fn routes_with_other_salts_are_dealt_independently() {
    let weights = [25.0; 4];
    let one = picks(&route("one", &weights), users(KEYS));
    let two = picks(&route("two", &weights), users(KEYS));
    let both: Vec<usize> = one.iter().zip(&two).map(|(one, two)| one * 4 + two).collect();
    let counts = counts(&both, 16);
    // The 99.9th percentile with fifteen degrees of freedom.
    assert!(chi_square(&counts, &[1.0 / 16.0; 16]) < 37.70, "{counts:?}");
}

/// Whoever analyses answers of years ago finds the same arms.
#[test]
fn the_hash_stays_as_it_is() {
    assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999, "as the specification of XXH64 has it");
    let arms: String = picks(&route("checkout-2026", &[50.0, 30.0, 20.0]), users(40))
        .into_iter()
        .map(|arm| char::from(b'a' + arm as u8))
        .collect();
    assert_eq!(arms, "caaccbbcaaabbacabaabcabbbcacabbcbcaaaaba");
}

fn check_fault(change: impl FnOnce(&mut Route), expected: Expect) {
    let mut route = route("s", &[90.0, 10.0]);
    change(&mut route);
    let is_known = |arm: &Arm| match arm.model.as_str() {
        "m" => Ok(()),
        model => Err(format!("names the model '{model}', which is not in the repository")),
    };
    let fault = check(&route, &|name| name == "r" || name == "inner", &|name| name == "m", &is_known);
    expected.assert_eq(&fault.err().unwrap_or_default());
}

#[test]
fn faults_say_what_was_expected() {
    check_fault(|_| {}, expect![""]);
    check_fault(
        |route| route.name = "m".into(),
        expect!["route 'm': a model of the repository has this name: give the route another one"],
    );
    check_fault(|route| route.arms.clear(), expect!["route 'r': has 0 arms: expected 1 to 32"]);
    check_fault(
        |route| route.arms[1].name = "a".into(),
        expect!["route 'r': arm 'a' is there twice: give each arm a name of its own"],
    );
    check_fault(
        |route| route.arms[1].name = String::new(),
        expect!["route 'r': arm '' is not a name: expected some letters"],
    );
    check_fault(
        |route| route.arms[1].model = "inner".into(),
        expect![
            "route 'r': arm 'b' names the route 'inner': routes cannot be nested; name its models instead"
        ],
    );
    check_fault(
        |route| route.arms[1].model = "r".into(),
        expect!["route 'r': arm 'b' names the route 'r': routes cannot be nested; name its models instead"],
    );
    check_fault(
        |route| route.arms[1].model = "iris".into(),
        expect!["route 'r': arm 'b' names the model 'iris', which is not in the repository"],
    );
    check_fault(
        |route| route.arms[0].weight = Weight::from_percent(89.5).unwrap(),
        expect!["route 'r': the weights add up to 99.5, expected 100: 89.5 (a) + 10 (b)"],
    );
    check_fault(
        |route| route.policy = Policy::Fallback,
        expect![
            "route 'r': has weights: with policy fallback the order of the arms counts alone, leave them out"
        ],
    );
}

#[test]
fn weights_are_hundredths_of_a_percent() {
    let read = |percent| Weight::from_percent(percent).map(|weight| weight.to_string());
    assert_eq!(
        [0.0, 0.01, 0.29, 12.5, 99.99, 100.0].map(|percent| read(percent).unwrap()).join(" "),
        "0 0.01 0.29 12.5 99.99 100"
    );
    expect!["is 0.125: expected whole hundredths of a percent"].assert_eq(&read(0.125).unwrap_err());
    expect!["is -1: expected a percentage from 0 to 100"].assert_eq(&read(-1.0).unwrap_err());
    expect!["is NaN: expected a percentage from 0 to 100"].assert_eq(&read(f64::NAN).unwrap_err());
}

#[test]
fn promotion_names_what_is_missing() {
    let route = route("s", &[90.0, 10.0]);
    expect!["route 'r' has no arm 'z': its arms are 'a', 'b'"]
        .assert_eq(&route.with_weight("z", Weight::ALL).unwrap_err());
    let fallback = Route { policy: Policy::Fallback, ..route };
    expect!["route 'r' has no weights: its policy is fallback; set its arms in another order instead"]
        .assert_eq(&fallback.with_weight("a", Weight::ALL).unwrap_err());
}

#[test]
fn keys_are_named_in_one_way() {
    for text in ["header", "request_id", "parameter:user_id"] {
        assert_eq!(KeySource::parse(text).unwrap().to_string(), text);
    }
    expect![[r#"key is "parameter:": expected header, request_id or parameter:NAME"#]]
        .assert_eq(&KeySource::parse("parameter:").unwrap_err());
}

#[test]
fn a_bandit_deals_by_the_shares_that_it_was_given_last() {
    let deal = |sticky| {
        let settings = bandit::Settings { sticky, ..bandit::Settings::DEFAULT };
        let route = Route { policy: Policy::Bandit(settings), ..route("s", &[0.0, 0.0]) };
        Router::new(route, Arc::default())
    };
    let counted = |router: &Router| {
        let picks: Vec<usize> =
            (0..10_000).map(|_| router.choose(&Unkeyed, PredictionId::next()).0).collect();
        counts(&picks, 2)[1]
    };
    let router = deal(false);
    assert!((4_500.0..5_500.0).contains(&counted(&router)), "alike to begin with");
    router.deal(&[0.9, 0.1]);
    assert!((850.0..1_150.0).contains(&counted(&router)));
    router.deal(&[0.0, 1.0]);
    assert_eq!(counted(&router), 10_000.0);

    struct Key(Vec<u8>);
    impl Keyed for Key {
        fn key(&self, _source: &KeySource) -> Option<Cow<'_, [u8]>> {
            Some(Cow::Borrowed(&self.0))
        }
    }
    let arms = |router: &Router, key: &Key| -> std::collections::BTreeSet<usize> {
        (0..100).map(|_| router.choose(key, PredictionId::next()).0).collect()
    };
    let sticky = deal(true);
    let keys: Vec<Key> = users(1000).map(|user| Key(user.into_bytes())).collect();
    let before: Vec<_> = keys.iter().map(|key| arms(&sticky, key)).collect();
    assert!(before.iter().all(|arms| arms.len() == 1), "a key keeps its arm");
    sticky.deal(&[0.2, 0.8]);
    for (key, before) in keys.iter().zip(before) {
        assert!(before.contains(&0) || arms(&sticky, key) == before, "no key leaves the arm that grew");
    }
    assert_eq!(arms(&router, &keys[0]).len(), 1, "everything is one arm's");
    router.deal(&[0.5, 0.5]);
    assert_eq!(arms(&router, &keys[0]).len(), 2, "and else each request is dealt by itself");
}

#[test]
fn a_bandit_has_no_weights_and_ends_when_an_arm_gets_everything() {
    let bandit = Route { policy: Policy::Bandit(bandit::Settings::DEFAULT), ..route("s", &[0.0, 0.0]) };
    let why = bandit.with_weight("b", Weight::from_percent(10.0).unwrap()).unwrap_err();
    expect!["route 'r' has no weights: its policy is bandit; an arm can get everything, which ends it"]
        .assert_eq(&why);
    let ended = bandit.with_weight("b", Weight::ALL).unwrap();
    assert_eq!((ended.policy, ended.arms[1].weight), (Policy::Split, Weight::ALL));
}
