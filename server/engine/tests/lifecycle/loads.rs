//! Loads that crash, that never end, and that end too late.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use expect_test::expect;
use gristmill_engine::cores;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::DesiredRoutes;
use gristmill_engine::testing::Gate;

use crate::world::{Contents, World, all, latest, latest_and_previous};

#[tokio::test]
async fn a_loader_that_crashes_takes_nothing_with_it() {
    for contents in [Contents::PanicsInLoad, Contents::PanicsInInstance] {
        let world = World::start(latest(), Options::default(), [(1, Contents::Adds(1))]).await;
        world.put(2, contents);
        world.until_reason(2, "panicked").await;
        assert_eq!(world.infer("").await.unwrap(), (1, 1));
        expect![[r#"
            1 READY 
            2 UNAVAILABLE the runtime panicked while the version was loaded
            failing: model 'm': version 2: the runtime panicked while the version was loaded
        "#]]
        .assert_eq(&world.say());

        world.put(2, Contents::Adds(2));
        world.until_default(2).await;
        assert_eq!(world.infer("").await.unwrap(), (2, 2));
        expect![[r#"
            1 UNAVAILABLE it is not among the versions that the policy serves (the latest)
            2 READY 
        "#]]
        .assert_eq(&world.say());
        world.shut_down().await;
    }
}

#[tokio::test]
async fn a_load_that_never_ends_is_given_up() {
    let gate = Arc::new(Gate::default());
    // Long beside what the other loads take, on a busy machine as well.
    let options = Options { load_timeout: Duration::from_secs(2), ..Options::default() };
    let world = World::start(latest_and_previous(), options, [(1, Contents::Adds(1))]).await;
    gate.close();
    world.put(2, Contents::Waits(Arc::clone(&gate), 2));
    world.until_reason(2, "given up").await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    expect![[r#"
        1 READY 
        2 UNAVAILABLE loading has taken longer than 2s and was given up
        failing: model 'm': version 2: loading has taken longer than 2s and was given up
    "#]]
    .assert_eq(&world.say());

    // It takes nobody's place: the next version is loaded while its thread still waits.
    world.put(3, Contents::Adds(3));
    world.until_default(3).await;
    assert_eq!(world.infer("").await.unwrap(), (3, 3));

    // Ended too late, it does not serve.
    gate.open();
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (3, 3));
    world.infer("2").await.unwrap_err();
    world.shut_down().await;
}

#[tokio::test]
async fn a_version_that_is_removed_while_it_is_loaded_does_not_serve() {
    let gate = Arc::new(Gate::default());
    let world = World::start(latest(), Options::default(), [(1, Contents::Adds(1))]).await;
    gate.close();
    world.put(2, Contents::Waits(Arc::clone(&gate), 2));
    world.until_reason(2, "being loaded").await;
    world.remove(2);
    world.put(1, Contents::Adds(10));
    world.read().await;
    assert_eq!(world.infer("").await.unwrap(), (1, 1));
    gate.open();
    world.until(|engine| crate::world::entry(engine, 2).is_none().then_some(())).await;
    while world.infer("").await.unwrap() != (1, 10) {
        tokio::task::yield_now().await;
    }
    world.infer("2").await.unwrap_err();
    world.shut_down().await;
}

#[tokio::test]
async fn what_waits_for_its_turn_is_said_to_be_loading() {
    let gate = Arc::new(Gate::default());
    let options = Options { loads_max: 1, ..Options::default() };
    let world = World::start(all(), options, [(1, Contents::Adds(1))]).await;
    gate.close();
    world.put(2, Contents::Waits(Arc::clone(&gate), 2));
    world.until_reason(2, "being loaded").await;
    world.put(3, Contents::Adds(3));
    world.until_reason(3, "waits").await;
    expect![[r#"
        1 READY 
        2 LOADING it is being loaded
        3 LOADING it waits until other versions are loaded
    "#]]
    .assert_eq(&world.say());
    gate.open();
    world.until_default(3).await;
    world.shut_down().await;
}

#[tokio::test]
async fn what_fails_again_and_again_does_not_hold_up_what_has_not_been_tried() {
    let (gate, faulty) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let options = Options { loads_max: 1, ..Options::default() };
    let versions = [(1, Contents::Adds(1)), (9, Contents::WaitsAndFails(Arc::clone(&faulty)))];
    let world = World::start(all(), options, versions).await;
    world.until_reason(9, "damaged").await;
    gate.close();
    faulty.close();
    world.put(2, Contents::Waits(Arc::clone(&gate), 2));
    world.until_reason(2, "being loaded").await;
    // Due at once, and the newest.
    let control = world.control.clone();
    let tries_again = tokio::spawn(async move { control.load("m", None).await });
    world.put(3, Contents::Adds(3));
    world.until_reason(3, "waits").await;
    gate.open();
    world.until_default(3).await;
    faulty.open();
    tries_again.await.unwrap().unwrap_err();
    world.shut_down().await;
}

/// The newest is loaded first and serves at once; the last two need each other.
#[tokio::test]
async fn the_first_set_is_loaded_on_all_cores_though_something_serves_already() {
    let gate = Arc::new(Gate::default());
    gate.close();
    let barrier = Arc::new(Barrier::new(cores::granted().min(2)));
    let versions = [
        (4, Contents::Adds(4)),
        (3, Contents::Waits(Arc::clone(&gate), 3)),
        (2, Contents::Meets(Arc::clone(&barrier), 2)),
        (1, Contents::Meets(barrier, 1)),
    ];
    let options = Options { loads_max: 1, ..Options::default() };
    let (world, started) = World::begin(DesiredRoutes::default(), all(), options, versions);
    world.until_default(4).await;
    gate.open();
    let reports = tokio::time::timeout(Duration::from_secs(60), started).await.unwrap().unwrap().unwrap();
    assert!(reports.iter().all(|report| report.result.is_ok()), "{reports:?}");
    for version in 1..=4 {
        assert_eq!(world.infer(&version.to_string()).await.unwrap(), (version, version as i32));
    }
    world.shut_down().await;
}
