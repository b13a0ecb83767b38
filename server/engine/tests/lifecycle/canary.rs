//! Canaries whose candidates are sound, fail, or do not serve: what becomes of them, and what is kept of that.

use std::borrow::Cow;
use std::time::Duration;

use expect_test::expect;
use gristmill_engine::control::RouteDetails;
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::DesiredRoutes;
use gristmill_engine::request::{Query, VersionSelector};
use gristmill_engine::routing::canary::{Canary, Gates, Plan, Stage, Step};
use gristmill_engine::routing::{Arm, KeySource, Keyed, Policy, Route, Weight};

use crate::world::{Contents, World, all, query};

/// Makes a version fail that has contents of this kind.
const POISON: i32 = 77_777;

struct Key(u32);

impl Keyed for Key {
    fn key(&self, _source: &KeySource) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Owned(self.0.to_le_bytes().to_vec()))
    }
}

fn percent(percent: f64) -> Weight {
    Weight::from_percent(percent).unwrap()
}

/// Of version 2 beside version 1. How fast they are counts for nothing.
fn canary(steps: &[(f64, u64)]) -> Route {
    let arm = |name: &str, version| Arm {
        name: name.into(),
        model: "m".into(),
        version: VersionSelector::Number(version),
        weight: Weight::default(),
    };
    let step = |&(share, requests_min): &(f64, u64)| Step {
        weight: percent(share),
        time_min: Duration::ZERO,
        requests_min,
    };
    let steps = steps.iter().map(step).chain([Step::to(Weight::ALL)]).collect();
    let gates = Gates { p50_ratio_max: 1e9, p99_ratio_max: 1e9, ..Gates::default() };
    let plan = Plan { steps, gates, ..Plan::default() };
    let route = Route {
        name: "canary".into(),
        policy: Policy::Canary,
        key: KeySource::Header,
        salt: "salt".into(),
        arms: vec![arm("old", 1), arm("new", 2)],
        canary: Some(Canary { plan, stage: Stage::default() }),
        rollout: Vec::new(),
        shadows: Vec::new(),
    };
    route.weighed_by_canary()
}

async fn ask(world: &World, key: u32, value: i32) -> Result<u64, InferError> {
    let query = Query { model: "canary".into(), ..query("", value) };
    Ok(world.engine.infer_keyed(query, &Key(key)).await?.model.version)
}

async fn details(world: &World) -> RouteDetails {
    world.control.routes().await.unwrap().remove(0)
}

fn stage(route: &Route) -> Stage {
    route.canary.as_ref().unwrap().stage.clone()
}

/// Asks, one time in a hundred for what may fail, until the canary is at a stage where `is_over`. How often it was
/// asked.
async fn ask_until(world: &World, is_over: impl Fn(&Stage) -> bool) -> (u32, RouteDetails) {
    for request in 0.. {
        let value = if request % 100 == 7 { POISON } else { 1 };
        let answer = ask(world, request, value).await;
        assert!(answer.is_ok() || value == POISON, "{answer:?}");
        if request % 50 == 0 {
            let details = details(world).await;
            if is_over(&stage(&details.route)) {
                return (request, details);
            }
        }
    }
    unreachable!("the loop does not end")
}

#[tokio::test]
async fn a_good_candidate_gets_everything_step_by_step() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::Adds(0))];
    let route = canary(&[(10.0, 100), (50.0, 200)]);
    let world =
        World::start_with(DesiredRoutes::Read(vec![route]), all(), Options::default(), versions).await;
    let (_, at_second) = ask_until(&world, |stage| *stage == Stage::Running { step: 1 }).await;
    assert_eq!(at_second.route.arms[1].weight, percent(50.0));
    let (_, done) = ask_until(&world, |stage| *stage == Stage::Done).await;
    assert_eq!(done.route.arms[1].weight, Weight::ALL);
    assert_eq!(world.kept_routes(), DesiredRoutes::Read(vec![done.route.clone()]), "a restart resumes there");
    for key in 0..20 {
        assert_eq!(ask(&world, key, 1).await.unwrap(), 2);
    }
    let events = done.canary.unwrap().events;
    let whats: Vec<&str> = events.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(whats, ["step 1 of 3, 10 %", "step 2 of 3, 50 %", "done, 100 %"]);
    world.shut_down().await;
}

#[tokio::test]
async fn a_candidate_that_fails_one_request_in_a_hundred_is_taken_back() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::FailsOn(POISON))];
    let route = canary(&[(50.0, 1000)]);
    let world =
        World::start_with(DesiredRoutes::Read(vec![route]), all(), Options::default(), versions).await;
    let (_, back) = ask_until(&world, |stage| !matches!(stage, Stage::Running { .. })).await;
    let Stage::RolledBack { why } = stage(&back.route) else { panic!("{:?}", back.route) };
    assert!(why.contains("surely at least") && why.ends_with("the bound is 0.10 % more"), "{why}");
    assert_eq!(back.canary.unwrap().state, why, "the numbers are told");
    assert_eq!(world.kept_routes(), DesiredRoutes::Read(vec![back.route.clone()]), "it stays taken back");
    world.read().await;
    for key in 0..20 {
        assert_eq!(ask(&world, key, POISON).await.unwrap(), 1);
    }
    world.shut_down().await;
}

#[tokio::test]
async fn a_candidate_is_taken_back_where_that_cannot_be_kept() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::FailsOn(POISON))];
    let route = canary(&[(50.0, 1000)]);
    let said = DesiredRoutes::Read(vec![route]);
    let world = World::start_with(said.clone(), all(), Options::default(), versions).await;
    world.make_read_only(true);
    let mut key = 0;
    while matches!(stage(&details(&world).await.route), Stage::Running { .. }) {
        let answer = ask(&world, key, POISON).await;
        assert!(answer.is_ok() || matches!(answer, Err(InferError::Backend(_))), "{answer:?}");
        key += 1;
    }
    assert_eq!(world.kept_routes(), said, "the repository does not know");
    world.read().await;
    assert!(matches!(stage(&details(&world).await.route), Stage::RolledBack { .. }), "and does not matter");
    world.make_read_only(false);
    while world.kept_routes() == said {
        assert_eq!(ask(&world, key, 1).await.unwrap(), 1);
    }
    assert_eq!(world.kept_routes(), DesiredRoutes::Read(vec![details(&world).await.route]));
    world.shut_down().await;
}

#[tokio::test]
async fn while_a_candidate_does_not_serve_the_control_takes_its_requests() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::Damaged)];
    let route = canary(&[(90.0, 1000)]);
    let world =
        World::start_with(DesiredRoutes::Read(vec![route]), all(), Options::default(), versions).await;
    while details(&world).await.canary.unwrap().state != "arm 'new' (m@2) does not serve" {
        assert_eq!(ask(&world, 1, 1).await.unwrap(), 1);
    }
    for key in 0..20 {
        assert_eq!(ask(&world, key, 1).await.unwrap(), 1);
    }
    world.put(2, Contents::Adds(0));
    world.control.load("m", None).await.unwrap();
    while !details(&world).await.canary.unwrap().state.contains("requests in this step") {
        ask(&world, 1, 1).await.unwrap();
    }
    let evidence = details(&world).await.canary.unwrap().evidence.unwrap();
    assert!(evidence.iter().all(|arm| arm.failed == 0), "{evidence:?}");
    world.shut_down().await;
}

#[tokio::test]
async fn other_contents_of_a_candidate_begin_the_step_anew() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::Adds(0))];
    let route = canary(&[(50.0, 1_000_000)]);
    let world =
        World::start_with(DesiredRoutes::Read(vec![route]), all(), Options::default(), versions).await;
    while details(&world).await.canary.unwrap().state.starts_with("this process") {
        ask(&world, 1, 1).await.unwrap();
    }
    world.put(2, Contents::Adds(1));
    let begun = loop {
        ask(&world, 1, 1).await.unwrap();
        let events = details(&world).await.canary.unwrap().events;
        if let [_, begun] = &events[..] {
            break begun.clone();
        }
    };
    assert_eq!(begun.what, "step 1 of 2, 50 %");
    assert_eq!(begun.why, "the arms lead to m version 1 and m version 2 now");
    world.shut_down().await;
}

#[tokio::test]
async fn operators_move_a_canary_between_its_steps() {
    let versions = [(1, Contents::Adds(0)), (2, Contents::Adds(0))];
    let world = World::start(all(), Options::default(), versions).await;
    let route = canary(&[(10.0, 1_000_000), (50.0, 1_000_000)]);
    assert_eq!(world.control.set_route(route.clone()).await.unwrap().route, route);
    let promote = async |weight| world.control.promote("canary", "new", percent(weight)).await;
    assert_eq!(stage(&promote(50.0).await.unwrap().route), Stage::Running { step: 1 });
    assert_eq!(promote(50.0).await.unwrap().route.arms[0].weight, percent(50.0));
    expect!["route 'canary' has no step at 20 percent: its canary has 10, 50, 100"]
        .assert_eq(&promote(20.0).await.unwrap_err().to_string());
    let aborted = world.control.abort("canary").await.unwrap().route;
    assert_eq!(stage(&aborted), Stage::RolledBack { why: "an operator took it back".into() });
    assert_eq!(world.kept_routes(), DesiredRoutes::Read(vec![aborted]));
    for key in 0..20 {
        assert_eq!(ask(&world, key, 1).await.unwrap(), 1);
    }
    assert_eq!(stage(&promote(10.0).await.unwrap().route), Stage::Running { step: 0 }, "and begins again");
    assert_eq!(stage(&promote(100.0).await.unwrap().route), Stage::Done);
    assert_eq!(ask(&world, 1, 1).await.unwrap(), 2);

    let refusal = async |route: Route| world.control.set_route(route).await.unwrap_err().to_string();
    let mut third = route.clone();
    third.arms.push(Arm { name: "third".into(), ..route.arms[0].clone() });
    expect![
        "route 'canary': has 3 arms: with policy canary it has two, first the control and then the candidate"
    ]
    .assert_eq(&refusal(third).await);
    let split = Route { policy: Policy::Split, ..route.clone() };
    expect!["route 'canary': has a canary and policy split: expected policy canary"]
        .assert_eq(&refusal(split).await);
    let bare = Route { canary: None, ..route.clone() };
    expect!["route 'canary': has policy canary and no plan: give it a canary"]
        .assert_eq(&refusal(bare).await);
    expect![
        "route 'canary': its canary: step 1 asks for 3 requests: expected at least 20, fewer tell nothing"
    ]
    .assert_eq(&refusal(canary(&[(1.0, 3)])).await);
    let last = route.with_stage(Stage::Running { step: 2 });
    expect!["route 'canary': its canary is running at step 3: expected 1 to 2, at the last it is done"]
        .assert_eq(&refusal(last).await);
    world.shut_down().await;
}
