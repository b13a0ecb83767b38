//! Shadows of routes: what is compared, what is shed, and that nobody who asks the route or the shadowed model feels them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use expect_test::expect;
use gristmill_engine::comparison::Tolerance;
use gristmill_engine::engine::{Engine, ShadowReport};
use gristmill_engine::error::{InferError, RunError};
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{NamedTensor, Query, Response, VersionSelector};
use gristmill_engine::routing::{Arm, KeySource, Policy, Route, Shadow, Weight};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, batched_signature, engine_with_routes};
use gristmill_engine::tuning::Tuning;
use tokio::sync::Mutex;

/// Mirrors have only what others leave of the cores, and tests that wait for them leave little: they take turns.
static TURN: Mutex<()> = Mutex::const_new(());

fn arm(name: &str, model: &str, percent: f64) -> Arm {
    let weight = Weight::from_percent(percent).unwrap();
    Arm { name: name.into(), model: model.into(), version: VersionSelector::Default, weight }
}

fn shadow(model: &str) -> Shadow {
    let target = arm(model, model, 100.0);
    Shadow { target, tolerance: Tolerance { absolute: 0.5, relative: 0.0 }, keep_inputs: false }
}

/// `route` to `primary`, with these shadows.
fn route(shadows: Vec<Shadow>) -> Route {
    Route {
        name: "route".into(),
        policy: Policy::Split,
        key: KeySource::Header,
        salt: "salt".into(),
        arms: vec![arm("control", "primary", 100.0)],
        canary: None,
        rollout: Vec::new(),
        shadows,
    }
}

/// `y = x + added`; fails of a negative `x` if it is told to.
fn adds(added: f32, fails: bool) -> FakeBackend {
    FakeBackend::new(batched_signature(DType::Fp32, &[2]), move |inputs| {
        let input = inputs[0].as_ref().unwrap();
        let values = input.data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        if fails && values.clone().any(|value| value < 0.0) {
            return Err(RunError::Failed("the model cannot do this".into()));
        }
        let data: Vec<u8> = values.flat_map(|value| (value + added).to_le_bytes()).collect();
        Ok(vec![Tensor::new(DType::Fp32, input.shape, data.into()).unwrap()])
    })
}

fn serve<const N: usize>(models: [(&'static str, FakeBackend); N], route: Route) -> (Engine, Reconciler) {
    let tuning = || Tuning { instances: Some(1), ..Tuning::default() };
    engine_with_routes(models.map(|(name, backend)| (name, 1, backend, tuning())), vec![route])
}

fn query(model: &str, values: [f32; 2]) -> Query {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DType::Fp32, [1, 2].as_slice(), Bytes::from(data)).unwrap();
    Query { model: model.into(), inputs: vec![NamedTensor { name: "x".into(), tensor }], ..Query::default() }
}

async fn ask(engine: &Engine, first: f32) -> Result<Response, InferError> {
    engine.infer(query("route", [first, 1.0])).await
}

/// The first shadow, once so many of its requests have come to an end.
async fn report(engine: &Engine, ended: u64) -> ShadowReport {
    loop {
        let report = engine.shadows("route").unwrap().swap_remove(0);
        let counts = &report.counts;
        let failed = counts.shadow_failed + counts.primary_failed + counts.both_failed;
        if counts.compared() + failed + counts.shed() + counts.not_serving + counts.unanswered >= ended {
            return report;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_are_compared_and_clients_see_the_primary_alone() {
    let _turn = TURN.lock().await;
    let same = Shadow { keep_inputs: true, ..shadow("same") };
    let far = Shadow { keep_inputs: true, ..shadow("far") };
    let models = [("primary", adds(0.0, false)), ("same", adds(0.25, false)), ("far", adds(2.0, false))];
    let (engine, reconciler) = serve(models, route(vec![same, far, shadow("primary")]));
    for number in 0..8_u16 {
        let answer = ask(&engine, f32::from(number)).await.unwrap();
        assert_eq!((answer.model.name.as_str(), answer.outputs[0].1.data().len()), ("primary", 8));
    }
    let reports = loop {
        let reports = engine.shadows("route").unwrap();
        if reports[..2].iter().all(|report| report.counts.compared() == 8) {
            break reports;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((reports[0].counts.matched, reports[0].worst.len()), (8, 0));
    assert_eq!(reports[1].counts.mismatch_rate(), Some(1.0));
    assert_eq!(reports[2].counts.compared(), 0, "nothing is compared with itself");
    let worst = &reports[1].worst;
    assert_eq!(worst.len(), 8);
    assert_eq!((&worst[0].primary, &worst[0].shadow), (&("primary".into(), 1), &("far".into(), 1)));
    expect![[r#"
        TensorMismatch {
            name: "y",
            difference: Ok(
                Difference {
                    elements: 2,
                    differing: 2,
                    excess: 1.5,
                    numbers: Some(
                        NumberDifference {
                            absolute: 2.0,
                            relative: 1.0,
                        },
                    ),
                    scores: Some(
                        ScoreDifference {
                            rows: 1,
                            agreeing: 1,
                            distance: 0.0,
                        },
                    ),
                },
            ),
        }
    "#]]
    .assert_debug_eq(&worst.iter().find(|found| first_input(found) == 0.0).unwrap().tensors[0]);

    for model in ["same", "far"] {
        let statistics = engine.statistics(Some(model), &VersionSelector::Default).unwrap();
        assert_eq!((statistics[0].1.success.count, statistics[0].1.inference_count), (0, 0), "{model}");
        let windows = engine.attainment(model).unwrap().windows;
        assert!(windows.iter().all(|window| window.tally.good + window.tally.bad == 0), "{model}");
    }
    reconciler.shut_down();
}

fn first_input(found: &gristmill_engine::engine::Mismatch) -> f32 {
    let inputs = found.inputs.as_ref().unwrap();
    f32::from_le_bytes(inputs[0].tensor.data()[..4].try_into().unwrap())
}

#[tokio::test]
async fn the_primary_does_not_wait_and_what_has_no_room_is_shed() {
    let _turn = TURN.lock().await;
    let gate = Arc::new(Gate::default());
    let models = [("primary", adds(0.0, false)), ("slow", adds(0.0, false).held_at(&gate))];
    let (engine, reconciler) = serve(models, route(vec![shadow("slow")]));
    gate.close();
    ask(&engine, 0.0).await.unwrap();
    // Its mirror runs, and stays at the gate.
    gate.wait_for(1);
    for number in 1..=20_u16 {
        ask(&engine, f32::from(number)).await.unwrap();
    }
    let shed = report(&engine, 4).await.counts;
    assert_eq!((shed.no_room, shed.compared()), (4, 0), "sixteen may wait");
    gate.open();
    let all = report(&engine, 21).await.counts;
    assert_eq!((all.matched, all.no_room, all.no_core), (17, 4, 0));
    reconciler.shut_down();
}

#[tokio::test]
async fn a_mirror_has_no_core_that_anybody_wants() {
    let _turn = TURN.lock().await;
    let (held, mirrors) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let busy = Tuning { instances: Some(8), batch_rows_max: Some(1), ..Tuning::default() };
    let one = || Tuning { instances: Some(1), ..Tuning::default() };
    let models = [
        ("busy", 1, adds(0.0, false).held_at(&held), busy),
        ("primary", 1, adds(0.0, false), one()),
        ("slow", 1, adds(0.0, false).held_at(&mirrors), one()),
    ];
    let (engine, reconciler) = engine_with_routes(models, vec![route(vec![shadow("slow")])]);
    let engine = Arc::new(engine);
    mirrors.close();
    held.close();
    ask(&engine, 0.0).await.unwrap();
    mirrors.wait_for(1);
    ask(&engine, 1.0).await.unwrap();
    // All eight cores serve from now on, although a mirror runs.
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.infer(query("busy", [0.0; 2])).await })
        })
        .collect();
    tokio::task::yield_now().await;
    held.wait_for(8);
    mirrors.open();
    let counts = report(&engine, 2).await.counts;
    assert_eq!((counts.matched, counts.no_core), (1, 1), "the second is shed");
    held.open();
    for run in runs {
        run.await.unwrap().unwrap();
    }
    reconciler.shut_down();
}

#[tokio::test]
async fn a_failure_on_one_side_is_told_apart() {
    let _turn = TURN.lock().await;
    for (primary_fails, shadow_fails) in [(true, false), (false, true), (true, true)] {
        let models = [("primary", adds(0.0, primary_fails)), ("other", adds(0.0, shadow_fails))];
        let (engine, reconciler) = serve(models, route(vec![shadow("other")]));
        assert_eq!(ask(&engine, -1.0).await.is_err(), primary_fails);
        let counts = report(&engine, 1).await.counts;
        let found = (counts.primary_failed, counts.shadow_failed, counts.both_failed);
        let expected = match (primary_fails, shadow_fails) {
            (true, false) => (1, 0, 0),
            (false, _) => (0, 1, 0),
            (true, true) => (0, 0, 1),
        };
        assert_eq!(found, expected);
        assert!(counts.last_error.contains("the model cannot do this"), "{}", counts.last_error);
        reconciler.shut_down();
    }
}

#[tokio::test]
async fn a_panic_costs_one_mirror() {
    let _turn = TURN.lock().await;
    let panics = Arc::new(AtomicBool::new(false));
    let does = Arc::clone(&panics);
    let fragile = FakeBackend::checked_identity(DType::Fp32, &[2], move |_| {
        assert!(!does.swap(false, Ordering::Relaxed), "the runtime has met a bug");
        Ok(())
    });
    let (engine, reconciler) =
        serve([("primary", adds(0.0, false)), ("fragile", fragile)], route(vec![shadow("fragile")]));
    panics.store(true, Ordering::Relaxed);
    ask(&engine, 0.0).await.unwrap();
    let counts = report(&engine, 1).await.counts;
    assert_eq!(
        (counts.shadow_failed, counts.last_error.as_str()),
        (1, "the run panicked: the runtime has met a bug")
    );
    ask(&engine, 0.0).await.unwrap();
    assert_eq!(report(&engine, 2).await.counts.matched, 1);
    reconciler.shut_down();
}

#[tokio::test]
async fn the_end_stops_a_mirror_that_runs() {
    let _turn = TURN.lock().await;
    let gate = Arc::new(Gate::default());
    let models = [("primary", adds(0.0, false)), ("slow", adds(0.0, false).held_at(&gate))];
    let (engine, reconciler) = serve(models, route(vec![shadow("slow")]));
    gate.close();
    ask(&engine, 0.0).await.unwrap();
    gate.wait_for(1);
    reconciler.shut_down();
    assert_eq!(engine.shadows("route").unwrap()[0].counts.shadow_failed, 1);
}
