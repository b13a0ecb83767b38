//! Tests of the cost model: a line of sweep and runs, a line of what is predicted.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::request::ShapeKey;

/// Seeds a model with sweep times and plays runs, then writes down predictions, all in microseconds.
///
/// `1=100,110 2=150` are times of the sweep by rows. Then, comma-separated: `8=500` is a run of 8 rows,
/// `8=500*20` twenty of them, `8/32=500` one of requests whose one dynamic dimension is 32; `? 3 5/32` asks.
fn check(rows_max: usize, script: &str, expected: Expect) {
    let (sweep, steps) = script.split_once('|').unwrap();
    let sweep: Vec<(usize, Vec<Duration>)> = sweep
        .split_whitespace()
        .map(|entry| {
            let (rows, times) = entry.split_once('=').unwrap();
            (rows.parse().unwrap(), times.split(',').map(micros).collect())
        })
        .collect();
    let mut model = CostModel::seeded(rows_max, &sweep);
    let mut output = Vec::new();
    for step in steps.split(';').map(str::trim) {
        if let Some(asked) = step.strip_prefix('?') {
            let line = asked.split_whitespace().map(|what| {
                let (rows, key) = rows_and_shape(what);
                let shape = model.shape_id(&key);
                let Prediction { typical_ns, high_ns } = model.predict(rows, shape);
                format!("{what}: {} {}", typical_ns / 1000, high_ns / 1000)
            });
            output.push(line.collect::<Vec<_>>().join(", "));
            continue;
        }
        let (what, time) = step.split_once('=').unwrap();
        let (time, times) = time.split_once('*').unwrap_or((time, "1"));
        let (rows, key) = rows_and_shape(what);
        for _ in 0..times.parse().unwrap() {
            model.record(rows, &key, micros(time).as_nanos() as u64);
        }
    }
    expected.assert_eq(&output.join("\n"));
}

fn micros(text: &str) -> Duration {
    Duration::from_micros(text.parse().unwrap())
}

fn rows_and_shape(text: &str) -> (usize, ShapeKey) {
    match text.split_once('/') {
        Some((rows, width)) => (rows.parse().unwrap(), ShapeKey::of(&[width.parse().unwrap()])),
        None => (text.parse().unwrap(), ShapeKey::default()),
    }
}

#[test]
fn nothing_known_is_no_prediction() {
    check(8, "| ? 1 8", expect!["1: 0 0, 8: 0 0"]);
}

#[test]
fn sizes_between_are_interpolated_and_sizes_beyond_go_on() {
    check(
        64,
        "1=100 2=120 4=160 8=240 | ? 1 2 3 4 6 8 16 24 64 100",
        expect![
            "1: 100 100, 2: 120 120, 3: 140 140, 4: 160 160, 6: 200 200, 8: 240 240, 16: 400 400, 24: 560 560, 64: 1360 1360, 100: 2080 2080"
        ],
    );
    check(64, "1=100 | ? 1 2 4", expect!["1: 100 100, 2: 200 200, 4: 400 400"]);
    check(1, "1=100 | ? 1 3", expect!["1: 100 100, 3: 300 300"]);
}

#[test]
fn the_sweep_counts_by_its_least_sample() {
    check(1, "1=100,150,130 | ? 1", expect!["1: 100 150"]);
    check(1, "1=100,9000,130 | ? 1", expect!["1: 100 200"]);
}

#[test]
fn runs_take_the_sweeps_place_and_carry_the_other_sizes_along() {
    check(
        8,
        "1=1000 2=1100 4=1300 8=1700 | 1=2000; ? 1 8; 1=2000*10; ? 1 2 4 8",
        expect![[r#"
            1: 2000 2200, 8: 3400 3740
            1: 2030 2282, 2: 2200 2395, 4: 2600 2831, 8: 3400 3702"#]],
    );
}

#[test]
fn a_size_between_is_counted_with_the_nearest() {
    check(
        8,
        "1=1000 2=1100 4=1300 8=1700 | 3=2400*300; ? 2 3 4",
        expect!["2: 2200 2200, 3: 2344 2409, 4: 2489 2618"],
    );
}

#[test]
fn a_size_that_once_ran_badly_is_tried_again() {
    check(
        8,
        "1=1000 2=1100 4=1300 8=1700 | 8=90000*20; 4=1300*20; ? 4 8",
        expect!["4: 1244 2036, 8: 2737 4479"],
    );
}

#[test]
fn a_larger_batch_that_is_quicker_now_speaks_for_smaller_ones() {
    check(
        8,
        "1=1000 2=1100 4=1300 8=1700 | 4=5000*20; 8=1700*300; ? 4 8",
        expect!["4: 1637 1702, 8: 1637 1702"],
    );
}

#[test]
fn shapes_have_tables_of_their_own() {
    check(
        8,
        "1=1000 2=1100 4=1300 8=1700 | 1/100=9000; 1/10=500; ? 1/128 8/65 1/16 1/500 1",
        expect!["1/128: 4000 4395, 8/65: 6800 7472, 1/16: 1000 1098, 1/500: 2500 2747, 1: 2500 2747"],
    );
}

#[test]
fn a_shape_that_is_not_needed_any_more_gives_way() {
    let key = |width: usize| ShapeKey::of(&[1 << width]);
    let mut model = CostModel::new(1);
    (0..SHAPES_MAX).for_each(|width| model.record(1, &key(width), 1_000_000));
    let first = model.shape_id(&key(0));
    assert_ne!(first, ShapeId::All);
    model.record(1, &key(40), 1_000_000);
    assert_eq!(model.shape_id(&key(40)), ShapeId::All, "all the others ran lately");
    (0..SHAPE_KEPT_RUNS).for_each(|_| model.record(1, &key(1), 1_000_000));
    model.record(1, &key(40), 70_000_000);
    assert_ne!(model.shape_id(&key(40)), ShapeId::All);
    assert_eq!(model.shape_id(&key(0)), ShapeId::All);
    assert_eq!(model.predict(1, first), model.predict(1, ShapeId::All), "not that of the shape in its place");
    assert_eq!(model.tables().len(), SHAPES_MAX + 1);
}

#[test]
fn the_margin_grows_with_misses_and_shrinks_without() {
    let mut model = CostModel::new(1);
    let key = ShapeKey::default();
    let mut misses = 0;
    let mut times = (0..20_000u64)
        .map(|run| 1_000_000 + (run * 7919) % 1000 * 500 + u64::from(run % 40 == 0) * 9_000_000);
    times.by_ref().take(2000).for_each(|took| model.record(1, &key, took));
    for took in times {
        misses += u64::from(took > model.predict(1, ShapeId::All).high_ns);
        model.record(1, &key, took);
    }
    assert!((90..=270).contains(&misses), "{misses} of 18,000");
    let raised = model.margin();
    (0..2000).for_each(|_| model.record(1, &key, 1_000_000));
    assert!(model.margin() <= raised && model.margin() < 1.2, "{} after {raised}", model.margin());
}

#[test]
fn a_row_costs_least_in_the_best_batch() {
    let sweep = [(1, 400), (2, 500), (4, 1000), (8, 2100)]
        .map(|(rows, time)| (rows, vec![Duration::from_micros(time)]));
    assert_eq!(CostModel::seeded(1, &sweep).row_ns(ShapeId::All), 400_000);
    assert_eq!(CostModel::seeded(8, &sweep).row_ns(ShapeId::All), 250_000);
    assert_eq!(CostModel::new(8).row_ns(ShapeId::All), 0);
}

#[test]
fn the_table_says_where_it_is_from() {
    let sweep = [(1, vec![Duration::from_micros(100), Duration::from_micros(130)])];
    let mut model = CostModel::seeded(4, &sweep);
    model.record(2, &ShapeKey::default(), 180_000);
    let tables = model.tables();
    let line =
        |size: &SizeCost| format!("{} x{} {:?} {:?}", size.rows, size.count, size.source, size.typical);
    let lines: Vec<String> = tables[0].sizes.iter().map(line).collect();
    expect![[r#"
        1 x0 Sweep 90µs
        2 x1 Runs 180µs
        4 x0 Estimate 360µs"#]]
    .assert_eq(&lines.join("\n"));
}

proptest! {
    /// Whatever runs, predictions are finite, and the bound is not below the mean.
    #[test]
    fn predictions_are_sound(
        runs in prop::collection::vec((1usize..=40, 0usize..40, 0u64..5_000_000_000), 1..300),
    ) {
        let mut model = CostModel::new(32);
        for (rows, width, took) in runs {
            model.record(rows, &ShapeKey::of(&[width]), took);
        }
        for shape in (0..40).map(|width| model.shape_id(&ShapeKey::of(&[width]))).chain([ShapeId::All]) {
            for rows in 1..=40 {
                let Prediction { typical_ns, high_ns } = model.predict(rows, shape);
                prop_assert!(high_ns < 1 << 50 && typical_ns > 0);
                prop_assert!(high_ns >= typical_ns, "{rows}: {typical_ns} {high_ns}");
            }
        }
        prop_assert!(model.margin() >= 1.0 && model.margin() <= MARGIN_MAX);
    }
}
