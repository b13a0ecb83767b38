//! `gristmill experiments`: what a running server knows of the arms of its routes, and how that is printed.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use gristmill_proto::admin as pb;
use gristmill_proto::admin::experiments_client::ExperimentsClient;

use crate::admin::experiments::experiment_json;
use crate::models_command::ServerArgs;
use crate::routes_command::RouteArgs;

#[derive(Clone, Debug, Subcommand)]
pub enum ExperimentsCommand {
    /// List every route with what its arms were rewarded with.
    List(ServerArgs),
    /// Show one route: requests, latency, rewards, and which arm is the best how surely.
    Show(RouteArgs),
}

/// Columns of the chart.
const CHART_WIDTH: usize = 40;

/// Asks and prints. What the server refuses is told on standard error, with exit code 1.
///
/// # Errors
/// The server cannot be reached, or the answer cannot be written.
pub fn run(command: &ExperimentsCommand) -> anyhow::Result<ExitCode> {
    let server = match command {
        ExperimentsCommand::List(server) => server,
        ExperimentsCommand::Show(args) => &args.server,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let address = &server.server;
        let mut client = ExperimentsClient::connect(format!("http://{address}"))
            .await
            .with_context(|| format!("cannot reach a server at {address}: --server is its gRPC address"))?;
        anyhow::Ok(match command {
            ExperimentsCommand::List(_) => {
                let list = client.list_experiments(pb::ListExperimentsRequest {}).await;
                list.map(|list| list.into_inner().experiments)
            }
            ExperimentsCommand::Show(args) => {
                let request = pb::ShowExperimentRequest { route: args.route.clone() };
                client.show_experiment(request).await.map(|shown| vec![shown.into_inner()])
            }
        })
    })?;
    let experiments = match answer {
        Ok(experiments) => experiments,
        Err(status) => {
            eprintln!("gristmill: {}", status.message());
            return Ok(ExitCode::FAILURE);
        }
    };
    let json = || experiments.iter().map(experiment_json);
    let text = match command {
        ExperimentsCommand::List(_) if server.json => {
            serde_json::json!({ "experiments": json().collect::<Vec<_>>() }).to_string()
        }
        ExperimentsCommand::Show(_) if server.json => json().map(|shown| shown.to_string()).collect(),
        ExperimentsCommand::List(_) | ExperimentsCommand::Show(_) => {
            experiments.iter().map(page).collect::<Vec<_>>().join("\n\n")
        }
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn page(experiment: &pb::Experiment) -> String {
    let mut lines = vec![format!("{} ({})", experiment.route, experiment.policy)];
    let arms = &experiment.arms;
    let width = arms.iter().map(|arm| arm.name.len()).max().unwrap_or(0).max("arm".len());
    lines.push(format!(
        "{:width$}  {:>8}  {:>9}  {:>7}  {:>8}  {:>8}  {:>8}  {:>9}  {:>9}  {:>7}",
        "arm", "share", "requests", "failed", "p50 ms", "p99 ms", "rewards", "mean", "loss", "p"
    ));
    for arm in arms {
        let p = arm.p_value.map_or_else(|| "-".to_owned(), |p| format!("{p:.4}"));
        lines.push(format!(
            "{:width$}  {:>6.2} %  {:>9}  {:>7}  {:>8.2}  {:>8.2}  {:>8}  {:>9.4}  {:>9.5}  {p:>7}",
            arm.name,
            100.0 * arm.share,
            arm.requests,
            arm.failed,
            arm.p50_ms,
            arm.p99_ms,
            arm.rewards,
            arm.reward_mean,
            arm.expected_loss,
        ));
    }
    lines.push(String::new());
    let low = arms.iter().map(|arm| arm.posterior_low).fold(f64::INFINITY, f64::min);
    let high = arms.iter().map(|arm| arm.posterior_high).fold(f64::NEG_INFINITY, f64::max);
    for arm in arms {
        let chart = chart(arm, low, high);
        lines.push(format!("{:width$}  {chart}  best with {:.1} %", arm.name, 100.0 * arm.probability_best));
    }
    let (start, end) = (format!("{low:.4}"), format!("{high:.4}"));
    lines.push(format!("{:width$}  {start}{end:>rest$}", "", rest = CHART_WIDTH - start.len()));
    if !experiment.winner.is_empty() {
        let rollout = experiment.rollout.as_ref().map(|rollout| {
            let pb::WinnerRollout { step, steps, percent, state } = rollout;
            format!(": step {step} of {steps}, {percent} %: {state}")
        });
        lines.push(format!("\nthe winner is {}{}", experiment.winner, rollout.unwrap_or_default()));
    }
    if let Some(p) = experiment.sample_ratio_p.filter(|p| *p < 0.001) {
        lines
            .push(format!("\nrequests were not dealt by the weights (p = {p:.2e}): do not compare the arms"));
    }
    let faults = arms.iter().filter(|arm| !arm.fault.is_empty());
    lines.extend(faults.map(|arm| format!("\n{} gets probes alone: {}", arm.name, arm.fault)));
    lines.join("\n")
}

/// The 95 % interval of the mean reward, and its middle.
fn chart(arm: &pb::ExperimentArm, low: f64, high: f64) -> String {
    let place = |value: f64| {
        let part = if high > low { (value - low) / (high - low) } else { 0.5 };
        (part.clamp(0.0, 1.0) * (CHART_WIDTH - 1) as f64).round() as usize
    };
    let (start, middle, end) =
        (place(arm.posterior_low), place(arm.posterior_mean), place(arm.posterior_high));
    let letter = |column| match column {
        column if column == middle => 'o',
        column if (start..=end).contains(&column) => '-',
        _ => ' ',
    };
    (0..CHART_WIDTH).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn arms_are_drawn_on_one_scale() {
        let arm = |name: &str, mean: f64, probability_best| pb::ExperimentArm {
            name: name.into(),
            share: probability_best,
            requests: 1000,
            p50_ms: 0.5,
            p99_ms: 2.0,
            rewards: 900,
            reward_mean: mean,
            posterior_mean: mean,
            posterior_low: mean - 0.04,
            posterior_high: mean + 0.04,
            probability_best,
            expected_loss: 0.001,
            ..pb::ExperimentArm::default()
        };
        let candidate = pb::ExperimentArm { p_value: Some(0.02), ..arm("candidate", 0.36, 0.9) };
        let experiment = pb::Experiment {
            route: "offer".into(),
            policy: "bandit".into(),
            winner: "candidate".into(),
            sample_ratio_p: None,
            arms: vec![arm("control", 0.3, 0.1), candidate],
            rollout: Some(pb::WinnerRollout {
                step: 1,
                steps: 3,
                percent: 90.0,
                state: "the step lasts 9s so far".into(),
            }),
        };
        expect![[r#"
            offer (bandit)
            arm           share   requests   failed    p50 ms    p99 ms   rewards       mean       loss        p
            control     10.00 %       1000        0      0.50      2.00       900     0.3000    0.00100        -
            candidate   90.00 %       1000        0      0.50      2.00       900     0.3600    0.00100   0.0200

            control    -----------o-----------                   best with 10.0 %
            candidate                   -----------o-----------  best with 90.0 %
                       0.2600                            0.4000

            the winner is candidate: step 1 of 3, 90 %: the step lasts 9s so far"#]].assert_eq(&page(&experiment));
    }
}
