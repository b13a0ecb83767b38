//! Versions that come, change, fail and go in the repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::expect;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::{Lifecycle, SourceState, VersionPolicy};
use gristmill_engine::testing::Gate;

use crate::world::{Contents, World, all, entry, latest, latest_and_previous, query};

#[tokio::test]
async fn the_version_before_takes_the_place_of_one_that_fails() {
    let versions = [(1, Contents::Adds(1)), (2, Contents::Damaged)];
    let world = World::start(latest(), Options::default(), versions).await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    expect![[r#"
        1 READY 
        2 UNAVAILABLE the file is damaged
        failing: model 'm': version 2: the file is damaged
    "#]]
    .assert_eq(&world.say());

    world.put(2, Contents::Adds(2));
    world.until_default(2).await;
    world.until(|engine| entry(engine, 1).filter(|entry| entry.reason.contains("policy"))).await;
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    expect![[r#"
        1 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        2 READY 
    "#]]
    .assert_eq(&world.say());
    world.shut_down().await;
}

#[tokio::test]
async fn new_contents_of_a_version_replace_the_old_ones() {
    let versions = [(1, Contents::Adds(1)), (2, Contents::Adds(2))];
    let world = World::start(latest(), Options::default(), versions).await;
    assert_eq!(world.infer("").await.unwrap(), (2, 2));

    // Half copied, damaged, not to be loaded: what was there serves on, and nothing else.
    world.put_as(2, Contents::Adds(20), SourceState::Changing);
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    world.put(2, Contents::Damaged);
    world.until_reason(2, "damaged").await;
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    expect![[r#"
        1 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        2 READY newer contents are not served: the file is damaged
        failing: model 'm': version 2: the file is damaged
    "#]]
    .assert_eq(&world.say());
    world.put_as(2, Contents::Adds(20), SourceState::Refused("it leads out of the repository".into()));
    world.until_reason(2, "leads out").await;
    assert_eq!(world.infer("").await.unwrap(), (2, 2));
    expect![[r#"
        1 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        2 READY newer contents are not served: it leads out of the repository
        failing: model 'm': version 2: it leads out of the repository
    "#]]
    .assert_eq(&world.say());

    world.put(2, Contents::Adds(200));
    while world.infer("").await.unwrap() != (2, 200) {
        tokio::task::yield_now().await;
    }
    let details = world.control.describe("m").await.unwrap();
    assert!(details.history.iter().all(|event| event.version == 2), "{:?}", details.history);
    world.shut_down().await;
}

#[tokio::test]
async fn a_version_that_is_removed_serves_until_another_does() {
    let world = World::start(all(), Options::default(), [(1, Contents::Adds(1))]).await;
    world.remove(1);
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1), "nothing else could serve");
    world.put(2, Contents::Adds(2));
    world.until_default(2).await;
    world.until(|engine| entry(engine, 1).is_none().then_some(())).await;
    world.infer("1").await.unwrap_err();
    world.shut_down().await;
}

#[tokio::test]
async fn of_a_quick_series_of_versions_only_the_last_before_stays_loaded() {
    let world = World::start(latest_and_previous(), Options::default(), [(1, Contents::Adds(1))]).await;
    for version in 2..6 {
        world.put(version, Contents::Adds(version as i32));
        world.until_default(version).await;
    }
    world.until(|engine| entry(engine, 3).filter(|entry| entry.reason.contains("policy"))).await;
    expect![[r#"
        1 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        2 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        3 UNAVAILABLE it is not among the versions that the policy serves (the latest)
        4 READY 
        5 READY 
    "#]]
    .assert_eq(&world.say());
    assert_eq!(world.control.roll_back("m", "by hand").await.unwrap(), (5, 4));
    world.shut_down().await;
}

/// A large file that is copied is announced with each of its pieces.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_notifications_hides_no_change() {
    let world = World::start(latest(), Options::default(), [(1, Contents::Adds(1))]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (control, stopped) = (world.control.clone(), Arc::clone(&stop));
    let flood = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            control.look();
            std::thread::yield_now();
        }
    });
    for version in 2..5 {
        world.put(version, Contents::Adds(version as i32));
        world.until_default(version).await;
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    world.shut_down().await;
}

/// Callers never see a swap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_versions_are_swapped() {
    let world = World::start(latest(), Options::default(), [(1, Contents::Adds(1))]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (engine, stop) = (Arc::clone(&world.engine), Arc::clone(&stop));
        callers.spawn(async move {
            let mut before = 0;
            while !stop.load(Ordering::Relaxed) {
                let response = engine.infer(query("", caller)).await.unwrap();
                let value = i32::from_le_bytes(response.outputs[0].1.data()[..4].try_into().unwrap());
                let version = response.model.version;
                assert_eq!(value - caller, version as i32, "the version that is named has answered");
                assert!(version >= before, "nobody goes back");
                before = version;
            }
            before
        });
    }
    for version in 2..=100 {
        world.put(version, Contents::Adds(version as i32));
        world.until_default(version).await;
        world.remove(version - 1);
    }
    stop.store(true, Ordering::Relaxed);
    let mut last = 0;
    while let Some(caller) = callers.join_next().await {
        last = last.max(caller.unwrap());
    }
    assert!(last > 50, "requests were sent all the time");
    world.shut_down().await;
}

#[tokio::test]
async fn a_version_stays_until_the_one_that_takes_its_place_is_proved() {
    let lifecycle = Lifecycle { policy: VersionPolicy::Latest(2), ..latest() };
    let versions = [(1, Contents::Adds(1)), (2, Contents::Adds(2))];
    let world = World::start(lifecycle, Options::default(), versions).await;
    let gate = Arc::new(Gate::default());
    gate.close();
    world.put(3, Contents::WaitsAndFails(Arc::clone(&gate)));
    world.until_reason(3, "being loaded").await;
    world.read().await;
    assert_eq!(world.infer("1").await.unwrap(), (1, 1));
    gate.open();
    world.until_reason(3, "damaged").await;
    world.read().await;
    assert_eq!(world.infer("1").await.unwrap(), (1, 1));
    world.put(3, Contents::Adds(3));
    world.until_default(3).await;
    world.until(|engine| entry(engine, 1).filter(|entry| entry.reason.contains("policy"))).await;
    world.shut_down().await;
}
