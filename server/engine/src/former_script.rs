//! Scripts for tests of the former: what comes and when in a line, what is decided in the next.

use std::time::{Duration, Instant};

use expect_test::Expect;

use super::*;
use crate::request::ShapeKey;
use crate::waiting::Due;

/// An item made by hand.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) key: ShapeKey,
    pub(super) arrived: Instant,
    pub(super) due: Due,
    pub(super) is_abandoned: bool,
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
    fn due(&self) -> &Due {
        &self.due
    }
    fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }
}

pub(super) fn policy() -> Policy {
    Policy {
        batch_rows_max: 4,
        batch_delay: None,
        preferred_rows: Vec::new(),
        queue_rows_max: 100,
        queue_bytes_max: 1000,
        queue_time_max: None,
        queue_requests_max: Vec::new(),
        workers: 1,
        is_eager: false,
    }
}

/// Plays a script and writes down what comes out.
///
/// `max=N delay=Nms prefer=N,N rows=N bytes=N requests=N,N workers=N eager=1` set the policy, `cost=N,N` the run
/// times of 1, 2, 4, ... rows in ms. Then, comma-separated: `2ms` is the time now; `a` offers one row, `a*3` three,
/// `a/7` one of width 7, `a!5` one with a deadline at 5 ms, `a<5` one that must be taken by then, `a>5` one that yields
/// then, `a^2` one of level 2, `a-` one that is abandoned, and all of these together; `drop a` takes it back; `poll`
/// asks; `take` takes for worker 0, `take 1` for another, and `done 1` ends its run; `serve` does both, unseen;
/// `close` closes.
pub(super) fn check(script: &str, expected: Expect) {
    let (settings, steps) = script.split_once('|').unwrap();
    let mut policy = policy();
    let mut sweep = Vec::new();
    for setting in settings.split_whitespace() {
        let (key, value) = setting.split_once('=').unwrap();
        let list = || value.split(',').map(|number| number.parse().unwrap());
        match key {
            "max" => policy.batch_rows_max = value.parse().unwrap(),
            "delay" => policy.batch_delay = Some(milliseconds(value)),
            "prefer" => policy.preferred_rows = list().collect(),
            "rows" => policy.queue_rows_max = value.parse().unwrap(),
            "bytes" => policy.queue_bytes_max = value.parse().unwrap(),
            "time" => policy.queue_time_max = Some(milliseconds(value)),
            "requests" => policy.queue_requests_max = list().map(Some).collect(),
            "workers" => policy.workers = value.parse().unwrap(),
            "eager" => policy.is_eager = true,
            "cost" => {
                sweep = (0..).zip(list()).map(|(power, ms)| (1 << power, vec![ms_long(ms as u64)])).collect();
            }
            _ => panic!("{key}"),
        }
    }
    let start = Instant::now();
    let mut now = start;
    let cost = CostModel::seeded(policy.batch_rows_max, &sweep);
    let mut former = Former::new(policy, cost, start);
    let mut places = std::collections::HashMap::new();
    let mut output = Vec::new();
    for step in steps.split(',').map(str::trim) {
        let (word, argument) = step.split_once(' ').unwrap_or((step, "0"));
        match word {
            "poll" => output.push(match former.poll(now) {
                Decision::Run => "run".to_owned(),
                Decision::Idle => "idle".to_owned(),
                Decision::WaitUntil(until) => format!("wait until {:?}", until - start),
            }),
            "take" => {
                let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                let reason = former.take(now, argument.parse().unwrap(), &mut batch, &mut dropped);
                let names = |items: &[Fake]| items.iter().map(|item| item.name.as_str()).collect::<String>();
                let mut line = format!("{} {}", reason.label(), names(&batch));
                if !dropped.is_empty() {
                    line += &format!(" dropped {}", names(&dropped));
                }
                output.push(line);
            }
            "serve" => {
                former.take(now, 0, &mut Vec::new(), &mut Vec::new());
                former.finish(0, None);
            }
            "done" => former.finish(argument.parse().unwrap(), None),
            "drop" => {
                let taken_back = former.remove(places[argument], false).is_some();
                output.push(format!("{argument} {}", if taken_back { "taken back" } else { "has left" }));
            }
            "close" => former.close(),
            _ if step.ends_with("ms") => now = start + milliseconds(step),
            _ => {
                let item = parse(step, start, now);
                match former.admits(now, std::slice::from_ref(&item)) {
                    Ok(()) => drop(places.insert(item.name.clone(), former.add(item))),
                    Err(refusal) => output.push(format!("{} refused {refusal:?}", item.name)),
                }
            }
        }
    }
    expected.assert_eq(&output.join("\n"));
}

pub(super) fn ms_long(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn milliseconds(text: &str) -> Duration {
    ms_long(text.strip_suffix("ms").unwrap().parse().unwrap())
}

fn parse(step: &str, start: Instant, now: Instant) -> Fake {
    let (name, mut rest) = step.split_at(1);
    let mut item = Fake {
        name: name.into(),
        rows: 1,
        key: ShapeKey::of(&[1]),
        arrived: now,
        due: Due::default(),
        is_abandoned: false,
    };
    while !rest.is_empty() {
        let (kind, more) = rest.split_at(1);
        let digits = more.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = more[..digits].parse().unwrap_or(0);
        let at = Some(start + ms_long(number));
        match kind {
            "*" => item.rows = number as usize,
            "/" => item.key = ShapeKey::of(&[number as usize]),
            "!" => item.due.deadline = at,
            "<" => item.due.start_by = at,
            ">" => item.due.yield_at = at,
            "^" => item.due.level = number as u8 - 1,
            "-" => item.is_abandoned = true,
            _ => panic!("{step}"),
        }
        rest = &more[digits..];
    }
    item
}
