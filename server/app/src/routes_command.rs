//! `gristmill routes`: the commands about the routes of a running server, and how their answers are printed.

mod canary;
mod shadows;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gristmill_proto::admin as pb;
use gristmill_proto::admin::routes_client::RoutesClient;
use tonic::Status;
use tonic::transport::Channel;

pub use self::canary::CanaryArgs;
use self::shadows::{mismatches, read_shadow, read_tolerance, shadow_table, shadows};
use crate::admin::routes::route_json;
use crate::admin::shadows::mismatches_json;
use crate::models_command::ServerArgs;

#[derive(Clone, Debug, Subcommand)]
pub enum RoutesCommand {
    /// List every route in force with its arms and weights.
    List(ServerArgs),
    /// Show one route.
    Show(RouteArgs),
    /// Put a route in force, in place of the one of its name if there is one, and write it to routes.toml.
    Set(Box<SetArgs>),
    /// Give one arm a weight; the others share the rest in proportion to what they had. A canary goes to that step.
    Promote(PromoteArgs),
    /// Give the first arm everything; a canary stays taken back.
    Abort(RouteArgs),
    /// Show how a route's shadows fare, with the worst mismatches of each; with --json also their inputs, where kept.
    Mismatches(RouteArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RouteArgs {
    /// Name of the route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub route: RouteArgs,
    /// An arm, the control first: its name, its model, perhaps a version or a label, and its share of the keys in
    /// percent (none with --policy canary and fallback). For example control=diabetes@1:90.
    #[arg(long = "arm", required = true, value_parser = read_arm, value_name = "NAME=MODEL[@VERSION|@LABEL][:PERCENT]")]
    pub arms: Vec<pb::Arm>,
    /// How an arm is chosen: split, canary for a second arm that grows while it is as good as the first, fallback for
    /// the first that serves and does not refuse, or bandit by rewards.
    #[arg(long, default_value = "split", value_name = "POLICY")]
    pub policy: String,
    /// Where requests name the key that they are dealt by: header (x-routing-key), request_id or parameter:NAME.
    #[arg(long, default_value = "header", value_name = "KEY")]
    pub key: String,
    /// Another salt deals all keys anew. By default the route's name.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub salt: String,
    #[command(flatten)]
    pub canary: CanaryArgs,
    /// A version that answers requests too, for comparison, in time that nobody else wants: its name, its model, perhaps
    /// a version or a label, and the share of the keys that are mirrored, in percent (all if left out).
    #[arg(long = "shadow", value_parser = read_shadow, value_name = "NAME=MODEL[@VERSION|@LABEL][:PERCENT]")]
    pub shadows: Vec<pb::Shadow>,
    /// How far answers of shadows may be apart before they count as a mismatch: |shadow - primary| <= A + R * |primary|.
    #[arg(long, value_name = "A,R", value_parser = read_tolerance, requires = "shadows")]
    pub shadow_tolerance: Option<(f64, f64)>,
    /// Keep the worst mismatches of shadows with the inputs of their requests.
    #[arg(long, requires = "shadows")]
    pub keep_inputs: bool,
}

#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub route: RouteArgs,
    /// Name of the arm.
    #[arg(value_name = "ARM")]
    pub arm: String,
    /// Its share of the keys from now on, in percent, by hundredths.
    #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
    pub weight: f64,
}

/// What the server says.
enum Told {
    Routes(Vec<pb::Route>),
    Mismatches(pb::ListMismatchesResponse),
}

/// Asks and prints. What the server refuses is told on standard error, with exit code 1.
///
/// # Errors
/// The server cannot be reached, or the answer cannot be written.
pub fn run(command: &RoutesCommand) -> anyhow::Result<ExitCode> {
    let server = match command {
        RoutesCommand::List(server) => server,
        RoutesCommand::Show(args) | RoutesCommand::Abort(args) | RoutesCommand::Mismatches(args) => {
            &args.server
        }
        RoutesCommand::Set(args) => &args.route.server,
        RoutesCommand::Promote(args) => &args.route.server,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let address = &server.server;
        let client = RoutesClient::connect(format!("http://{address}"))
            .await
            .with_context(|| format!("cannot reach a server at {address}: --server is its gRPC address"))?;
        anyhow::Ok(ask(client, command).await)
    })?;
    let text = match answer {
        Ok(Told::Routes(routes)) if server.json => json(command, &routes),
        Ok(Told::Routes(routes)) => table(&routes),
        Ok(Told::Mismatches(answer)) if server.json => mismatches_json(&answer).to_string(),
        Ok(Told::Mismatches(answer)) => mismatches(&answer),
        Err(status) => {
            eprintln!("gristmill: {}", status.message());
            return Ok(ExitCode::FAILURE);
        }
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(mut client: RoutesClient<Channel>, command: &RoutesCommand) -> Result<Told, Status> {
    let answer = match command {
        RoutesCommand::Mismatches(args) => {
            let route = args.route.clone();
            let answer = client.list_mismatches(pb::ListMismatchesRequest { route }).await?;
            return Ok(Told::Mismatches(answer.into_inner()));
        }
        RoutesCommand::List(_) => {
            let list = client.list_routes(pb::ListRoutesRequest {}).await?;
            return Ok(Told::Routes(list.into_inner().routes));
        }
        RoutesCommand::Show(args) => {
            client.show_route(pb::ShowRouteRequest { route: args.route.clone() }).await
        }
        RoutesCommand::Set(args) => {
            let SetArgs { route: RouteArgs { route, .. }, arms, policy, key, salt, canary, .. } =
                SetArgs::clone(args);
            let (canary, shadows) = (canary.message(), shadows(args));
            let route =
                pb::Route { name: route, policy, key, salt, arms, canary, shadows, ..pb::Route::default() };
            client.set_route(pb::SetRouteRequest { route: Some(route) }).await
        }
        RoutesCommand::Promote(args) => {
            let (route, arm) = (args.route.route.clone(), args.arm.clone());
            client.promote_arm(pb::PromoteArmRequest { route, arm, weight: Some(args.weight) }).await
        }
        RoutesCommand::Abort(args) => {
            client.abort_route(pb::AbortRouteRequest { route: args.route.clone() }).await
        }
    };
    answer.map(|route| Told::Routes(vec![route.into_inner()]))
}

fn json(command: &RoutesCommand, routes: &[pb::Route]) -> String {
    let shown: Vec<serde_json::Value> = routes.iter().map(route_json).collect();
    match command {
        RoutesCommand::List(_) => serde_json::json!({ "routes": shown }).to_string(),
        _ => shown.iter().map(serde_json::Value::to_string).collect(),
    }
}

fn table(routes: &[pb::Route]) -> String {
    let mut rows = vec![["route", "arm", "weight", "goes to", "serves"].map(str::to_owned)];
    for route in routes {
        for arm in &route.arms {
            let target = match (arm.version, arm.label.as_str()) {
                (0, "") => arm.model.clone(),
                (0, label) => format!("{}@{label}", arm.model),
                (version, _) => format!("{}@{version}", arm.model),
            };
            let weight = match route.policy.as_str() {
                "split" | "canary" => format!("{} %", arm.weight),
                policy => policy.to_owned(),
            };
            let serves = match arm.serving_version {
                0 => "nothing".to_owned(),
                version => format!("version {version}"),
            };
            rows.push([route.name.clone(), arm.name.clone(), weight, target, serves]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [routes_width, arms, weights, targets] = [0, 1, 2, 3].map(width);
    let line = |[route, arm, weight, target, serves]: &[String; 5]| {
        format!("{route:routes_width$}  {arm:arms$}  {weight:>weights$}  {target:targets$}  {serves}")
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if let [route] = routes {
        lines.push(format!("\ndealt by {}, salt {:?}", route.key, route.salt));
        lines.extend(shadow_table(&route.shadows));
    }
    if let [pb::Route { canary: Some(canary), .. }] = routes {
        lines.extend(canary::lines(canary));
    }
    let fault = routes.iter().map(|route| &route.fault).find(|fault| !fault.is_empty());
    lines.extend(fault.map(|fault| format!("\nroutes.toml is not in force: {fault}")));
    lines.join("\n")
}

/// `NAME=MODEL[@VERSION|@LABEL][:PERCENT]`.
fn read_arm(text: &str) -> Result<pb::Arm, String> {
    let expected =
        || "expected NAME=MODEL[@VERSION|@LABEL][:PERCENT], such as control=diabetes@1:90".to_owned();
    let (name, rest) = text.split_once('=').ok_or_else(expected)?;
    let (target, weight) = match rest.rsplit_once(':') {
        Some((target, percent)) => (target, percent.parse().map_err(|_not_a_number| expected())?),
        None => (rest, 0.0),
    };
    let (model, version) = target.rsplit_once('@').unwrap_or((target, ""));
    if name.is_empty() || model.is_empty() {
        return Err(expected());
    }
    let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    let (version, label) = match is_number {
        true => (version.parse().map_err(|_too_large| expected())?, String::new()),
        false => (0, version.to_owned()),
    };
    let (name, model) = (name.to_owned(), model.to_owned());
    Ok(pb::Arm { name, model, version, label, weight, serving_version: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_one_word() {
        let read = |text| read_arm(text).map(|arm| (arm.name, arm.model, arm.version, arm.label, arm.weight));
        let arm = |name: &str, model: &str, version, label: &str, weight| {
            Ok((name.to_owned(), model.to_owned(), version, label.to_owned(), weight))
        };
        assert_eq!(read("a=m@1:90"), arm("a", "m", 1, "", 90.0));
        assert_eq!(read("a=m@next:0.01"), arm("a", "m", 0, "next", 0.01));
        assert_eq!(read("a=m"), arm("a", "m", 0, "", 0.0));
        for wrong in ["a", "=m:1", "a=:1", "a=m:much", "a=m@99999999999999999999:1"] {
            assert!(read(wrong).unwrap_err().starts_with("expected NAME="), "{wrong}");
        }
    }
}
