//! What is kept of predictions and feedback, what is forgotten, and what a crash leaves.

use std::sync::Arc;

use redb::backends::InMemoryBackend;

use super::*;

const RULES: Rules = Rules { rewards: Rewards::Binary, half_life: None };

fn store(predictions_max: u64) -> Store {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    Store::new(Opened { database, is_durable: false }, predictions_max).unwrap()
}

/// A prediction of an arm of route `r`.
fn ended(number: u32, arm: &str) -> Ended {
    Ended {
        prediction_id: format!("{number:032x}").parse().unwrap(),
        arm: Arc::new(ArmName { route: "r".into(), arm: arm.into() }),
        version: 1,
        key_hash: None,
        took: Duration::ZERO,
        outcome: "ok",
        is_good: Some(true),
    }
}

fn item(number: u32, told: Told) -> Item {
    Item { prediction_id: format!("{number:032x}").parse().unwrap(), told }
}

fn tell(store: &mut Store, route: &str, items: &[Item]) -> Vec<Fate> {
    let told: Vec<OfRoute<'_>> = items.iter().map(|item| (route, item)).collect();
    store.write(&[], &told, &|_| RULES, 2000, true).unwrap()
}

fn remember(store: &mut Store, ended: &[Ended]) {
    assert_eq!(store.write(ended, &[], &|_| RULES, 1000, false).unwrap(), []);
}

#[test]
fn each_can_be_told_once() {
    let mut store = store(100);
    remember(&mut store, &[ended(1, "a"), ended(2, "b"), Ended { is_good: Some(false), ..ended(3, "b") }]);
    let items = [
        item(1, Told::Reward(1.0)),
        item(1, Told::Reward(1.0)),
        item(1, Told::Reward(0.0)),
        item(1, Told::Truth("[1]".into())),
        item(1, Told::Truth("[1]".into())),
        item(1, Told::Truth("[2]".into())),
        item(2, Told::Reward(7.0)),
        item(3, Told::Reward(1.0)),
    ];
    let expected = [
        Fate::Accepted,
        Fate::Duplicate,
        Fate::Conflict { kept: "1".into() },
        Fate::Accepted,
        Fate::Duplicate,
        Fate::Conflict { kept: "[1]".into() },
        Fate::Invalid("reward is 7: expected a number from 0 to 1, as rewards are binary".into()),
        Fate::Unknown,
    ];
    assert_eq!(tell(&mut store, "r", &items), expected);
    assert_eq!(tell(&mut store, "other", &items[6..7]), [Fate::Unknown], "it is not of that route");
    let knowledge = store.knowledge(&ended(1, "a").arm);
    assert_eq!((knowledge.all.count, knowledge.all.mean, knowledge.all.as_of_s), (1.0, 1.0, 1.0));
    assert_eq!(store.knowledge(&ended(2, "b").arm), Knowledge::default());
}

#[test]
fn the_oldest_make_room_and_their_rewards_count_on() {
    let mut store = store(3);
    remember(&mut store, &[ended(1, "a"), ended(2, "a")]);
    assert_eq!(tell(&mut store, "r", &[item(1, Told::Reward(1.0))]), [Fate::Accepted]);
    remember(&mut store, &[ended(3, "a"), ended(4, "a"), ended(5, "a")]);
    assert_eq!(store.held().unwrap(), 3);
    let items: Vec<Item> = (1..=5).map(|number| item(number, Told::Reward(1.0))).collect();
    let expected = [Fate::Unknown, Fate::Unknown, Fate::Accepted, Fate::Accepted, Fate::Accepted];
    assert_eq!(tell(&mut store, "r", &items), expected);
    assert_eq!(store.knowledge(&ended(1, "a").arm).all.count, 4.0);
}

#[test]
fn who_has_won_is_there_again() {
    let root = tempfile::tempdir().unwrap();
    let open = || {
        let database = Database::create(root.path().join("feedback.redb")).unwrap();
        Store::new(Opened { database, is_durable: true }, 100).unwrap()
    };
    let winner = |percent| Winner { arm: "a".into(), target: "m@1".into(), percent };
    let mut before = open();
    before.keep_winner("r", Some(winner(90.0))).unwrap();
    before.keep_winner("r", Some(winner(99.0))).unwrap();
    before.keep_winner("other", Some(winner(50.0))).unwrap();
    before.keep_winner("other", None).unwrap();
    drop(before);
    let after = open();
    assert_eq!((after.winner("r"), after.winner("other")), (Some(&winner(99.0)), None));
}

#[test]
fn what_was_told_is_there_again() {
    let root = tempfile::tempdir().unwrap();
    let open = || {
        let database = Database::create(root.path().join("feedback.redb")).unwrap();
        Store::new(Opened { database, is_durable: true }, 100).unwrap()
    };
    let mut before = open();
    remember(&mut before, &[ended(1, "a"), ended(2, "b")]);
    assert_eq!(tell(&mut before, "r", &[item(1, Told::Reward(0.5))]), [Fate::Accepted]);
    let knowledge = before.knowledge(&ended(1, "a").arm);
    drop(before);
    let mut after = open();
    assert_eq!(after.knowledge(&ended(1, "a").arm), knowledge);
    let items = [item(1, Told::Reward(0.5)), item(2, Told::Reward(0.5))];
    assert_eq!(tell(&mut after, "r", &items), [Fate::Duplicate, Fate::Accepted]);
}
