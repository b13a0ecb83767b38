//! Tests of the whole question: what is asked on the command line, what is answered.

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::cli::{Cli, Command};

/// The answer for people, as JSON, and whether it is that there are enough.
fn ask(arguments: &str) -> (String, Value, bool) {
    let words = ["gristmill", "plan"].into_iter().chain(arguments.split_whitespace());
    let Some(Command::Plan(args)) = Cli::parse_from(words).command else { panic!("a plan was asked for") };
    let (question, source) = question(&args).unwrap();
    let plan = search::plan(&question);
    let report = report::Report::new(&question, &plan, None, source);
    (report.to_string(), serde_json::to_value(&report).unwrap(), report.is_enough())
}

/// Cores for each SLO.
fn cores(answer: &Value) -> Vec<Option<u64>> {
    answer["least_cores_by_slo"].as_array().unwrap().iter().map(|slo| slo["cores"].as_u64()).collect()
}

const DEMAND: &str = "--arrivals poisson:300 --run-time 10ms+1ms --duration 2s --seeds 2";

#[test]
fn a_tighter_slo_takes_more_cores_and_one_below_a_run_takes_no_end_of_them() {
    let (text, answer, is_enough) = ask(&format!("--slo 60ms {DEMAND}"));
    assert!(is_enough && text.contains("cores are enough for 99 % within 60 ms"), "{text}");
    let cores = cores(&answer);
    assert!(cores.windows(2).all(|pair| pair[0].unwrap() >= pair[1].unwrap()), "{answer}");
    assert!(cores[0] > cores[3] && cores[3] >= Some(1), "{answer}");
    assert_eq!(answer["least_cores"].as_u64(), cores[1]);
    let least = answer["trials"].as_array().unwrap().iter().find(|row| row["cores"] == answer["least_cores"]);
    assert!(least.unwrap()["attainment"].as_f64().unwrap() >= 0.99, "{answer}");

    let (text, answer, is_enough) = ask(&format!("--slo 5ms {DEMAND}"));
    assert!(!is_enough && text.contains("no number of cores is enough for 99 % within 5 ms"), "{text}");
    assert_eq!(answer["least_cores"], Value::Null);
}

#[test]
fn the_cores_there_are_are_enough_or_not() {
    let (text, _, is_enough) = ask(&format!("--slo 30ms --cores 1 {DEMAND}"));
    assert!(!is_enough && text.contains("1 cores are not enough for 99 % within 30 ms: "), "{text}");
    let (text, answer, is_enough) = ask(&format!("--slo 30ms --cores 33 --threads 2 {DEMAND}"));
    assert!(is_enough && text.contains("32 cores are enough"), "{text}");
    let workers = |row: &Value| (row["workers"].as_u64(), row["cores"].as_u64());
    let trials = answer["trials"].as_array().unwrap();
    assert_eq!(trials.last().map(workers), Some((Some(16), Some(32))));
}

#[test]
fn a_trace_and_a_latency_model_come_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace.csv");
    let lines: String = (0..200).map(|index| format!("{},m,1,50000\n", index * 5000)).collect();
    std::fs::write(&trace, format!("at_us,model,rows,deadline_us\n{lines}")).unwrap();
    let latency_model = directory.path().join("latency.json");
    let sizes =
        r#"{"rows":1,"count":9,"p50_us":8000,"p90_us":8000,"p99_us":8000,"typical_us":8000,"high_us":8000}"#;
    std::fs::write(
        &latency_model,
        format!(
            r#"{{"model":"m","version":3,"batch_rows_max":1,"tables":[{{"shape":[],"sizes":[{sizes}]}}]}}"#
        ),
    )
    .unwrap();
    let (text, answer, _) = ask(&format!(
        "--slo 20ms --seeds 1 --trace {} --latency-model {}",
        trace.display(),
        latency_model.display()
    ));
    // A row every 5 ms, and a worker needs 8 for one.
    assert_eq!((answer["least_cores"].as_u64(), answer["requests"].as_u64()), (Some(2), Some(200)), "{text}");
    assert!(text.contains("run times of m version 3, in batches of at most 1 rows"), "{text}");
}
