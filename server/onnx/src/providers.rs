//! Execution providers: which there are, and how one is put into a session's options.

use std::collections::BTreeMap;
use std::fmt;

use gristmill_engine::backend::Device;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};

/// An execution provider of ONNX Runtime, with that provider's own options by their own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub kind: ProviderKind,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    Cpu,
    Cuda,
    TensorRt,
    OpenVino,
    Rocm,
    MiGraphX,
}

/// What the instances of a model on `providers` are spread over: the GPUs that `device_id` of the first one with
/// memory of its own lists, such as `0,1`; the CPU without any.
///
/// # Errors
/// The list has something else than numbers in it.
pub(crate) fn devices(providers: &[Provider]) -> Result<Vec<Device>, String> {
    let Some(provider) = providers.iter().find(|provider| provider.kind.has_device_memory()) else {
        return Ok(vec![Device::Socket(0)]);
    };
    let Some(list) = provider.options.get(DEVICE_ID) else { return Ok(vec![Device::Gpu(0)]) };
    let number =
        |number: &str| {
            number.trim().parse().map(Device::Gpu).map_err(|_| {
                format!("option 'device_id' must be a number or a list such as 0,1, got '{list}'")
            })
        };
    list.split(',').map(number).collect()
}

const DEVICE_ID: &str = "device_id";
pub(crate) const USE_ARENA: &str = "use_arena";

// === impl Provider ===

impl Provider {
    pub fn new(kind: ProviderKind) -> Provider {
        Provider { kind, options: BTreeMap::new() }
    }

    /// This provider for one instance of those that are spread over several devices.
    pub(crate) fn on(&self, device: Device) -> Provider {
        let mut provider = self.clone();
        if let Device::Gpu(number) = device
            && let Some(list) = provider.options.get_mut(DEVICE_ID)
            && list.contains(',')
        {
            *list = number.to_string();
        }
        provider
    }

    /// What registers this provider, failing rather than passing over it in silence.
    ///
    /// # Errors
    /// An option that the provider lacks.
    pub(crate) fn dispatch(&self) -> Result<ExecutionProviderDispatch, String> {
        let dispatch = match self.kind {
            ProviderKind::Cpu => self.cpu()?.build(),
            ProviderKind::Cuda => self.configured(ep::CUDA::default())?.build(),
            ProviderKind::TensorRt => self.configured(ep::TensorRT::default())?.build(),
            ProviderKind::OpenVino => self.configured(ep::OpenVINO::default())?.build(),
            ProviderKind::Rocm => self.configured(ep::ROCm::default())?.build(),
            ProviderKind::MiGraphX => self.migraphx()?.build(),
        };
        Ok(dispatch.error_on_failure())
    }

    fn configured<E: ArbitrarilyConfigurableExecutionProvider>(&self, provider: E) -> Result<E, String> {
        self.options.iter().try_fold(provider, |provider, (key, value)| {
            if key.contains('\0') || value.contains('\0') {
                return Err(format!("option {key:?} = {value:?} contains a NUL character"));
            }
            Ok(provider.with_arbitrary_config(key, value))
        })
    }

    fn cpu(&self) -> Result<ep::CPU, String> {
        let mut arena = true;
        for (key, value) in &self.options {
            match key.as_str() {
                USE_ARENA => arena = flag(key, value)?,
                _ => return Err(unknown_option(key, &[USE_ARENA])),
            }
        }
        Ok(ep::CPU::default().with_arena_allocator(arena))
    }

    fn migraphx(&self) -> Result<ep::MIGraphX, String> {
        const KNOWN: [&str; 7] = [
            "device_id",
            "migraphx_fp16_enable",
            "migraphx_fp8_enable",
            "migraphx_int8_enable",
            "migraphx_exhaustive_tune",
            "migraphx_save_model_path",
            "migraphx_load_model_path",
        ];
        let mut provider = ep::MIGraphX::default();
        for (key, value) in &self.options {
            if value.contains('\0') {
                return Err(format!("option {key:?} = {value:?} contains a NUL character"));
            }
            provider = match key.as_str() {
                "device_id" => {
                    let id = value
                        .parse()
                        .map_err(|_| format!("option 'device_id' must be a number, got '{value}'"))?;
                    provider.with_device_id(id)
                }
                "migraphx_fp16_enable" => provider.with_fp16(flag(key, value)?),
                "migraphx_fp8_enable" => provider.with_fp8(flag(key, value)?),
                "migraphx_int8_enable" => provider.with_int8(flag(key, value)?),
                "migraphx_exhaustive_tune" => provider.with_exhaustive_tune(flag(key, value)?),
                "migraphx_save_model_path" => provider.with_save_model(value),
                "migraphx_load_model_path" => provider.with_load_model(value),
                _ => return Err(unknown_option(key, &KNOWN)),
            };
        }
        Ok(provider)
    }
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("option '{key}' must be 1, true, 0 or false, got '{value}'")),
    }
}

fn unknown_option(key: &str, known: &[&str]) -> String {
    format!("it has no option '{key}'; known: {}", known.join(", "))
}

// === impl ProviderKind ===

impl ProviderKind {
    pub const ALL: [ProviderKind; 6] = [
        ProviderKind::Cpu,
        ProviderKind::Cuda,
        ProviderKind::TensorRt,
        ProviderKind::OpenVino,
        ProviderKind::Rocm,
        ProviderKind::MiGraphX,
    ];

    /// The name in configuration, for example `tensorrt`.
    pub fn name(self) -> &'static str {
        match self {
            ProviderKind::Cpu => "cpu",
            ProviderKind::Cuda => "cuda",
            ProviderKind::TensorRt => "tensorrt",
            ProviderKind::OpenVino => "openvino",
            ProviderKind::Rocm => "rocm",
            ProviderKind::MiGraphX => "migraphx",
        }
    }

    /// The provider with that name, compared exactly.
    pub fn parse(name: &str) -> Option<ProviderKind> {
        ProviderKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its memory is not the host's, so that runs go through an I/O binding.
    pub(crate) fn has_device_memory(self) -> bool {
        match self {
            ProviderKind::Cpu | ProviderKind::OpenVino => false,
            ProviderKind::Cuda | ProviderKind::TensorRt | ProviderKind::Rocm | ProviderKind::MiGraphX => true,
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_spread_over_the_devices_that_are_listed() {
        let cuda = |list: &str| {
            let options = BTreeMap::from([(DEVICE_ID.to_owned(), list.to_owned())]);
            Provider { kind: ProviderKind::Cuda, options }
        };
        assert_eq!(devices(&[]), Ok(vec![Device::Socket(0)]));
        assert_eq!(devices(&[Provider::new(ProviderKind::Cpu)]), Ok(vec![Device::Socket(0)]));
        assert_eq!(devices(&[Provider::new(ProviderKind::Cuda)]), Ok(vec![Device::Gpu(0)]));
        assert_eq!(devices(&[cuda("2")]), Ok(vec![Device::Gpu(2)]));
        assert_eq!(devices(&[cuda("0, 3")]), Ok(vec![Device::Gpu(0), Device::Gpu(3)]));
        assert_eq!(cuda("0, 3").on(Device::Gpu(3)), cuda("3"));
        assert_eq!(cuda("2").on(Device::Gpu(0)), cuda("2"), "one that is not spread stays as it is");
        assert_eq!(
            devices(&[cuda("first")]),
            Err("option 'device_id' must be a number or a list such as 0,1, got 'first'".into())
        );
    }
}
