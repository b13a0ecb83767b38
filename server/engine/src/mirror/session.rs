//! A session of a version beside those that serve: one thread, one request at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TensorMismatch;
use crate::backend::{InputView, Instance, Placement, Stopper};
use crate::comparison::{Tolerance, compare};
use crate::deployment::Deployment;
use crate::error::panic_text;
use crate::gather::Gather;
use crate::request::{NamedTensor, Outputs, Query, Request};
use crate::tensor::{Signature, Tensor};
use crate::worker::check_outputs;

pub(super) struct Session {
    deployment: Arc<Deployment>,
    /// Or why there is none.
    instance: Result<Box<dyn Instance>, String>,
    gather: Gather,
    has_panicked: bool,
}

/// What a run gave.
pub(super) struct Ran {
    /// In the order of the signature.
    pub(super) outputs: Vec<Tensor>,
    pub(super) took: Duration,
}

// === impl Session ===

impl Session {
    pub(super) fn new(deployment: Arc<Deployment>) -> Session {
        let instance = make(&deployment);
        if let Err(why) = &instance {
            let info = &deployment.info;
            tracing::warn!(model = info.name, version = info.version, why, "a mirror has no session");
        }
        Session { deployment, instance, gather: Gather::default(), has_panicked: false }
    }

    pub(super) fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    pub(super) fn stopper(&self) -> Stopper {
        match &self.instance {
            Ok(instance) => instance.stopper(),
            Err(_) => Stopper::cannot("there is no session"),
        }
    }

    /// A run has panicked, and nobody knows in which state the instance is.
    pub(super) fn is_broken(&self) -> bool {
        self.has_panicked
    }

    /// Makes another instance.
    pub(super) fn renew(&mut self) -> Stopper {
        self.has_panicked = false;
        self.instance = make(&self.deployment);
        self.stopper()
    }

    /// Runs a request by itself, in parts where it has more rows than the version's largest batch.
    pub(super) fn run(&mut self, inputs: &[NamedTensor]) -> Result<Ran, String> {
        let Session { deployment, instance, gather, has_panicked } = self;
        let instance = instance.as_mut().map_err(|why| why.clone())?;
        let info = &deployment.info;
        let query = Query { inputs: inputs.to_vec(), ..Query::default() };
        let request = Request::new(&info.signature, query).map_err(|error| error.to_string())?;
        let parts = match deployment.runs_whole(request.rows()) {
            true => vec![request],
            false => request.split(info.batch_rows_max),
        };
        let began = Instant::now();
        let mut ran = Vec::with_capacity(parts.len());
        for part in &parts {
            let run = || run_part(part, &info.signature, gather, &mut **instance);
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(outputs) => ran.push(outputs?),
                Err(panic) => {
                    *has_panicked = true;
                    return Err(format!("the run panicked: {}", panic_text(&*panic)));
                }
            }
        }
        let took = began.elapsed();
        let outputs = match ran.len() {
            1 => ran.swap_remove(0),
            _ => (0..info.signature.outputs.len())
                .map(|index| {
                    let parts: Vec<Tensor> = ran.iter().map(|part| part[index].clone()).collect();
                    Tensor::stack_rows(&parts).map_err(|why| why.to_string())
                })
                .collect::<Result<_, String>>()?,
        };
        Ok(Ran { outputs, took })
    }
}

fn make(deployment: &Deployment) -> Result<Box<dyn Instance>, String> {
    // Threads that a runtime starts would not be in the background.
    let placement = Placement { device: deployment.origin.device(), threads: 1 };
    deployment.origin.model.instance(placement).map_err(|error| format!("no session can be made: {error}"))
}

fn run_part(
    part: &Request,
    signature: &Signature,
    gather: &mut Gather,
    instance: &mut dyn Instance,
) -> Result<Vec<Tensor>, String> {
    let rows = part.stackable_rows(signature);
    gather.fill(std::iter::once(part.inputs()), rows);
    let views: Vec<Option<InputView<'_>>> = gather.views(part.inputs()).collect();
    let outputs = instance.run(&views).map_err(|error| error.to_string())?;
    check_outputs(signature, &outputs, rows.filter(|_| !part.is_whole()))
        .map_err(|error| error.to_string())?;
    gather.shrink();
    Ok(outputs)
}

/// Compares the outputs that both have, by name.
pub(super) fn compare_outputs(
    primary: &Signature,
    expected: &Outputs,
    shadow: &Signature,
    got: &[Tensor],
    tolerance: Tolerance,
) -> Vec<TensorMismatch> {
    let compared = expected.iter().filter_map(|(index, expected)| {
        let name = &primary.outputs[*index].name;
        let place = shadow.outputs.iter().position(|spec| spec.name == *name)?;
        Some(TensorMismatch { name: name.clone(), difference: compare(expected, &got[place], tolerance) })
    });
    compared.collect()
}
