//! What the server says about itself and its models: metadata, configuration, statistics, health, reflection.

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;
use gristmill_proto::admin::ShowSloRequest;
use gristmill_proto::admin::admin_client::AdminClient;
use gristmill_proto::inference::*;
use tokio_stream::StreamExt;
use tonic::Code;

use super::server::{Server, echo, raw, text};

#[tokio::test(flavor = "multi_thread")]
async fn models_describe_themselves() {
    let server =
        Server::start([("echo", echo()), ("halves", FakeBackend::identity(DType::Fp16, &[4]))]).await;
    let mut client = server.client().await;
    for request in [raw("echo", &[[1.0, 2.0], [3.0, 4.0]]), raw("echo", &[[1.0, 2.0]])] {
        client.model_infer(request).await.unwrap();
    }

    let server_metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    expect![[r#"ServerMetadataResponse { name: "gristmill", version: "0.1.0", extensions: ["binary_tensor_data", "classification", "logging", "model_configuration", "model_repository", "model_repository(unload_dependents)", "parameters", "schedule_policy", "statistics", "trace"] }"#]].assert_eq(&format!("{server_metadata:?}"));

    let name = || "echo".to_owned();
    let metadata = client
        .model_metadata(ModelMetadataRequest { name: name(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    expect![[r#"
        ModelMetadataResponse {
            name: "echo",
            versions: [
                "1",
            ],
            platform: "fake",
            inputs: [
                TensorMetadata {
                    name: "x",
                    datatype: "FP32",
                    shape: [
                        -1,
                        2,
                    ],
                },
            ],
            outputs: [
                TensorMetadata {
                    name: "y",
                    datatype: "FP32",
                    shape: [
                        -1,
                        2,
                    ],
                },
            ],
            properties: {},
        }
    "#]]
    .assert_debug_eq(&metadata);

    let request = ModelConfigRequest { name: "halves".into(), ..Default::default() };
    let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
    expect![[r#"
        (
            [
                ModelInput {
                    name: "x",
                    data_type: TypeFp16,
                    format: None,
                    dims: [
                        4,
                    ],
                    reshape: None,
                    is_shape_tensor: false,
                    allow_ragged_batch: false,
                    optional: false,
                    is_non_linear_format_io: false,
                },
            ],
            [
                ModelOutput {
                    name: "y",
                    data_type: TypeFp16,
                    dims: [
                        4,
                    ],
                    label_filename: "",
                    reshape: None,
                    is_shape_tensor: false,
                    is_non_linear_format_io: false,
                },
            ],
            Some(
                DynamicBatching(
                    ModelDynamicBatching {
                        preferred_batch_size: [],
                        max_queue_delay_microseconds: 0,
                        preserve_ordering: false,
                        priority_levels: 0,
                        default_priority_level: 0,
                        default_queue_policy: None,
                        priority_queue_policy: {},
                    },
                ),
            ),
            8,
        )
    "#]]
    .assert_debug_eq(&(&config.input, &config.output, &config.scheduling_choice, config.max_batch_size));

    let request = ModelStatisticsRequest { name: name(), ..Default::default() };
    let statistics = client.model_statistics(request).await.unwrap().into_inner();
    let [model] = &statistics.model_stats[..] else { panic!("{statistics:?}") };
    assert_eq!((model.inference_count, model.execution_count), (3, 2));
    let success = model.inference_stats.as_ref().unwrap().success.as_ref().unwrap();
    assert_eq!(success.count, 2);
    let batches: Vec<_> = model.batch_stats.iter().map(|batch| batch.batch_size).collect();
    assert_eq!(batches, [1, 2]);
    let all = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.model_stats.len(), 2);

    let request = RepositoryIndexRequest { repository_name: String::new(), ready: true };
    let index = client.repository_index(request).await.unwrap().into_inner();
    expect![[r#"
        RepositoryIndexResponse {
            models: [
                ModelIndex {
                    name: "echo",
                    version: "1",
                    state: "READY",
                    reason: "",
                },
                ModelIndex {
                    name: "halves",
                    version: "1",
                    state: "READY",
                    reason: "",
                },
            ],
        }
    "#]]
    .assert_debug_eq(&index);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness() {
    let server = Server::start([("echo", echo())]).await;
    let mut client = server.client().await;
    let mut model_ready = async |name: &str, version: &str| {
        let request = ModelReadyRequest { name: name.into(), version: version.into() };
        client
            .model_ready(request)
            .await
            .map(|response| response.into_inner().ready)
            .map_err(|status| text(&status))
    };
    assert_eq!(model_ready("echo", "").await, Ok(true));
    assert_eq!(model_ready("echo", "1").await, Ok(true));
    assert_eq!(model_ready("echo", "2").await, Ok(false));
    assert_eq!(model_ready("nobody", "").await, Ok(false));
    assert_eq!(model_ready("echo", "one").await, Ok(false), "no such label");
    let mut client = server.client().await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    server.engine.begin_shutdown();
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.model_infer(raw("echo", &[[1.0, 2.0]])).await.is_ok(), "a lame duck still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_engine() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let server = Server::start([("echo", echo())]).await;
    let mut client = HealthClient::new(server.channel().await);
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "echo", "inference.GRPCInferenceService"] {
        let status = client.check(request(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(client.check(request("nobody")).await.unwrap_err().code(), Code::NotFound);

    let mut whole = client.watch(request("")).await.unwrap().into_inner();
    let mut model = client.watch(request("echo")).await.unwrap().into_inner();
    let mut nobody = client.watch(request("nobody")).await.unwrap().into_inner();
    assert_eq!(whole.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(model.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(nobody.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    server.engine.begin_shutdown();
    assert_eq!(whole.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(model.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.stop.cancel();
    assert!(nobody.message().await.unwrap().is_none(), "watches end with the server");
    server.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latency_model_shows_what_ran() {
    use gristmill_proto::admin::LatencyModelRequest;
    use gristmill_proto::admin::latency_client::LatencyClient;

    let server = Server::start([("echo", echo())]).await;
    let request = raw("echo", &[[1.0, 2.0], [3.0, 4.0]]);
    server.client().await.model_infer(request).await.unwrap();
    let mut client = LatencyClient::new(server.channel().await);
    let request = |model: &str| LatencyModelRequest { model: model.into(), version: "1".into() };
    let model = client.latency_model(request("echo")).await.unwrap().into_inner();
    assert_eq!((model.model.as_str(), model.version, model.platform.as_str()), ("echo", 1, "fake"));
    assert_eq!((model.workers, model.batch_rows_max), (1, 8));
    let sizes = &model.tables[0].sizes;
    let seen: Vec<_> = sizes.iter().map(|size| (size.rows, size.count, size.source.as_str())).collect();
    assert_eq!(seen, [(1, 0, "sweep"), (2, 1, "runs"), (4, 0, "sweep"), (8, 0, "sweep")]);
    assert!(sizes.iter().all(|size| size.high_us >= size.typical_us && size.typical_us > 0.0), "{sizes:?}");
    assert!(model.capacity.unwrap().rows_per_s > 0.0);
    assert_eq!(client.latency_model(request("nobody")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_every_service() {
    let server = Server::start([("echo", echo())]).await;
    let expected = [
        "grpc.health.v1.Health",
        "gristmill.v1.Experiments",
        "gristmill.v1.Feedback",
        "gristmill.v1.Latency",
        "gristmill.v1.Routes",
        "inference.GRPCInferenceService",
    ];
    let listed = {
        use tonic_reflection::pb::v1::ServerReflectionRequest;
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(server.channel().await);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.collect().await;
        match answers.into_iter().next().unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    for service in expected {
        assert!(listed.iter().any(|name| name == service), "{service} is not in {listed:?}");
    }
    let listed = {
        use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
        use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

        let message_request =
            Some(MessageRequest::FileContainingSymbol("inference.ModelInferRequest".into()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(server.channel().await);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.collect().await;
        match answers.into_iter().next().unwrap().unwrap().message_response.unwrap() {
            MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(listed, 1, "older tools speak v1alpha");
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_kept() {
    let server = Server::start([("echo", echo())]).await;
    server.client().await.model_infer(raw("echo", &[[1.0, 2.0]])).await.unwrap();
    let admin = AdminClient::new(server.channel().await);
    let slo = |model: &str| {
        let request = ShowSloRequest { model: model.into() };
        let mut admin = admin.clone();
        async move { admin.show_slo(request).await.map(tonic::Response::into_inner) }
    };
    let shown = slo("echo").await.unwrap();
    assert_eq!((shown.model.as_str(), shown.objective), ("echo", 0.999));
    let windows: Vec<_> = shown
        .windows
        .iter()
        .map(|window| (window.window.as_str(), window.seconds, window.good, window.bad, window.attainment))
        .collect();
    assert_eq!(windows, [("5m", 300, 1, 0, 1.0), ("1h", 3600, 1, 0, 1.0), ("24h", 86400, 1, 0, 1.0)]);
    let status = slo("nothing").await.unwrap_err();
    expect!["NotFound: model 'nothing' is not in the repository: its index lists what is"]
        .assert_eq(&text(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn timing_is_told_to_those_who_ask() {
    let server = Server::start([("echo", echo())]).await;
    let ask = async |asked: Option<&str>, model: &str| {
        let mut request = tonic::Request::new(raw(model, &[[1.0, 2.0], [3.0, 4.0]]));
        if let Some(asked) = asked {
            request.metadata_mut().insert("x-gristmill-timing", asked.parse().unwrap());
        }
        let metadata = match server.client().await.model_infer(request).await {
            Ok(response) => response.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        let text = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap().to_owned());
        (text("server-timing"), text("x-gristmill-batch-rows"))
    };
    let (timing, rows) = ask(Some("1"), "echo").await;
    let timing = timing.unwrap();
    let parts: Vec<_> = timing.split(", ").map(|part| part.split_once(";dur=").unwrap()).collect();
    assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["queue", "run", "total"]);
    assert!(parts.iter().all(|part| part.1.parse::<f64>().is_ok()), "{timing}");
    assert_eq!(rows.as_deref(), Some("2"));
    assert_eq!(ask(None, "echo").await, (None, None));
    assert_eq!(ask(Some("0"), "echo").await, (None, None));
    assert_eq!(ask(Some("1"), "nothing").await, (None, None), "nothing was run");
}
