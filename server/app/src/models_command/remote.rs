//! The commands that ask a running server, and how their answers are printed.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use gristmill_proto::admin as pb;
use gristmill_proto::admin::admin_client::AdminClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::admin::to_json;

/// Which server is asked, and how its answer is shown.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// gRPC address of the server.
    #[arg(long, env = "GRISTMILL_SERVER", default_value = "127.0.0.1:8001", value_name = "ADDRESS")]
    pub server: String,
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Name of the model.
    #[arg(value_name = "MODEL")]
    pub model: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RollBackArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Why, for the model's history.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,
}

#[derive(Clone, Debug, Args)]
pub struct LabelArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The label, for example stable.
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// The version that it is to point at; 0 takes the label away.
    #[arg(value_name = "VERSION")]
    pub version: u64,
}

/// What is asked.
pub(super) enum Order<'a> {
    List(&'a ServerArgs),
    Show(&'a ModelArgs),
    Load(&'a ModelArgs),
    Unload(&'a ModelArgs),
    RollBack(&'a RollBackArgs),
    Label(&'a LabelArgs),
}

/// Asks and prints. What the server refuses is told on standard error, with exit code 1.
///
/// # Errors
/// The server cannot be reached, or the answer cannot be written.
pub(super) fn run(order: &Order<'_>) -> anyhow::Result<ExitCode> {
    let server = match order {
        Order::List(server) => server,
        Order::Show(args) | Order::Load(args) | Order::Unload(args) => &args.server,
        Order::RollBack(args) => &args.model.server,
        Order::Label(args) => &args.model.server,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let address = &server.server;
        let client = AdminClient::connect(format!("http://{address}"))
            .await
            .with_context(|| format!("cannot reach a server at {address}: --server is its gRPC address"))?;
        anyhow::Ok(ask(client, order).await)
    })?;
    let text = match answer {
        Ok(models) if server.json => json(order, &models),
        Ok(models) => table(order, models),
        Err(status) => {
            eprintln!("gristmill: {}", status.message());
            return Ok(ExitCode::FAILURE);
        }
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(mut client: AdminClient<Channel>, order: &Order<'_>) -> Result<Vec<pb::Model>, Status> {
    let one = |model: Response<pb::Model>| vec![model.into_inner()];
    match order {
        Order::List(_) => {
            client.list_models(pb::ListModelsRequest {}).await.map(|answer| answer.into_inner().models)
        }
        Order::Show(args) => {
            client.show_model(pb::ShowModelRequest { model: args.model.clone() }).await.map(one)
        }
        Order::Load(args) => {
            client.load_model(pb::LoadModelRequest { model: args.model.clone() }).await.map(one)
        }
        Order::Unload(args) => {
            client.unload_model(pb::UnloadModelRequest { model: args.model.clone() }).await.map(one)
        }
        Order::RollBack(args) => {
            let (model, reason) = (args.model.model.clone(), args.reason.clone());
            client.roll_back_model(pb::RollBackModelRequest { model, reason }).await.map(one)
        }
        Order::Label(args) => {
            let (model, label) = (args.model.model.clone(), args.label.clone());
            client.set_label(pb::SetLabelRequest { model, label, version: args.version }).await.map(one)
        }
    }
}

fn json(order: &Order<'_>, models: &[pb::Model]) -> String {
    let shown: Vec<serde_json::Value> = models.iter().map(to_json).collect();
    match order {
        Order::List(_) => serde_json::json!({ "models": shown }).to_string(),
        _ => shown.iter().map(serde_json::Value::to_string).collect(),
    }
}

fn table(order: &Order<'_>, models: Vec<pb::Model>) -> String {
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0).max("model".len());
    let mut lines = Vec::new();
    let mut line = |cells: [&str; 5]| {
        let [model, version, state, names, reason] = cells;
        let text = format!("{model:width$}  {version:>7}  {state:<11}  {names:<16}  {reason}");
        lines.push(text.trim_end().to_owned());
    };
    line(["model", "version", "state", "names", "reason"]);
    for model in &models {
        for version in &model.versions {
            let number = match version.version {
                0 => "-".to_owned(),
                number => number.to_string(),
            };
            let names = names(model, version.version);
            line([&model.name, &number, &version.state, &names, &version.reason]);
        }
    }
    if !matches!(order, Order::List(_)) {
        for model in models {
            if !model.version_policy.is_empty() {
                lines.push(format!("\nserves {}", model.version_policy));
            }
            for event in model.history {
                let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(event.at_ms));
                let pb::Event { version, kind, detail, .. } = event;
                let line = format!("{at}  version {version:<5}  {kind:<12}  {detail}");
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    lines.join("\n")
}

/// What requests may say instead of the number: nothing at all (`default`), or a label.
fn names(model: &pb::Model, version: u64) -> String {
    let pointing = model.labels.iter().filter(|(_, labelled)| **labelled == version);
    let mut names: Vec<&str> = pointing.map(|(label, _)| label.as_str()).collect();
    names.sort_unstable();
    if version > 0 && version == model.default_version {
        names.insert(0, "default");
    }
    names.join(", ")
}
