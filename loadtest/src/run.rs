//! Runs one load: proves the requests, starts a sender per thread, and puts their measurements together.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::body::Payload;
use crate::drive::{Drive, Extent, Shared, Terms};
use crate::error::{Error, Result};
use crate::grpc::GrpcSender;
use crate::http1::HttpSender;
use crate::model::{Inputs, Metadata};
use crate::pace::Pacer;
use crate::progress::Progress;
use crate::record::{Outcome, Recorder};
use crate::schedule::Schedule;
use crate::settings::{ExtentSettings, Load, ModelSettings, Settings, share};
use crate::transmit::{ModelName, Transmit, Workload};
use crate::usage::{Meter, Usage};

/// Different payloads made per model, so that requests do not all carry the same rows.
const PAYLOADS: usize = 32;
/// All payloads of a model together stay under this.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// How often the main thread looks up while the senders work.
const TICK: Duration = Duration::from_millis(100);

/// What a load measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// In the order of the settings' models.
    pub(crate) models: Vec<Recorder>,
    pub(crate) usage: Usage,
    pub(crate) interrupted: bool,
}

/// The proven requests to one model.
#[derive(Clone)]
struct Proven {
    model: ModelName,
    weight: f64,
    payloads: Vec<Payload>,
}

/// Runs the load of `settings` to its end, or until `shared.stopped` is set.
pub(crate) fn run(settings: &Settings, shared: &Arc<Shared>, progress: &mut Progress) -> Result<Measured> {
    settings.check()?;
    let address = settings.address.as_str();
    let body = settings.body;
    if body.is_grpc() {
        run_with(settings, shared, progress, async |connections| {
            GrpcSender::connect(address, connections).await
        })
    } else {
        run_with(settings, shared, progress, async |connections| {
            HttpSender::connect(address, connections, body).await
        })
    }
}

fn run_with<T: Transmit>(
    settings: &Settings,
    shared: &Arc<Shared>,
    progress: &mut Progress,
    connect: impl AsyncFn(usize) -> Result<T> + Sync,
) -> Result<Measured> {
    let proven = runtime()?.block_on(prove(settings, &connect))?;
    let warmup = settings.warmup();
    let extent = match settings.extent {
        ExtentSettings::DurationS(seconds) => Extent::Until(warmup + Duration::from_secs_f64(seconds)),
        ExtentSettings::Requests(requests) => Extent::Requests(requests),
    };
    let window = extent.window(warmup);
    let start = OnceLock::new();
    let connected = Barrier::new(settings.threads);
    let (results, finished) = sync_channel(settings.threads);
    std::thread::scope(|scope| {
        for index in 0..settings.threads {
            let (results, proven, start, connected) = (results.clone(), &proven, &start, &connected);
            let connect = &connect;
            let mut terms = Terms {
                start: Instant::now(),
                window,
                extent,
                slo: settings.slo(),
                keeps_sent: settings.keeps_sent,
                shared: shared.clone(),
            };
            if let Extent::Requests(requests) = extent {
                terms.extent = Extent::Requests(share(requests, index, settings.threads));
            }
            scope.spawn(move || {
                let connections = share(settings.connections as u64, index, settings.threads).max(1);
                let result = runtime().and_then(|runtime| {
                    runtime.block_on(async {
                        let sender = connect(connections as usize).await;
                        // Every thread comes here, connected or not, so none waits for ever.
                        connected.wait();
                        terms.start = *start.get_or_init(Instant::now);
                        send(settings, index, sender?, proven, terms).await
                    })
                });
                report(&results, result);
            });
        }
        drop(results);
        collect(settings, extent, shared, progress, &finished)
    })
}

/// A runtime on the thread that calls `block_on`.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Settings(format!("cannot start the runtime: {error}")))
}

fn report(results: &SyncSender<Result<Vec<Recorder>>>, result: Result<Vec<Recorder>>) {
    results.send(result).expect("the main thread receives until every sender has reported; this is a bug");
}

/// Reads each model's metadata, encodes its requests, and has the server answer one of them.
async fn prove<T: Transmit>(
    settings: &Settings,
    connect: &impl AsyncFn(usize) -> Result<T>,
) -> Result<Vec<Proven>> {
    let sender = connect(1).await?;
    let mut rng = SmallRng::seed_from_u64(settings.seed);
    let mut proven = Vec::new();
    for model in &settings.models {
        let name = ModelName { name: model.name.clone(), version: model.version.clone() };
        let metadata = sender.metadata(&name).await?;
        let payloads = payloads(settings, model, &metadata, &mut rng)?;
        let head = sender.head(&name, settings.timeout())?;
        let answer = sender.transmit(&head, &payloads[0]).await;
        // A busy server may be just what the load is for; a request that is at fault is not.
        if !matches!(answer.outcome, Outcome::Ok | Outcome::Overloaded | Outcome::Deadline) {
            let why = answer.message.unwrap_or_default();
            return Err(Error::Probe { model: model.name.clone(), why });
        }
        proven.push(Proven { model: name, weight: model.weight, payloads });
    }
    Ok(proven)
}

fn payloads(
    settings: &Settings,
    model: &ModelSettings,
    metadata: &Metadata,
    rng: &mut SmallRng,
) -> Result<Vec<Payload>> {
    let encode = |inputs: &Inputs| {
        settings.body.encode(&model.name, &model.version, inputs).map_err(|why| Error::Input {
            model: model.name.clone(),
            input: "any".to_owned(),
            why,
        })
    };
    let given = model.input.as_deref().map(|path| metadata.given_inputs(path)).transpose()?;
    let mut payloads: Vec<Payload> = Vec::new();
    for index in 0..PAYLOADS {
        let inputs = match (&given, model.rows) {
            (Some(given), None) => given.clone(),
            (Some(given), Some(rows)) if metadata.is_batched() => given.rows(index * rows, rows),
            (Some(given), Some(_)) => given.clone(),
            (None, rows) => metadata.random_inputs(rows.unwrap_or(1), &model.dimensions, rng)?,
        };
        let payload = encode(&inputs)?;
        if (index + 1) * payload.body.len() > PAYLOAD_BYTES_MAX && index > 0 {
            break;
        }
        payloads.push(payload);
    }
    Ok(payloads)
}

async fn send<T: Transmit>(
    settings: &Settings,
    index: usize,
    sender: T,
    proven: &[Proven],
    terms: Terms,
) -> Result<Vec<Recorder>> {
    let workloads = proven.iter().map(|proven| {
        Ok(Workload {
            weight: proven.weight,
            head: sender.head(&proven.model, settings.timeout())?,
            payloads: proven.payloads.clone(),
        })
    });
    let workloads = workloads.collect::<Result<_>>()?;
    let seed = settings.seed.wrapping_add(index as u64);
    let drive = Arc::new(Drive::new(sender, workloads, terms, seed));
    match settings.load {
        Load::Closed { in_flight } => {
            drive.closed(share(in_flight as u64, index, settings.threads) as usize).await;
        }
        Load::Open { rate_per_s, arrivals, in_flight_max } => {
            let schedule = Schedule::new(arrivals, rate_per_s, index, settings.threads, settings.seed);
            let in_flight_max = share(in_flight_max.into(), index, settings.threads).max(1) as u32;
            let error = |error| Error::Settings(format!("cannot wait with the system's timer: {error}"));
            let pacer = Pacer::fine().map_err(error)?;
            drive.open(schedule, &pacer, in_flight_max).await.map_err(error)?;
        }
    }
    Ok(drive.take_recorders())
}

/// Waits for the senders, drawing progress, and reads the CPU times around the measured part.
fn collect(
    settings: &Settings,
    extent: Extent,
    shared: &Shared,
    progress: &mut Progress,
    finished: &Receiver<Result<Vec<Recorder>>>,
) -> Result<Measured> {
    let start = Instant::now();
    let warmup = settings.warmup();
    let mut models: Vec<Recorder> = Vec::new();
    let mut reported = 0;
    let mut failure = None;
    let mut meter = None;
    let mut usage = None;
    let mut cut = None;
    while reported < settings.threads {
        let elapsed = start.elapsed();
        if elapsed >= warmup && meter.is_none() {
            meter = Some(Meter::start(settings.server_pid));
        }
        if usage.is_none() && matches!(extent, Extent::Until(end) if elapsed >= end) {
            usage = meter.as_ref().map(Meter::read);
        }
        if cut.is_none() && shared.stopped.load(Ordering::Relaxed) {
            cut = Some(elapsed);
        }
        progress.show(elapsed, shared);
        match finished.recv_timeout(next_look(elapsed, warmup, extent)) {
            Ok(Ok(recorders)) => {
                reported += 1;
                match models.is_empty() {
                    true => models = recorders,
                    false => models.iter_mut().zip(&recorders).for_each(|(sum, part)| sum.merge(part)),
                }
            }
            Ok(Err(error)) => {
                reported += 1;
                shared.stopped.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let why = "a sender ended without a result: see its message above".to_owned();
                return Err(failure.unwrap_or(Error::Settings(why)));
            }
        }
    }
    progress.clear();
    if let Some(error) = failure {
        return Err(error);
    }
    if cut.is_none() && shared.stopped.load(Ordering::Relaxed) {
        cut = Some(start.elapsed());
    }
    if let Some(end) = cut {
        models.iter_mut().for_each(|recorder| recorder.cut(end));
    }
    let usage = usage.or_else(|| meter.as_ref().map(Meter::read)).unwrap_or_default();
    Ok(Measured { models, usage, interrupted: cut.is_some() })
}

/// Up to the next tick, but not past the start or the end of the measured part.
fn next_look(elapsed: Duration, warmup: Duration, extent: Extent) -> Duration {
    let end = match extent {
        Extent::Until(end) => end,
        Extent::Requests(_) => Duration::MAX,
    };
    [warmup, end].iter().filter_map(|moment| moment.checked_sub(elapsed)).fold(TICK, Duration::min)
}
