//! What the former keeps to under random use.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::batch::{OVERLOOKED_EVERY, PATIENCE_NS};
use super::script::{Fake, ms_long, policy};
use super::*;
use crate::request::ShapeKey;
use crate::waiting::Due;

/// What a random script does.
#[derive(Clone, Debug)]
enum Act {
    Offer {
        rows: usize,
        width: usize,
        level: u8,
        due_ms: Option<u64>,
        yield_ms: Option<u64>,
        is_abandoned: bool,
    },
    Leave(usize),
    Take(usize),
    Done {
        worker: usize,
        took_us: u64,
    },
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let offer = (
        1usize..=4,
        0usize..3,
        0u8..3,
        prop::option::of(0u64..80),
        prop::option::of(0u64..20),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(rows, width, level, due_ms, yield_ms, is_abandoned)| Act::Offer {
            rows,
            width,
            level,
            due_ms,
            yield_ms,
            is_abandoned,
        });
    let act = prop_oneof![
        6 => offer,
        1 => (0usize..100).prop_map(Act::Leave),
        3 => (0usize..2).prop_map(Act::Take),
        3 => (0usize..2, 1u64..30_000).prop_map(|(worker, took_us)| Act::Done { worker, took_us }),
        3 => (0u64..9_000).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..250)
}

proptest! {
    /// Whatever comes and goes: nothing is lost or doubled, no bound is broken, no batch mixes shapes, nothing runs
    /// after its deadline, and what is dropped had a deadline or nobody who waited.
    #[test]
    fn nothing_is_lost_and_no_bound_is_broken(
        acts in acts(),
        delay_ms in prop::option::of(0u64..3),
        prefer in prop::bool::ANY,
        cost_ms in prop::option::of((1u64..20, 0u64..10)),
    ) {
        let policy = Policy {
            batch_delay: delay_ms.map(ms_long),
            preferred_rows: if prefer { vec![2, 3] } else { Vec::new() },
            queue_rows_max: 20,
            queue_bytes_max: 150,
            queue_requests_max: vec![None, Some(4), None],
            workers: 2,
            ..policy()
        };
        let sweep: Vec<_> = cost_ms.map_or(Vec::new(), |(fixed, row)| {
            [1, 2, 4].map(|rows| (rows, vec![ms_long(fixed + row * rows as u64)])).into()
        });
        let start = Instant::now();
        let mut now = start;
        let mut former = Former::new(policy.clone(), CostModel::seeded(4, &sweep), start);
        let mut places = Vec::new();
        let mut gone = HashSet::new();
        let mut leave = |name: String| assert!(gone.insert(name.clone()), "{name} left twice");
        for act in acts {
            match act {
                Act::Offer { rows, width, level, due_ms, yield_ms, is_abandoned } => {
                    let due = Due {
                        level,
                        deadline: due_ms.map(|due| now + ms_long(due)),
                        start_by: None,
                        yield_at: yield_ms.map(|at| now + ms_long(at)),
                    };
                    let key = ShapeKey::of(&[width]);
                    let name = places.len().to_string();
                    let item = Fake { name, rows, key, arrived: now, due, is_abandoned };
                    if former.admits(now, std::slice::from_ref(&item)).is_ok() {
                        places.push(former.add(item));
                    }
                }
                Act::Leave(number) => {
                    if let Some(item) = places.get(number).and_then(|place| former.remove(*place, false)) {
                        prop_assert_eq!(&item.name, &number.to_string());
                        leave(item.name);
                    }
                }
                Act::Take(worker) => {
                    if former.poll(now) == Decision::Run {
                        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                        former.take(now, worker, &mut batch, &mut dropped);
                        prop_assert!(!batch.is_empty() || !dropped.is_empty());
                        prop_assert!(batch.iter().map(Item::rows).sum::<usize>() <= policy.batch_rows_max);
                        prop_assert!(batch.windows(2).all(|pair| pair[0].key == pair[1].key));
                        prop_assert!(batch.iter().all(|item| item.due.deadline.is_none_or(|end| end > now)));
                        prop_assert!(dropped.iter().all(|item| item.is_abandoned || item.due.deadline.is_some()));
                        batch.into_iter().chain(dropped).for_each(|item| leave(item.name));
                    }
                }
                Act::Done { worker, took_us } => former.finish(worker, Some(Duration::from_micros(took_us))),
                Act::Wait(us) => now += Duration::from_micros(us),
            }
            prop_assert!(former.rows() <= policy.queue_rows_max);
            prop_assert!(former.bytes() <= policy.queue_bytes_max);
        }
        former.close();
        while former.poll(now) == Decision::Run {
            let (mut batch, mut dropped) = (Vec::new(), Vec::new());
            former.take(now, 0, &mut batch, &mut dropped);
            batch.into_iter().chain(dropped).for_each(|item| leave(item.name));
        }
        prop_assert_eq!(gone.len(), places.len());
        prop_assert_eq!((former.rows(), former.bytes()), (0, 0));
    }

    /// Of two that are equal in all but priority, the more urgent goes first, unless the other is overlooked.
    #[test]
    fn priority_is_kept_but_for_the_overlooked(
        levels in prop::collection::vec(0u8..3, 2..60),
        pauses_ms in prop::collection::vec(0u64..200, 60),
    ) {
        let start = Instant::now();
        let mut now = start;
        let policy = Policy { batch_rows_max: 1, ..policy() };
        let mut former = Former::new(policy, CostModel::new(1), start);
        let mut waiting: Vec<(u8, Instant)> = Vec::new();
        let (mut overtaken, mut batches) = (0, 0);
        for (level, pause_ms) in levels.into_iter().zip(pauses_ms) {
            now += ms_long(pause_ms);
            let due = Due { level, ..Due::default() };
            let item = Fake {
                name: "x".into(),
                rows: 1,
                key: ShapeKey::default(),
                arrived: now,
                due,
                is_abandoned: false,
            };
            former.add(item);
            waiting.push((level, now));
            if pause_ms % 2 == 0 {
                let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                former.take(now, 0, &mut batch, &mut dropped);
                batches += 1;
                let taken = (batch[0].due.level, batch[0].arrived);
                waiting.retain(|other| *other != taken);
                if waiting.iter().any(|other| other.0 < taken.0) {
                    overtaken += 1;
                    prop_assert!(now - taken.1 >= Duration::from_nanos(PATIENCE_NS));
                }
            }
        }
        prop_assert!(overtaken <= batches / OVERLOOKED_EVERY, "{overtaken} of {batches}");
    }
}
