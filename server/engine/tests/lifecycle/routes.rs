//! Routes to versions that come and go: what they choose, what they refuse, and which table is in force.

use std::borrow::Cow;
use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use gristmill_engine::comparison::Tolerance;
use gristmill_engine::control::{ControlError, RouteDetails};
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::DesiredRoutes;
use gristmill_engine::request::{Query, Response, VersionSelector};
use gristmill_engine::routing::{Arm, KeySource, Keyed, Policy, Route, Shadow, Weight};

use crate::world::{Contents, World, all, latest, query};

/// A request whose header names this key.
struct Key(String);

impl Keyed for Key {
    fn key(&self, source: &KeySource) -> Option<Cow<'_, [u8]>> {
        (*source == KeySource::Header).then_some(Cow::Borrowed(self.0.as_bytes()))
    }
}

fn arm(name: &str, version: u64, percent: f64) -> Arm {
    let (model, version) = ("m".to_owned(), VersionSelector::Number(version));
    Arm { name: name.into(), model, version, weight: Weight::from_percent(percent).unwrap() }
}

/// `split` between versions 1 and 2.
fn split(percent_of_new: f64) -> Route {
    Route {
        name: "split".into(),
        policy: Policy::Split,
        key: KeySource::Header,
        salt: "salt".into(),
        arms: vec![arm("old", 1, 100.0 - percent_of_new), arm("new", 2, percent_of_new)],
        canary: None,
        rollout: Vec::new(),
        shadows: Vec::new(),
    }
}

fn read(route: Route) -> DesiredRoutes {
    DesiredRoutes::Read(vec![route])
}

const TWO: [(u64, Contents); 2] = [(1, Contents::Adds(1)), (2, Contents::Adds(2))];

async fn ask(world: &World, route: &str, key: usize) -> Result<Response, InferError> {
    let query = Query { model: route.into(), ..query("", 1000) };
    world.engine.infer_keyed(query, &Key(format!("user-{key}"))).await
}

/// The arm that each of the first keys goes to, by the first letter of its name.
async fn arms(world: &World, route: &str) -> String {
    let mut arms = String::new();
    for key in 0..20 {
        let answer = ask(world, route, key).await.unwrap();
        let routed = answer.routed.unwrap();
        assert_eq!(routed.arm.route, route);
        arms.push_str(&routed.arm.arm[..1]);
    }
    arms
}

#[tokio::test]
async fn a_split_deals_keys_and_says_how() {
    let world = World::start_with(read(split(50.0)), all(), Options::default(), TWO).await;
    let dealt = arms(&world, "split").await;
    assert_eq!(dealt, "nnonnnnonnonoonnonoo");
    assert_eq!(arms(&world, "split").await, dealt, "the same again");

    let answers = [ask(&world, "split", 0).await.unwrap(), ask(&world, "split", 0).await.unwrap()];
    let ids: BTreeSet<String> =
        answers.iter().map(|answer| answer.routed.as_ref().unwrap().prediction_id.to_string()).collect();
    assert_eq!(ids.len(), 2, "each prediction has an id of its own");
    let version = answers[0].model.version;
    assert_eq!(answers[0].model.name, "m");
    assert_eq!(version, if dealt.starts_with('o') { 1 } else { 2 });

    assert_eq!(world.infer("1").await.unwrap(), (1, 1), "models are asked as before");
    let direct = world.engine.infer(query("", 0)).await.unwrap();
    assert_eq!((direct.model.version, direct.routed), (2, None));

    let error = world.engine.infer(Query { model: "split".into(), ..query("2", 0) }).await.unwrap_err();
    expect![
        "'split' is a route and has no version '2': ask for it without a version, or ask one of m@1, m@2"
    ]
    .assert_eq(&error.to_string());
    world.shut_down().await;
}

#[tokio::test]
async fn requests_without_a_key_are_dealt_by_their_prediction_ids() {
    let world = World::start_with(read(split(50.0)), all(), Options::default(), TWO).await;
    let mut versions = BTreeSet::new();
    while versions.len() < 2 {
        let answer = world.engine.infer(Query { model: "split".into(), ..query("", 0) }).await.unwrap();
        versions.insert(answer.model.version);
    }
    world.shut_down().await;
}

#[tokio::test]
async fn an_arm_keeps_its_version_loaded_and_says_when_it_cannot_serve() {
    let world = World::start_with(read(split(100.0)), latest(), Options::default(), TWO).await;
    world.put(3, Contents::Adds(3));
    world.until_default(3).await;
    assert_eq!(ask(&world, "split", 0).await.unwrap().model.version, 2, "the policy is the latest one");

    world.control.unload("m").await.unwrap();
    let error = ask(&world, "split", 0).await.unwrap_err();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    expect![[r#"
        route 'split': arm 'new': model 'm' version 2 is unavailable: it is not loaded: load it to serve it
        1 UNAVAILABLE it is not loaded: load it to serve it
        2 UNAVAILABLE it is not loaded: load it to serve it
        3 UNAVAILABLE it is not loaded: load it to serve it
        failing: route 'split': arm 'old': model 'm' version 1 is unavailable: it is not loaded: load it to serve it
        failing: route 'split': arm 'new': model 'm' version 2 is unavailable: it is not loaded: load it to serve it
    "#]].assert_eq(&format!("{error}\n{}", world.say()));
    world.shut_down().await;
}

#[tokio::test]
async fn a_fallback_asks_the_next_where_one_does_not_serve() {
    let arms = vec![Arm { model: "m".into(), ..arm("first", 3, 0.0) }, arm("second", 2, 0.0)];
    let route = Route { name: "safe".into(), policy: Policy::Fallback, arms, ..split(0.0) };
    let versions = [(2, Contents::Adds(2)), (3, Contents::Damaged)];
    let world = World::start_with(read(route), all(), Options::default(), versions).await;
    let answer = ask(&world, "safe", 0).await.unwrap();
    assert_eq!((answer.model.version, answer.routed.unwrap().arm.arm.as_str()), (2, "second"));
    world.put(3, Contents::Adds(3));
    world.control.load("m", None).await.unwrap();
    assert_eq!(ask(&world, "safe", 0).await.unwrap().model.version, 3);
    world.control.unload("m").await.unwrap();
    let error = ask(&world, "safe", 0).await.unwrap_err();
    expect![
        "route 'safe': arm 'first': model 'm' version 3 is unavailable: it is not loaded: load it to serve it"
    ]
    .assert_eq(&error.to_string());
    world.shut_down().await;
}

#[tokio::test]
async fn the_table_in_force_stays_while_a_newer_one_is_at_fault() {
    let world = World::start_with(read(split(50.0)), all(), Options::default(), TWO).await;
    let dealt = arms(&world, "split").await;
    let nested = Route {
        name: "outer".into(),
        arms: vec![Arm { model: "split".into(), ..arm("a", 1, 100.0) }],
        ..split(0.0)
    };
    for (routes, expected) in [
        (DesiredRoutes::Faulty { reason: "routes.toml: line 3".into() }, expect!["routes.toml: line 3"]),
        (
            read(Route { arms: vec![arm("old", 1, 90.0), arm("new", 2, 5.0)], ..split(0.0) }),
            expect!["route 'split': the weights add up to 95, expected 100: 90 (old) + 5 (new)"],
        ),
        (
            read(Route { arms: vec![arm("old", 1, 90.0), arm("new", 7, 10.0)], ..split(0.0) }),
            expect!["route 'split': arm 'new' names version 7 of model 'm', which has no such version"],
        ),
        (
            read(Route { name: "m".into(), ..split(50.0) }),
            expect!["route 'm': a model of the repository has this name: give the route another one"],
        ),
        (
            DesiredRoutes::Read(vec![split(50.0), nested]),
            expect![
                "route 'outer': arm 'a' names the route 'split': routes cannot be nested; name its models instead"
            ],
        ),
    ] {
        world.put_routes(routes);
        world.read().await;
        check_refusal(&world, expected).await;
        assert_eq!(arms(&world, "split").await, dealt);
    }
    world.put_routes(read(split(0.0)));
    world.read().await;
    assert_eq!(arms(&world, "split").await, "o".repeat(20), "taken over live");
    assert_eq!(world.control.routes().await.unwrap()[0].fault, None);
    world.put_routes(DesiredRoutes::default());
    world.read().await;
    let error = ask(&world, "split", 0).await.unwrap_err();
    expect!["model 'split' is not in the repository: its index lists what is"].assert_eq(&error.to_string());
    world.shut_down().await;
}

/// What readiness and operators are told of the repository's routes.
async fn check_refusal(world: &World, expected: Expect) {
    let fault = world.control.routes().await.unwrap()[0].fault.clone().unwrap();
    expected.assert_eq(&fault);
    assert_eq!(world.engine.ready().failing, std::slice::from_ref(&fault));
    let error = world.control.promote("split", "new", Weight::ALL).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the repository's routes are not in force: mend them first: {fault}")
    );
}

#[tokio::test]
async fn at_the_start_routes_that_can_be_are_served_and_the_others_are_told() {
    let lost = Route { name: "lost".into(), arms: vec![arm("a", 7, 100.0)], ..split(0.0) };
    let routes = DesiredRoutes::Read(vec![lost, split(0.0)]);
    let world = World::start_with(routes, all(), Options::default(), TWO).await;
    assert_eq!(arms(&world, "split").await, "o".repeat(20));
    let error = ask(&world, "lost", 0).await.unwrap_err();
    expect![[r#"
        route 'lost': arm 'a' names version 7 of model 'm', which has no such version
        1 READY 
        2 READY 
        not ready: route 'lost': arm 'a' names version 7 of model 'm', which has no such version
    "#]]
    .assert_eq(&format!("{error}\n{}", world.say()));
    world.put(7, Contents::Adds(7));
    world.control.load("m", None).await.unwrap();
    assert_eq!(ask(&world, "lost", 0).await.unwrap().model.version, 7, "what it waited for came");
    world.shut_down().await;
}

fn refused(result: Result<RouteDetails, ControlError>) -> String {
    result.map(|details| details.route).unwrap_err().to_string()
}

#[tokio::test]
async fn operators_change_routes_and_the_registry_keeps_them() {
    let world = World::start(all(), Options::default(), TWO).await;
    assert!(world.control.routes().await.unwrap().is_empty());
    let details = world.control.set_route(split(0.0)).await.unwrap();
    assert_eq!(details.route, split(0.0));
    assert_eq!(details.arms.iter().map(|arm| arm.version).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(world.kept_routes(), read(split(0.0)));
    assert_eq!(arms(&world, "split").await, "o".repeat(20));

    let promoted = world.control.promote("split", "new", Weight::from_percent(25.5).unwrap()).await.unwrap();
    assert_eq!(promoted.route, split(25.5));
    assert_eq!(world.kept_routes(), read(split(25.5)));
    assert_eq!(world.control.abort("split").await.unwrap().route, split(0.0));
    assert_eq!(arms(&world, "split").await, "o".repeat(20));

    let wrong = Route { arms: vec![arm("old", 1, 60.0), arm("new", 2, 30.0)], ..split(0.0) };
    expect!["route 'split': the weights add up to 90, expected 100: 60 (old) + 30 (new)"]
        .assert_eq(&refused(world.control.set_route(wrong).await));
    expect!["route 'split' has no arm 'third': its arms are 'old', 'new'"]
        .assert_eq(&refused(world.control.promote("split", "third", Weight::ALL).await));
    expect!["there is no route 'none'"].assert_eq(&refused(world.control.abort("none").await));
    let wide = Arm { model: "wide".into(), ..arm("wide", 1, 50.0) };
    let wide = Route { arms: vec![arm("old", 1, 50.0), wide], ..split(0.0) };
    expect!["route 'split': clients of arm 'old' (m@1) could not use arm 'wide' (wide@1) instead: input x INT32 [batch, 1] would be x INT32 [batch, 2]"].assert_eq(&refused(world.control.set_route(wide).await));
    assert_eq!(world.kept_routes(), read(split(0.0)), "nothing of that is kept");
    world.put_routes(DesiredRoutes::Changing);
    expect!["the repository's routes were written to a moment ago: try again when they are in force"]
        .assert_eq(&refused(world.control.abort("split").await));
    world.put_routes(read(split(0.0)));
    world.shut_down().await;
}

#[tokio::test]
async fn a_shadow_follows_its_model_and_keeps_its_version_loaded() {
    let target = Arm { version: VersionSelector::Default, ..arm("next", 0, 100.0) };
    let shadow = Shadow { target, tolerance: Tolerance::default(), keep_inputs: false };
    let old = Shadow { target: arm("old", 2, 0.0), ..shadow.clone() };
    let route = Route { shadows: vec![shadow, old], ..split(0.0) };
    let world = World::start_with(read(route), latest(), Options::default(), TWO).await;
    // Version 1 answers, the default one is compared with it.
    let counts = async |compared: u64| loop {
        ask(&world, "split", 0).await.unwrap();
        let counts = world.engine.shadows("split").unwrap().swap_remove(0).counts;
        if counts.mismatched >= compared {
            return counts;
        }
    };
    assert_eq!(counts(1).await.matched, 0);
    world.put(3, Contents::Adds(1));
    world.until_default(3).await;
    let matched = async || world.engine.shadows("split").unwrap()[0].counts.matched;
    while matched().await == 0 {
        ask(&world, "split", 0).await.unwrap();
    }
    let details = world.control.routes().await.unwrap().swap_remove(0);
    let versions: Vec<Option<u64>> = details.shadows.iter().map(|shadow| shadow.version).collect();
    assert_eq!(versions, [Some(3), Some(2)], "kept loaded although the policy is the latest one");
    let (before, asked) = (details.shadows[0].counts.compared(), details.route.clone());
    let promoted = world.control.promote("split", "new", Weight::from_percent(1.0).unwrap()).await.unwrap();
    assert!(promoted.shadows[0].counts.compared() >= before, "weights change, shadows go on");
    assert_ne!(promoted.route, asked);
    world.control.unload("m").await.unwrap();
    let failing = world.engine.ready().failing.join("\n");
    assert!(failing.contains("route 'split': shadow 'next': model 'm'"), "{failing}");
    world.shut_down().await;
}

#[tokio::test]
async fn shadows_that_cannot_be_are_refused() {
    let world = World::start_with(read(split(0.0)), all(), Options::default(), TWO).await;
    let of = |target: Arm| Shadow { target, tolerance: Tolerance::default(), keep_inputs: false };
    let set =
        async |shadows: Vec<Shadow>| refused(world.control.set_route(Route { shadows, ..split(0.0) }).await);
    let model = |model: &str| of(Arm { model: model.into(), ..arm("s", 1, 100.0) });
    expect![[r#"route 'split': shadow 's' names the model 'none', which is not in the repository"#]]
        .assert_eq(&set(vec![model("none")]).await);
    expect![[r#"route 'split': shadow 's' names the route 'split': a shadow is a model; name one of its models instead"#]]
        .assert_eq(&set(vec![model("split")]).await);
    expect![[r#"route 'split': shadow 's' names version 7 of model 'm', which has no such version"#]]
        .assert_eq(&set(vec![of(arm("s", 7, 100.0))]).await);
    expect![[r#"route 'split': shadow 's' is there twice: give each shadow a name of its own"#]]
        .assert_eq(&set(vec![of(arm("s", 1, 1.0)), of(arm("s", 2, 1.0))]).await);
    let tolerance = Tolerance { absolute: -1.0, relative: 0.0 };
    expect![[r#"route 'split': shadow 's' has the tolerance absolute -1.0, relative 0.0: expected numbers from 0 on"#]]
        .assert_eq(&set(vec![Shadow { tolerance, ..of(arm("s", 2, 1.0)) }]).await);
    expect![[r#"route 'split': requests for arm 'old' (m@1) cannot be mirrored to shadow 's' (wide@1): input x INT32 [batch, 1] would be x INT32 [batch, 2]"#]]
        .assert_eq(&set(vec![model("wide")]).await);
    let many = (0..9).map(|index| of(Arm { name: format!("s{index}"), ..arm("", 2, 1.0) })).collect();
    expect![[r#"route 'split': has 9 shadows: expected 8 at most"#]].assert_eq(&set(many).await);
    assert_eq!(world.kept_routes(), read(split(0.0)), "nothing of that is kept");
    world.shut_down().await;
}
