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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Device {
    /// No group says where.
    #[default]
    Any,
    Cpu,
    /// Spread over GPUs and nowhere else, by their numbers where any are given.
    Gpus(Vec<i32>),
    /// Spread over those GPUs, or on the CPU where there are none.
    GpusOrCpu(Vec<i32>),
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
    let numbers = |device: &Device| match device {
        Device::Any | Device::Cpu => None,
        Device::Gpus(numbers) | Device::GpusOrCpu(numbers) => Some(numbers.clone()),
    };
    let mut all: Vec<i32> = Vec::new();
    for number in used.iter().filter_map(|(_, device, _)| numbers(device)).flatten() {
        if !all.contains(&number) {
            all.push(number);
        }
    }
    let first_on_gpu = used.iter().map(|(_, device, _)| device).find(|device| numbers(device).is_some());
    let device = match first_on_gpu {
        Some(Device::GpusOrCpu(_)) => Device::GpusOrCpu(all),
        Some(_) => Device::Gpus(all),
        None if used.iter().any(|(_, device, _)| *device == Device::Cpu) => Device::Cpu,
        None => Device::Any,
    };

    let (mut instances, mut is_given) = (0, false);
    let mut on_each_gpu = Vec::new();
    for (field, own, group) in &used {
        if *own == Device::Cpu && first_on_gpu.is_some() {
            let instead = "a model runs on GPUs or on the CPU, and another group has it on GPUs";
            note(notes, field, instead);
            continue;
        }
        let given = count(field, group.count)?;
        is_given |= given.is_some();
        // Triton makes so many on each GPU of a group.
        let each = given.unwrap_or(1);
        let gpus = numbers(own);
        instances += each * gpus.as_ref().map_or(1, |gpus| gpus.len().max(1));
        on_each_gpu.extend(gpus.map(|_| each));
    }
    if on_each_gpu.iter().any(|each| *each != on_each_gpu[0]) {
        notes.push("instance_group: the instances are spread evenly over the GPUs of all groups".to_owned());
    }
    let instances = is_given.then_some(instances);
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
    if let Some(gpu) = gpus.iter().find(|gpu| **gpu < 0) {
        return Err(Fault::new(
            format!("{field}.gpus"),
            format!("expected a GPU's number from 0, got {gpu}"),
        ));
    }
    let kind = Kind::try_from(*kind).unwrap_or(Kind::Auto);
    match (kind, gpus.is_empty()) {
        (Kind::Gpu, false) => Ok(Device::Gpus(gpus.clone())),
        (Kind::Gpu, true) => {
            notes.push(format!(
                "{field}.kind: all instances run on the first GPU, where Triton makes some on each; list them in gpus"
            ));
            Ok(Device::Gpus(Vec::new()))
        }
        (Kind::Auto, false) => Ok(Device::GpusOrCpu(gpus.clone())),
        (Kind::Cpu | Kind::Model, false) => {
            let reason = format!("cannot be given with {}; leave out one of them", kind.as_str_name());
            Err(Fault::new(format!("{field}.gpus"), reason))
        }
        (Kind::Cpu, true) => Ok(Device::Cpu),
        (Kind::Auto, true) => Ok(Device::Any),
        (Kind::Model, true) => {
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
        let (numbers, strict) = match &self.device {
            Device::Any => (&[][..], gpu.is_empty()),
            Device::Gpus(numbers) => (&numbers[..], true),
            Device::GpusOrCpu(numbers) => (&numbers[..], false),
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
        if !numbers.is_empty() {
            let list: Vec<String> = numbers.iter().map(i32::to_string).collect();
            for provider in &mut providers {
                provider.options.insert("device_id".to_owned(), list.join(","));
            }
        }
        providers.extend(cpu);
        if !strict {
            providers.push(Provider::new(ProviderKind::Cpu));
        }
        (!providers.is_empty()).then_some(providers)
    }
}
