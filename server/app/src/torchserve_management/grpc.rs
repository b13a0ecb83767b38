//! The gRPC dialect: `ManagementAPIsService`. Numbers that are 0 count as left out.

use gristmill_proto::torchserve::management as pb;
use gristmill_proto::torchserve::management::management_ap_is_service_server::ManagementApIsService;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::fault::Fault;
use super::{Management, Registration, Scale};

type Answer = Result<Response<pb::ManagementResponse>, Status>;

fn answer(result: Result<String, Fault>) -> Answer {
    let msg = result.map_err(|fault| fault.status())?;
    Ok(Response::new(pb::ManagementResponse { msg }))
}

fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON values serialise; this is a bug")
}

fn said(number: i32) -> Option<i32> {
    Some(number).filter(|&number| number != 0)
}

/// Negative numbers are TorchServe's word for its own defaults.
fn counted(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number != 0)
}

#[tonic::async_trait]
impl ManagementApIsService for Management {
    async fn describe_model(&self, request: Request<pb::DescribeModelRequest>) -> Answer {
        let request = request.into_inner();
        answer(self.describe(&request.model_name, &request.model_version).await.map(|value| text(&value)))
    }

    async fn list_models(&self, request: Request<pb::ListModelsRequest>) -> Answer {
        let pb::ListModelsRequest { limit, next_page_token } = request.into_inner();
        answer(Ok(text(&self.list(said(limit).map(i64::from), Some(next_page_token.into())))))
    }

    async fn register_model(&self, request: Request<pb::RegisterModelRequest>) -> Answer {
        let request = request.into_inner();
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let registration = Registration {
            url: given(request.url),
            model_name: given(request.model_name),
            batch_size: counted(request.batch_size),
            max_batch_delay_ms: counted(request.max_batch_delay),
            initial_workers: counted(request.initial_workers),
        };
        answer(self.register(registration).await)
    }

    async fn scale_worker(&self, request: Request<pb::ScaleWorkerRequest>) -> Answer {
        let request = request.into_inner();
        let scale = Scale {
            min_worker: said(request.min_worker).map(i64::from),
            max_worker: said(request.max_worker).map(i64::from),
        };
        answer(self.scale(&request.model_name, &request.model_version, scale).await)
    }

    async fn set_default(&self, request: Request<pb::SetDefaultRequest>) -> Answer {
        let pb::SetDefaultRequest { model_name, model_version } = request.into_inner();
        answer(Management::set_default(self, &model_name, &model_version).await)
    }

    async fn unregister_model(&self, request: Request<pb::UnregisterModelRequest>) -> Answer {
        let pb::UnregisterModelRequest { model_name, model_version } = request.into_inner();
        answer(self.unregister(&model_name, &model_version).await)
    }
}
