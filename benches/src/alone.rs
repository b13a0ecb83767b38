//! ONNX Runtime without a server: sessions that run in a loop, each on a thread of its own.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context;
use gristmill_engine::backend::{Artifact, InputView, Placement};
use gristmill_engine::tensor::DType;
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Runtime};
use serde::{Deserialize, Serialize};

use crate::model::{Model, fp32};

/// A way to use a number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub sessions: usize,
    /// Inside one run of one session.
    pub threads: usize,
    /// In one run.
    pub rows: usize,
}

/// Rows per second over all sessions, for about `duration`.
///
/// # Errors
/// ONNX Runtime or the model cannot be loaded, or a run fails.
pub fn rows_per_s(library: &Path, model: Model, setting: Setting, duration: Duration) -> anyhow::Result<f64> {
    let runtime = Runtime::find(Some(library))?;
    let options = OnnxOptions { backend: BackendChoice::OnnxRuntime, ..OnnxOptions::default() };
    let artifact =
        Artifact { model: model.name.into(), version: 1, path: model.path(), threads: setting.threads };
    let loaded = OnnxBackend::new(&runtime, options).load(&artifact)?;
    let begin = Barrier::new(setting.sessions);
    let work = || -> anyhow::Result<f64> {
        let mut instance = loaded.instance(Placement { threads: setting.threads, ..Placement::default() })?;
        let x = Aligned::new(&fp32(&model.shape(setting.rows)).into_data());
        let shape = model.shape(setting.rows);
        let view = [Some(InputView { dtype: DType::Fp32, shape: &shape, data: x.data() })];
        instance.run(&view).context("the first run")?;
        begin.wait();
        let start = Instant::now();
        let mut runs = 0;
        while start.elapsed() < duration {
            instance.run(&view)?;
            runs += 1;
        }
        Ok((runs * setting.rows) as f64 / start.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..setting.sessions).map(|_| scope.spawn(work)).collect();
        sessions.into_iter().map(|session| session.join().expect("a run does not panic; this is a bug")).sum()
    })
}

/// Bytes at an address that is a multiple of 64, as workers gather them.
struct Aligned {
    /// A cache line more than the data needs.
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(data: &[u8]) -> Aligned {
        let mut buffer = vec![0; data.len() + 64];
        let start = buffer.as_ptr().align_offset(64);
        buffer[start..start + data.len()].copy_from_slice(data);
        Aligned { buffer, start, length: data.len() }
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }
}
