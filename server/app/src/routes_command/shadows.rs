//! Shadows on the command line: how one is written as an argument, and how they and their mismatches are printed.

use gristmill_proto::admin as pb;

use super::{SetArgs, read_arm};

/// `NAME=MODEL[@VERSION|@LABEL][:PERCENT]`.
pub(super) fn read_shadow(text: &str) -> Result<pb::Shadow, String> {
    let pb::Arm { name, model, version, label, weight, .. } = read_arm(text)?;
    let percent = text.contains(':').then_some(weight);
    Ok(pb::Shadow { name, model, version, label, percent, ..pb::Shadow::default() })
}

/// `ABSOLUTE,RELATIVE`.
pub(super) fn read_tolerance(text: &str) -> Result<(f64, f64), String> {
    let read = || {
        let (absolute, relative) = text.split_once(',')?;
        Some((absolute.trim().parse().ok()?, relative.trim().parse().ok()?))
    };
    read().ok_or_else(|| "expected two numbers, such as 1e-5,1e-5".to_owned())
}

/// Those of `routes set`, with what is said of all of them.
pub(super) fn shadows(args: &SetArgs) -> Vec<pb::Shadow> {
    let (absolute, relative) = args.shadow_tolerance.unzip();
    let shadow = |shadow: &pb::Shadow| pb::Shadow {
        absolute,
        relative,
        keep_inputs: args.keep_inputs,
        ..shadow.clone()
    };
    args.shadows.iter().map(shadow).collect()
}

/// The shadows of one route, if it has any.
pub(super) fn shadow_table(shadows: &[pb::Shadow]) -> Option<String> {
    if shadows.is_empty() {
        return None;
    }
    let head = ["shadow", "mirrors", "goes to", "serves", "compared", "mismatched", "failed", "shed"];
    let mut rows = vec![head.map(str::to_owned)];
    for shadow in shadows {
        let target = match (shadow.version, shadow.label.as_str()) {
            (0, "") => shadow.model.clone(),
            (0, label) => format!("{}@{label}", shadow.model),
            (version, _) => format!("{}@{version}", shadow.model),
        };
        let serves = match shadow.serving_version {
            0 => "nothing".to_owned(),
            version => format!("version {version}"),
        };
        let mirrors = format!("{} %", shadow.percent.unwrap_or(100.0));
        let [compared, mismatched, failed, shed] = counts(&shadow.counts.clone().unwrap_or_default());
        rows.push([shadow.name.clone(), mirrors, target, serves, compared, mismatched, failed, shed]);
    }
    Some(format!("\n{}", aligned(&rows)))
}

/// Compared, the share of mismatches, failed on either side or on both, shed.
fn counts(counts: &pb::ShadowCounts) -> [String; 4] {
    let rate = counts.mismatch_rate.map_or("-".to_owned(), |rate| format!("{:.2} %", rate * 100.0));
    let failed = counts.shadow_failed + counts.primary_failed + counts.both_failed;
    [
        (counts.matched + counts.mismatched).to_string(),
        rate,
        failed.to_string(),
        (counts.no_room + counts.no_core).to_string(),
    ]
}

/// Each shadow with its worst mismatches, one output a line.
pub(super) fn mismatches(answer: &pb::ListMismatchesResponse) -> String {
    if answer.shadows.is_empty() {
        return "the route has no shadow".to_owned();
    }
    let shadow = |shadow: &pb::ShadowMismatches| {
        let told = shadow.counts.clone().unwrap_or_default();
        let [compared, mismatched, failed, shed] = counts(&told);
        let mut text = format!(
            "shadow {}: {compared} compared, {mismatched} mismatched, {failed} failed, {shed} shed",
            shadow.shadow
        );
        if !told.last_error.is_empty() {
            text += &format!("\nthe last failure: {}", told.last_error);
        }
        if !shadow.mismatches.is_empty() {
            text += &format!("\n{}", table(&shadow.mismatches));
        }
        text
    };
    answer.shadows.iter().map(shadow).collect::<Vec<_>>().join("\n\n")
}

fn table(mismatches: &[pb::Mismatch]) -> String {
    let head = ["prediction", "versions", "output", "differing", "absolute", "relative", "top-1", "distance"];
    let mut rows = vec![head.map(str::to_owned)];
    for found in mismatches {
        let versions = format!(
            "{}@{} {}@{}",
            found.primary_model, found.primary_version, found.shadow_model, found.shadow_version
        );
        for output in &found.outputs {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3e}"));
            let of = |part: u64, whole: u64| format!("{part} of {whole}");
            let differing = match output.fault.as_str() {
                "" => of(output.differing, output.elements),
                fault => fault.to_owned(),
            };
            let top1 = match output.total_variation {
                Some(_) => of(output.same_top1_rows, output.rows),
                None => "-".to_owned(),
            };
            rows.push([
                found.prediction_id.clone(),
                versions.clone(),
                output.name.clone(),
                differing,
                number(output.absolute),
                number(output.relative),
                top1,
                number(output.total_variation),
            ]);
        }
    }
    aligned(&rows)
}

fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_is_one_word_and_mirrors_everything_unless_it_says_less() {
        let read = |text| {
            read_shadow(text).map(|shadow| (shadow.name, shadow.model, shadow.version, shadow.percent))
        };
        assert_eq!(read("next=m@2"), Ok(("next".into(), "m".into(), 2, None)));
        assert_eq!(read("next=m@2:12.5"), Ok(("next".into(), "m".into(), 2, Some(12.5))));
        assert!(read("m").unwrap_err().starts_with("expected NAME="));
    }
}
