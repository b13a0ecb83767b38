//! What operators ask for: unloading, loading again, labels, the way back.

use std::sync::Arc;

use expect_test::expect;
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Options;
use gristmill_engine::testing::Gate;

use crate::world::{Contents, World, all, latest_and_previous};

#[tokio::test]
async fn what_was_unloaded_is_loaded_again_when_it_is_asked_for() {
    let versions = [(1, Contents::Adds(1)), (2, Contents::Adds(2))];
    let world = World::start(all(), Options::default(), versions).await;
    world.control.unload("m").await.unwrap();
    let error = world.infer("").await.unwrap_err();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    let said = format!("{error}\n{}", world.say());
    expect![[r#"
        model 'm' version 2 is unavailable: it is not loaded: load it to serve it
        1 UNAVAILABLE it is not loaded: load it to serve it
        2 UNAVAILABLE it is not loaded: load it to serve it
    "#]]
    .assert_eq(&said);

    // Neither another look nor new contents bring it back.
    world.put(2, Contents::Adds(20));
    world.read().await;
    world.infer("").await.unwrap_err();

    world.control.load("m", None).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (2, 20));
    assert_eq!(world.infer("1").await.unwrap(), (1, 1));

    let error = world.control.unload("n").await.unwrap_err();
    expect!["model 'n' is not in the repository"].assert_eq(&error.to_string());
    let error = world.control.load("n", None).await.unwrap_err();
    expect!["model 'n' is not in the repository"].assert_eq(&error.to_string());
    world.put(3, Contents::Damaged);
    let error = world.control.load("m", None).await.unwrap_err();
    expect!["failed to load 'm', version 3: the file is damaged"].assert_eq(&error.to_string());
    assert_eq!(world.infer("").await.unwrap(), (2, 20));
    world.shut_down().await;
}

#[tokio::test]
async fn labels_point_where_they_are_told_to() {
    let versions = [(1, Contents::Adds(1)), (2, Contents::Adds(2)), (3, Contents::Adds(3))];
    let world = World::start(all(), Options::default(), versions).await;
    let control = &world.control;
    control.set_label("m", "canary", Some(3)).await.unwrap();
    assert_eq!(world.infer("canary").await.unwrap(), (3, 3));
    assert_eq!(world.infer("").await.unwrap(), (3, 3), "without `stable` the newest serves");

    control.set_label("m", "stable", Some(1)).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    assert_eq!(world.infer("stable").await.unwrap(), (1, 1));
    control.set_label("m", "stable", Some(2)).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    control.set_label("m", "stable", None).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (3, 3));

    let mut errors = format!("{}\n", world.infer("stable").await.unwrap_err());
    for (model, label, version) in
        [("m", "canary", 4), ("m", "12", 1), ("m", "", 1), ("m", "a/b", 1), ("n", "canary", 1)]
    {
        let error = control.set_label(model, label, Some(version)).await.unwrap_err();
        errors += &format!("{error}\n");
    }
    expect![[r#"
        model 'm' has no version 'stable': expected a number or one of its labels (canary)
        model 'm' has no version 4
        '12' is not a label: expected a name that is not a number, without '/'
        '' is not a label: expected a name that is not a number, without '/'
        'a/b' is not a label: expected a name that is not a number, without '/'
        model 'n' is not in the repository
    "#]]
    .assert_eq(&errors);
    assert_eq!(world.infer("canary").await.unwrap(), (3, 3));
    world.shut_down().await;
}

#[tokio::test]
async fn what_was_rolled_back_stays_back_until_its_contents_change() {
    let versions = [(1, Contents::Adds(1))];
    let world = World::start(latest_and_previous(), Options::default(), versions).await;
    let error = world.control.roll_back("m", "nothing to go back to").await.unwrap_err();
    expect!["model 'm' has no version loaded to go back to from 1: the one before is not in memory any more; load it, or raise keep_previous in its model.toml"].assert_eq(&error.to_string());

    world.put(2, Contents::Adds(2));
    world.until_default(2).await;
    assert_eq!(world.control.roll_back("m", "prices were negative").await.unwrap(), (2, 1));
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1), "another look changes nothing");
    expect![[r#"
        1 READY 
        2 READY rolled back: prices were negative
    "#]]
    .assert_eq(&world.say());

    // New contents that cannot be loaded bring back neither themselves nor the old ones.
    world.put(2, Contents::Damaged);
    world.until_reason(2, "the file is damaged").await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1));

    // Nor do the old ones serve while new ones are proved.
    let gate = Arc::new(Gate::default());
    gate.close();
    world.put(2, Contents::Waits(Arc::clone(&gate), 22));
    world.until_reason(2, "rolled back").await;
    let (waiting, (reached, at_gate)) = (Arc::clone(&gate), tokio::sync::oneshot::channel());
    std::thread::spawn(move || {
        waiting.wait_for(1);
        reached.send(()).unwrap();
    });
    at_gate.await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    gate.open();
    world.until_default(2).await;
    assert_eq!(world.infer("").await.unwrap(), (2, 22));
    world.shut_down().await;
}

#[tokio::test]
async fn a_load_brings_back_what_was_rolled_back() {
    let world = World::start(latest_and_previous(), Options::default(), [(1, Contents::Adds(1))]).await;
    world.put(2, Contents::Adds(2));
    world.until_default(2).await;
    world.control.roll_back("m", "by mistake").await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    world.control.load("m", None).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    world.shut_down().await;
}

#[tokio::test]
async fn the_way_back_does_not_need_the_files() {
    let world = World::start(latest_and_previous(), Options::default(), [(1, Contents::Adds(1))]).await;
    world.put(2, Contents::Adds(2));
    world.until_default(2).await;
    world.remove(1);
    world.read().await;
    assert_eq!(world.control.roll_back("m", "too slow").await.unwrap(), (2, 1));
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    world.shut_down().await;
}

#[tokio::test]
async fn the_way_back_moves_the_stable_label() {
    let versions = [(1, Contents::Adds(1)), (2, Contents::Adds(2))];
    let world = World::start(all(), Options::default(), versions).await;
    world.control.set_label("m", "stable", Some(1)).await.unwrap();
    world.control.set_label("m", "stable", Some(2)).await.unwrap();
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    assert_eq!(world.control.roll_back("m", "worse").await.unwrap(), (2, 1));
    assert_eq!(world.infer("stable").await.unwrap(), (1, 1));
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    world.shut_down().await;
}
