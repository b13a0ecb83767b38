//! How many sessions a model has and how many threads each: from the cores that are granted, and for slow models by measuring.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::backend::Instance;
use crate::background::Background;
use crate::error::RunError;
use crate::samples::{Recipe, Sample};
use crate::tensor::Signature;

/// More copies of a model than this cost memory and gain little before every core is busy.
const INSTANCES_MAX_BY_DEFAULT: usize = 4;

/// Runs of one row that are shorter are not worth the synchronisation of threads inside them.
const SLOW_RUN_MIN: Duration = Duration::from_millis(1);

/// Runs with which a choice is made are of sizes that take no longer than this.
pub(crate) const RUN_MEASURED_MAX: Duration = Duration::from_millis(60);

/// How long each way is measured, at least two runs.
const MEASURE_TIME: Duration = Duration::from_millis(150);

/// Runs of one row that are timed where they are not timed already.
const RUNS: u32 = 3;

/// One session of all threads is taken though it answers so much less: it answers each request sooner, and takes
/// the memory of one.
const TOLERANCE: f64 = 0.99;

/// Instances of a model and threads inside each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) instances: usize,
    pub(crate) threads: usize,
    pub(crate) why: String,
}

/// What a way to use the cores has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) rows_per_s: f64,
    /// The shortest run of one row.
    pub(crate) run: Duration,
}

/// Divides `cores` among a model's instances where the settings leave that open, with an instance for each of
/// `devices` at least.
///
/// Instances come before threads: two sessions of one thread mostly answer more requests than one session
/// of two threads when requests arrive side by side, and cost no synchronisation inside a run.
pub(crate) fn split(
    cores: usize,
    devices: usize,
    instances: Option<usize>,
    threads: Option<usize>,
    is_parallel: bool,
) -> Layout {
    let source = match (instances, threads) {
        (None, None) => "both derived",
        (Some(_), None) => "threads derived",
        (None, Some(_)) => "instances derived",
        (Some(_), Some(_)) => "both from model.toml",
    };
    // More threads than the runtime uses would only hold cores.
    let threads = threads.or((!is_parallel).then_some(1));
    let (instances, threads) = match (instances, threads) {
        (Some(instances), Some(threads)) => (instances, threads),
        (Some(instances), None) => (instances, (cores / instances).max(1)),
        (None, Some(threads)) => ((cores / threads).clamp(1, INSTANCES_MAX_BY_DEFAULT).max(devices), threads),
        (None, None) => {
            let instances = cores.clamp(1, INSTANCES_MAX_BY_DEFAULT).max(devices);
            (instances, (cores / instances).max(1))
        }
    };
    let granted = format!("{cores} granted core{}", if cores == 1 { "" } else { "s" });
    let why = format!("instances {instances} x threads {threads} on {granted}: {source}");
    Layout { instances, threads, why }
}

/// Whether a model whose run of one row takes `run` may do better with one session of all cores than with
/// `layout`, which must be derived.
pub(crate) fn is_worth_measuring(layout: &Layout, run: Duration) -> bool {
    layout.instances > 1 && run >= SLOW_RUN_MIN
}

/// How long measuring both ways is expected to take, where one row takes `run` and the measured size `size`.
pub(crate) fn measuring_takes(run: Duration, size: Duration) -> Duration {
    RUNS * run + 2 * MEASURE_TIME.max(2 * size)
}

/// Chooses between `layout` and one session with all its threads: by the rows that they answer, or by how soon one
/// is answered where `layout` is too slow for the promise. True for the one session.
pub(crate) fn prefers_one(
    layout: &Layout,
    many: Measured,
    one: Measured,
    slo: Option<Duration>,
) -> (bool, Layout) {
    let threads = layout.instances * layout.threads;
    // A request often finds a run in progress, and then takes two.
    let is_too_slow = slo.is_some_and(|slo| many.run * 2 > slo && one.run < many.run);
    let prefers_one = is_too_slow || one.rows_per_s >= TOLERANCE * many.rows_per_s;
    let (instances, threads) = match prefers_one {
        true => (1, threads),
        false => (layout.instances, layout.threads),
    };
    let shown = |measured: Measured| {
        format!(
            "{:.0} rows a second, {:.2} ms for one",
            measured.rows_per_s,
            measured.run.as_secs_f64() * 1e3
        )
    };
    let why = format!(
        "instances {instances} x threads {threads}, measured: {} x {} gave {}; 1 x {} gave {}{}",
        layout.instances,
        layout.threads,
        shown(many),
        layout.instances * layout.threads,
        shown(one),
        if is_too_slow { ", and the slo needs it" } else { "" }
    );
    (prefers_one, Layout { instances, threads, why })
}

/// Runs `rows` rows at a time in all `instances` at once, for a while. `run` is the shortest run of one row where
/// that is known.
pub(crate) fn measure(
    signature: &Signature,
    recipe: Recipe,
    instances: &mut [Box<dyn Instance>],
    (rows, run): (usize, Option<Duration>),
    in_background: bool,
) -> Result<Measured, RunError> {
    let one = Sample::new(signature, 0..1, recipe);
    let run = run.map_or_else(|| shortest_run(&one, &mut *instances[0]), Ok)?;
    let begin = Barrier::new(instances.len());
    let work = |instance: &mut dyn Instance| {
        let _background = in_background.then(Background::enter);
        let sample = Sample::new(signature, 0..rows, recipe);
        begin.wait();
        let start = Instant::now();
        let mut runs = 0;
        while runs < 2 || start.elapsed() < MEASURE_TIME {
            sample.run(instance)?;
            runs += 1;
        }
        Ok((runs * rows) as f64 / start.elapsed().as_secs_f64())
    };
    let rows_per_s = std::thread::scope(|scope| {
        let works = instances.iter_mut().map(|instance| scope.spawn(|| work(&mut **instance)));
        let works: Vec<_> = works.collect();
        works
            .into_iter()
            .map(|work| {
                work.join().unwrap_or_else(|_| Err(RunError::Failed("the model's run panicked".into())))
            })
            .sum::<Result<f64, RunError>>()
    })?;
    Ok(Measured { rows_per_s, run })
}

fn shortest_run(sample: &Sample, instance: &mut dyn Instance) -> Result<Duration, RunError> {
    let mut shortest = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        sample.run(instance)?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_cores_unless_told() {
        let check = |cores, instances, threads| {
            let layout = split(cores, 1, instances, threads, true);
            (layout.instances, layout.threads)
        };
        assert_eq!(check(1, None, None), (1, 1));
        assert_eq!(check(2, None, None), (2, 1));
        assert_eq!(check(16, None, None), (4, 4));
        assert_eq!(check(6, None, None), (4, 1));
        assert_eq!(check(2, Some(1), None), (1, 2));
        assert_eq!(check(2, Some(8), None), (8, 1));
        assert_eq!(check(8, None, Some(4)), (2, 4));
        assert_eq!(check(2, None, Some(4)), (1, 4));
        assert_eq!(check(2, Some(3), Some(5)), (3, 5));
        let spread = split(2, 8, None, None, true);
        assert_eq!((spread.instances, spread.threads), (8, 1), "one on each of eight GPUs");
        let alone = split(16, 1, Some(2), None, false);
        assert_eq!((alone.instances, alone.threads), (2, 1), "a runtime that uses one thread a run");
        assert!(crate::cores::granted() >= 1);
    }

    #[test]
    fn one_session_is_chosen_where_it_answers_as_much_or_is_quick_enough() {
        let two = split(2, 1, None, None, true);
        let check = |many_rows_per_s, one_rows_per_s, slo_ms: Option<u64>| {
            let measured = |rows_per_s, ms| Measured { rows_per_s, run: Duration::from_millis(ms) };
            let (many, one) = (measured(many_rows_per_s, 9), measured(one_rows_per_s, 5));
            let (is_one, layout) = prefers_one(&two, many, one, slo_ms.map(Duration::from_millis));
            assert_eq!(is_one, layout.instances == 1);
            (layout.instances, layout.threads)
        };
        assert_eq!(check(200.0, 150.0, None), (2, 1));
        assert_eq!(check(200.0, 197.0, None), (2, 1));
        assert_eq!(check(200.0, 199.0, None), (1, 2), "as much, and each sooner");
        assert_eq!(check(200.0, 260.0, None), (1, 2));
        assert_eq!(check(200.0, 150.0, Some(18)), (2, 1), "two runs of 9 ms are in time");
        assert_eq!(check(200.0, 150.0, Some(17)), (1, 2));
    }

    #[test]
    fn quick_models_and_single_sessions_are_not_measured() {
        let us = Duration::from_micros;
        assert!(!is_worth_measuring(&split(2, 1, None, None, true), us(900)));
        assert!(is_worth_measuring(&split(2, 1, None, None, true), us(1100)));
        assert!(!is_worth_measuring(&split(1, 1, None, None, true), us(1100)));
    }
}
