//! Where a model runs and how many copies of it: `instance_group`, and with `execution_accelerators` the
//! order of the execution providers.

use gristmill_onnx::{Provider, ProviderKind};
use gristmill_proto::inference as pb;
use pb::model_instance_group::Kind;

use super::accelerators::{self, Accelerators};
use super::document::Fault;
use super::note;

/// Most instances that a configuration may ask for, as in model.toml.
const INSTANCES_MAX: usize = 1024;

/// What the instance groups come to.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// `None` where no group says a count.
    pub(super) instances: Option<usize>,
    device: Device,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Device {
    /// No group says where.
    #[default]
    Any,
    Cpu,
    /// On a GPU and nowhere else, by its number where one is given.
    Gpu(Option<i32>),
    /// On that GPU, or on the CPU where there is none.
    GpuOrCpu(i32),
}

/// Checks the instance groups.
pub(super) fn placement(
    groups: &[pb::ModelInstanceGroup],
    notes: &mut Vec<String>,
) -> Result<Placement, Fault> {
    let mut used: Vec<(String, Device, &pb::ModelInstanceGroup)> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let field = format!("instance_group[{index}]");
        let device = device(&field, group, notes)?;
        if group.passive {
            note(notes, format!("{field}.passive"), "its instances would get no requests and are not made");
        } else {
            used.push((field, device, group));
        }
    }
    let on_gpu = |device: Device| !matches!(device, Device::Any | Device::Cpu);
    let device = used.iter().map(|(_, device, _)| *device).find(|device| on_gpu(*device)).or_else(|| {
        let mut devices = used.iter().map(|(_, device, _)| *device);
        devices.find(|device| *device == Device::Cpu)
    });
    let device = device.unwrap_or_default();

    let mut counts = Vec::new();
    for (field, own, group) in &used {
        if *own == Device::Cpu && on_gpu(device) {
            note(notes, field, "all instances of a model run on one device, here the GPU of another group");
            continue;
        }
        if on_gpu(*own) && *own != device {
            let instead = "all instances of a model run on one device, that of the first group with a GPU";
            note(notes, format!("{field}.gpus"), instead);
        } else if group.gpus.len() > 1 {
            let instead = format!("all instances of a model run on one device, here GPU {}", group.gpus[0]);
            note(notes, format!("{field}.gpus"), instead);
        }
        counts.push(count(field, group.count)?);
    }
    let instances = match counts.iter().any(Option::is_some) {
        true => Some(counts.iter().map(|count| count.unwrap_or(1)).sum()),
        false => None,
    };
    if instances.is_some_and(|instances| instances > INSTANCES_MAX) {
        let reason = format!("expected at most {INSTANCES_MAX} instances in all groups together");
        return Err(Fault::new("instance_group", reason));
    }
    Ok(Placement { instances, device })
}

/// Where a group's instances run; notes what else it says.
fn device(field: &str, group: &pb::ModelInstanceGroup, notes: &mut Vec<String>) -> Result<Device, Fault> {
    let pb::ModelInstanceGroup {
        // It names the group in Triton's logs and nothing else.
        name: _,
        count: _,
        gpus,
        kind,
        profile,
        rate_limiter,
        passive: _,
        secondary_devices,
        host_policy,
    } = group;
    if !profile.is_empty() {
        let reason =
            "only TensorRT's own models have profiles, and ONNX models are served here; leave it out";
        return Err(Fault::new(format!("{field}.profile"), reason));
    }
    if rate_limiter.as_ref().is_some_and(|limiter| *limiter != pb::ModelRateLimiter::default()) {
        note(notes, format!("{field}.rate_limiter"), "each instance runs when it is free");
    }
    if !secondary_devices.is_empty() {
        note(notes, format!("{field}.secondary_devices"), "set NVDLA by TensorRT's trt_dla_core");
    }
    if !host_policy.is_empty() {
        note(notes, format!("{field}.host_policy"), "the server shares its cores among the instances");
    }
    let gpu = gpus.first().copied();
    if let Some(gpu) = gpus.iter().find(|gpu| **gpu < 0) {
        return Err(Fault::new(
            format!("{field}.gpus"),
            format!("expected a GPU's number from 0, got {gpu}"),
        ));
    }
    let kind = Kind::try_from(*kind).unwrap_or(Kind::Auto);
    match (kind, gpu) {
        (Kind::Gpu, Some(gpu)) => Ok(Device::Gpu(Some(gpu))),
        (Kind::Gpu, None) => {
            notes
                .push(format!("{field}.kind: all instances run on the first GPU; Triton makes some on each"));
            Ok(Device::Gpu(None))
        }
        (Kind::Auto, Some(gpu)) => Ok(Device::GpuOrCpu(gpu)),
        (Kind::Cpu | Kind::Model, Some(_)) => {
            let reason = format!("cannot be given with {}; leave out one of them", kind.as_str_name());
            Err(Fault::new(format!("{field}.gpus"), reason))
        }
        (Kind::Cpu, None) => Ok(Device::Cpu),
        (Kind::Auto, None) => Ok(Device::Any),
        (Kind::Model, None) => {
            note(
                notes,
                format!("{field}.kind"),
                "KIND_MODEL is taken as KIND_AUTO: ONNX files name no device",
            );
            Ok(Device::Any)
        }
    }
}

fn count(field: &str, count: i32) -> Result<Option<usize>, Fault> {
    match usize::try_from(count) {
        Ok(0) => Ok(None),
        Ok(count) if count <= INSTANCES_MAX => Ok(Some(count)),
        _ => {
            let reason = format!("expected 1 to {INSTANCES_MAX}, got {count}");
            Err(Fault::new(format!("{field}.count"), reason))
        }
    }
}

// === impl Placement ===

impl Placement {
    /// The execution providers in their order, or `None` where the configuration leaves them to the
    /// server. Without `cpu` at their end the model must not run on the CPU alone.
    pub(super) fn providers(
        &self,
        accelerators: Accelerators,
        notes: &mut Vec<String>,
    ) -> Option<Vec<Provider>> {
        let Accelerators { gpu, cpu } = accelerators;
        let (number, strict) = match self.device {
            Device::Any => (None, gpu.is_empty()),
            Device::Gpu(number) => (number, true),
            Device::GpuOrCpu(number) => (Some(number), false),
            Device::Cpu => {
                for provider in &gpu {
                    let field = format!("{}[{}]", accelerators::GPU_FIELD, provider.kind);
                    note(notes, field, "instance_group places the model on the CPU");
                }
                let providers = if cpu.is_empty() { vec![Provider::new(ProviderKind::Cpu)] } else { cpu };
                return Some(providers);
            }
        };
        let mut providers = gpu;
        let wants_gpu = self.device != Device::Any || !providers.is_empty();
        // Triton gives every model on a GPU the CUDA provider, for what TensorRT leaves.
        if wants_gpu && providers.iter().all(|provider| provider.kind != ProviderKind::Cuda) {
            providers.push(Provider::new(ProviderKind::Cuda));
        }
        if let Some(number) = number {
            for provider in &mut providers {
                provider.options.insert("device_id".to_owned(), number.to_string());
            }
        }
        providers.extend(cpu);
        if !strict {
            providers.push(Provider::new(ProviderKind::Cpu));
        }
        (!providers.is_empty()).then_some(providers)
    }
}
