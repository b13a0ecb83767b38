//! Triton's trace and log settings, as gRPC has them.

use gristmill_engine::error::InferError;
use gristmill_proto::inference as pb;
use gristmill_proto::inference::log_settings_request::setting_value::ParameterChoice as Said;
use gristmill_proto::inference::log_settings_response::SettingValue;
use gristmill_proto::inference::log_settings_response::setting_value::ParameterChoice;

use crate::gateway::Gateway;
use crate::log_settings::LogValue;
use crate::traces;

/// Changes which requests are traced, and says how it is then.
pub(super) fn trace(
    gateway: &Gateway,
    request: pb::TraceSettingRequest,
) -> Result<pb::TraceSettingResponse, InferError> {
    let changes: Vec<_> = request.settings.into_iter().map(|(name, setting)| (name, setting.value)).collect();
    let settings = traces::settings(gateway.engine(), gateway.traces(), &request.model_name, &changes)?;
    let value = |(name, value)| (name, pb::trace_setting_response::SettingValue { value });
    Ok(pb::TraceSettingResponse { settings: settings.into_iter().map(value).collect() })
}

/// Changes what is logged, and says how it is then.
pub(super) fn log(
    gateway: &Gateway,
    request: pb::LogSettingsRequest,
) -> Result<pb::LogSettingsResponse, InferError> {
    let log = gateway.log()?;
    let mut changes = Vec::with_capacity(request.settings.len());
    for (name, setting) in request.settings {
        let value = match setting.parameter_choice {
            Some(Said::BoolParam(value)) => LogValue::Switch(value),
            Some(Said::Uint32Param(value)) => LogValue::Number(value),
            Some(Said::StringParam(value)) => LogValue::Text(value),
            None => return Err(InferError::InvalidInput(format!("log setting '{name}' has no value"))),
        };
        changes.push((name, value));
    }
    log.update(changes)?;
    let value = |(name, value): (&str, LogValue)| {
        let choice = match value {
            LogValue::Switch(value) => ParameterChoice::BoolParam(value),
            LogValue::Number(value) => ParameterChoice::Uint32Param(value),
            LogValue::Text(value) => ParameterChoice::StringParam(value),
        };
        (name.to_owned(), SettingValue { parameter_choice: Some(choice) })
    };
    Ok(pb::LogSettingsResponse { settings: log.settings().into_iter().map(value).collect() })
}
