//! Tests of the former: a line of input, a line of expectation, and the bounds under random use.

use std::cell::Cell;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};

/// An item made by hand: `name` is a letter, its width is the shape.
struct Fake {
    name: String,
    rows: usize,
    key: ShapeKey,
    arrived: Instant,
    deadline: Option<Instant>,
    abandoned: Cell<bool>,
}

impl Item for Fake {
    fn rows(&self) -> usize {
        self.rows
    }
    fn bytes(&self) -> usize {
        self.rows * 10
    }
    fn shape_key(&self) -> &ShapeKey {
        &self.key
    }
    fn arrived(&self) -> Instant {
        self.arrived
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
    fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }
}

/// The key of a real request whose second dimension is `width`.
fn shape_key(width: usize) -> ShapeKey {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DType::Uint8,
        shape: Some(vec![Dim::Dynamic(None), Dim::Dynamic(None)]),
        optional: false,
        labels: vec![],
    };
    let signature = Signature { inputs: vec![spec("x")], outputs: vec![spec("y")], batch: BatchAxis::Rows };
    let tensor = Tensor::new(DType::Uint8, [1, width].as_slice(), vec![0; width].into()).unwrap();
    let query = crate::request::Query {
        inputs: vec![crate::request::NamedTensor { name: "x".into(), tensor }],
        ..Default::default()
    };
    crate::request::Request::new(&signature, query).unwrap().shape_key().clone()
}

/// Plays a script and writes down what comes out.
///
/// `max=N delay=Nms rows=N bytes=N` set the policy. Then, comma-separated: `2ms` advances the clock;
/// `a` offers one row, `a*3` three, `a/7` one of width 7, `a!5` one with a deadline at 5 ms, `a-`
/// abandons it; `poll` asks; `take` takes; `close` closes.
fn check(script: &str, expected: Expect) {
    let (settings, steps) = script.split_once('|').unwrap();
    let mut policy = Policy {
        batch_rows_max: 4,
        batch_delay: Duration::ZERO,
        queue_rows_max: 100,
        queue_bytes_max: 1000,
        workers: 1,
    };
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').unwrap();
        match key {
            "max" => policy.batch_rows_max = value.parse().unwrap(),
            "delay" => policy.batch_delay = milliseconds(value),
            "rows" => policy.queue_rows_max = value.parse().unwrap(),
            "bytes" => policy.queue_bytes_max = value.parse().unwrap(),
            _ => panic!("{key}"),
        }
    }
    let start = Instant::now();
    let mut now = start;
    let mut former = Former::new(policy, CostModel::new(policy.batch_rows_max));
    let mut output = Vec::new();
    for step in steps.split(',').map(str::trim) {
        match step {
            "poll" => output.push(match former.poll(now) {
                Decision::Run => "run".to_owned(),
                Decision::Idle => "idle".to_owned(),
                Decision::WaitUntil(until) => format!("wait until {:?}", until - start),
            }),
            "take" => {
                let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                let reason = former.take(now, 0, &mut batch, &mut dropped);
                let names = |items: &[Fake]| items.iter().map(|item| item.name.as_str()).collect::<String>();
                let mut line = format!("{} {}", reason.label(), names(&batch));
                if !dropped.is_empty() {
                    line += &format!(" dropped {}", names(&dropped));
                }
                output.push(line);
            }
            "close" => former.close(),
            step if step.ends_with("ms") => now = start + milliseconds(step),
            step => {
                let item = parse(step, start, now);
                match former.admits(item.rows(), item.bytes()) {
                    Ok(()) => former.add(item),
                    Err(refusal) => output.push(format!("{} refused {refusal:?}", item.name)),
                }
            }
        }
    }
    expected.assert_eq(&output.join("\n"));
}

fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.strip_suffix("ms").unwrap().parse().unwrap())
}

fn parse(step: &str, start: Instant, now: Instant) -> Fake {
    let (name, rest) = step.split_at(1);
    let mut item = Fake {
        name: name.into(),
        rows: 1,
        key: shape_key(1),
        arrived: now,
        deadline: None,
        abandoned: Cell::new(false),
    };
    match rest.split_at_checked(1) {
        Some(("*", rows)) => item.rows = rows.parse().unwrap(),
        Some(("/", width)) => item.key = shape_key(width.parse().unwrap()),
        Some(("!", at)) => item.deadline = Some(start + Duration::from_millis(at.parse().unwrap())),
        Some(("-", _)) => item.abandoned.set(true),
        _ => assert_eq!(rest, ""),
    }
    item
}

#[test]
fn a_free_worker_takes_what_is_there() {
    check(
        "| poll, a, poll, b, take, poll",
        expect![[r#"
        idle
        run
        drained ab
        idle"#]],
    );
}

#[test]
fn rows_are_counted_and_requests_stay_whole() {
    check(
        "max=4 | a*2, b, c*3, d, take, take",
        expect![[r#"
        full ab
        full cd"#]],
    );
    check(
        "max=4 | a*4, b, take, take",
        expect![[r#"
        full a
        drained b"#]],
    );
}

#[test]
fn shapes_do_not_block_each_other() {
    check(
        "| a, b/7, c, d/7, take, take",
        expect![[r#"
        shape ac
        drained bd"#]],
    );
    check(
        "max=2 delay=5ms | a, 1ms, b/7, 2ms, c/7, poll, take, poll",
        expect![[r#"
        run
        full bc
        wait until 5ms"#]],
    );
}

#[test]
fn a_delay_waits_for_company_and_no_longer() {
    check(
        "max=2 delay=5ms | a, 1ms, poll, b, poll, take",
        expect![[r#"
        wait until 5ms
        run
        full ab"#]],
    );
    check(
        "max=4 delay=5ms | a, 5ms, poll, take",
        expect![[r#"
        run
        delay a"#]],
    );
    check(
        "max=4 delay=5ms | a, close, poll, take, b, poll",
        expect![[r#"
        run
        closing a
        b refused Closed
        idle"#]],
    );
}

#[test]
fn the_late_and_the_gone_are_not_run() {
    check(
        "| a!5, b, c-, d, 5ms, poll, take, poll",
        expect![[r#"
        run
        drained bd dropped ac
        idle"#]],
    );
    check(
        "| a!5, 9ms, poll, take",
        expect![[r#"
        run
        drained  dropped a"#]],
    );
    check(
        "max=2 | a!5, b, c, d, 6ms, take, take",
        expect![[r#"
        full bc dropped a
        drained d"#]],
    );
}

#[test]
fn bounds_refuse_and_name_what_waits() {
    check(
        "max=2 rows=3 | a*2, b, c, take, c, take",
        expect![[r#"
        c refused Rows { waiting: 3 }
        full a
        full bc"#]],
    );
    check("bytes=25 | a, b, c", expect!["c refused Bytes { waiting: 20 }"]);
}

proptest! {
    /// Whatever comes and goes: no batch exceeds its rows or mixes shapes, nothing is lost or doubled,
    /// and the counts agree with what waits.
    #[test]
    fn nothing_is_lost_and_no_bound_is_broken(
        offers in prop::collection::vec((1usize..=4, 1usize..4, any::<bool>(), 0u8..4), 1..200),
        delay_ms in 0u64..3,
    ) {
        let policy = Policy {
            batch_rows_max: 4,
            batch_delay: Duration::from_millis(delay_ms),
            queue_rows_max: 20,
            queue_bytes_max: 150,
            workers: 1,
        };
        let keys: Vec<ShapeKey> = (0..4).map(shape_key).collect();
        let mut former = Former::new(policy, CostModel::new(policy.batch_rows_max));
        let mut now = Instant::now();
        let (mut admitted, mut seen) = (0, 0);
        for (index, (rows, width, abandoned, takes)) in offers.into_iter().enumerate() {
            now += Duration::from_micros(500);
            let item = Fake {
                name: index.to_string(),
                rows,
                key: keys[width].clone(),
                arrived: now,
                deadline: None,
                abandoned: Cell::new(abandoned),
            };
            if former.admits(rows, item.bytes()).is_ok() {
                former.add(item);
                admitted += 1;
            }
            prop_assert!(former.rows() <= policy.queue_rows_max);
            prop_assert!(former.bytes() <= policy.queue_bytes_max);
            for _ in 0..takes {
                if former.poll(now) != Decision::Run {
                    break;
                }
                let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                former.take(now, 0, &mut batch, &mut dropped);
                prop_assert!(!batch.is_empty() || !dropped.is_empty());
                prop_assert!(batch.iter().map(Item::rows).sum::<usize>() <= policy.batch_rows_max);
                prop_assert!(batch.windows(2).all(|pair| pair[0].key == pair[1].key));
                seen += batch.len() + dropped.len();
            }
        }
        former.close();
        while former.poll(now) == Decision::Run {
            let (mut batch, mut dropped) = (Vec::new(), Vec::new());
            former.take(now, 0, &mut batch, &mut dropped);
            seen += batch.len() + dropped.len();
        }
        prop_assert_eq!(seen, admitted);
        prop_assert_eq!((former.rows(), former.bytes()), (0, 0));
    }
}
