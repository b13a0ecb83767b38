//! Recorded arrivals as a CSV file: `at_us,model,rows,deadline_us`, in µs since the start and after the arrival.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gristmill_engine::simulation::Arrival;

/// Which columns are needed; others are overlooked, but for `priority`.
const COLUMNS: [&str; 4] = ["at_us", "model", "rows", "deadline_us"];

/// Reads the requests to `model`, or to the only one that is asked in the trace, in the order of their arrival.
///
/// # Errors
/// The file, or the line, that cannot be read; several models while none is named; no request.
pub(super) fn read(path: &Path, model: Option<&str>) -> anyhow::Result<Vec<Arrival>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, model).with_context(|| path.display().to_string())
}

/// The same from its text.
///
/// # Errors
/// The line that cannot be read; several models while none is named; no request.
pub fn parse(text: &str, model: Option<&str>) -> anyhow::Result<Vec<Arrival>> {
    let mut lines = (1..).zip(text.lines());
    let (_, header) = lines.next().context("it is empty: expected a header")?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let position = |wanted: &str| names.iter().position(|name| *name == wanted);
    let mut columns = [0; COLUMNS.len()];
    for (column, name) in columns.iter_mut().zip(COLUMNS) {
        *column = position(name)
            .with_context(|| format!("its first line has no `{name}`: expected {}", COLUMNS.join(",")))?;
    }
    let priority = position("priority");
    let mut models = BTreeSet::new();
    let mut arrivals = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |column: usize| cells.get(column).copied().unwrap_or_default();
        let number_in = |column: usize| {
            let value = cell(column).parse::<u64>();
            value.with_context(|| format!("line {number}: `{}` is `{}`", names[column], cell(column)))
        };
        let [at, name, rows, deadline] = columns;
        if model.is_some_and(|model| model != cell(name)) {
            continue;
        }
        models.insert(cell(name));
        let patience = (!cell(deadline).is_empty()).then(|| number_in(deadline)).transpose()?;
        let arrival = Arrival {
            at: Duration::from_micros(number_in(at)?),
            rows: number_in(rows)? as usize,
            patience: patience.map(Duration::from_micros),
            priority: priority.map(number_in).transpose()?.unwrap_or(0),
        };
        ensure!(arrival.rows > 0, "line {number}: `rows` is 0, expected 1 or more");
        arrivals.push(arrival);
    }
    if models.len() > 1 {
        let models: Vec<&str> = models.into_iter().collect();
        bail!("it has several models: name one with --model ({})", models.join(", "));
    }
    match model {
        _ if !arrivals.is_empty() => {}
        Some(model) => bail!("it has no request to model `{model}`"),
        None => bail!("it has no request"),
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, model: Option<&str>, expected: Expect) {
        let line = |arrival: &Arrival| {
            let Arrival { at, rows, patience, priority } = arrival;
            format!("{at:?} {rows} {patience:?} {priority}")
        };
        let lines = match parse(text, model) {
            Ok(arrivals) => arrivals.iter().map(line).collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn requests_are_read_in_order() {
        let text = "at_us,model,rows,deadline_us\n1500,digits,2,20000\n200,digits,1,\n";
        check(
            text,
            None,
            expect![[r#"
            200µs 1 None 0
            1.5ms 2 Some(20ms) 0"#]],
        );
        let text = "rows, at_us,deadline_us,model,priority,note\n1,5,7,a,2,x\n1,6,7,b,1,y\n\n";
        check(text, Some("a"), expect!["5µs 1 Some(7µs) 2"]);
    }

    #[test]
    fn faults_name_the_line() {
        check("", None, expect!["it is empty: expected a header"]);
        check(
            "at_us,model,rows\n",
            None,
            expect!["its first line has no `deadline_us`: expected at_us,model,rows,deadline_us"],
        );
        check("at_us,model,rows,deadline_us\n", None, expect!["it has no request"]);
        check(
            "at_us,model,rows,deadline_us\n1,a,1,\n2,b,1,\n",
            None,
            expect!["it has several models: name one with --model (a, b)"],
        );
        check("at_us,model,rows,deadline_us\n1,a,1,\n", Some("b"), expect!["it has no request to model `b`"]);
        check(
            "at_us,model,rows,deadline_us\n1,a,1,\n-2,a,1,\n",
            None,
            expect!["line 3: `at_us` is `-2`: invalid digit found in string"],
        );
        check(
            "at_us,model,rows,deadline_us\n1,a,0,\n",
            None,
            expect!["line 2: `rows` is 0, expected 1 or more"],
        );
        check(
            "at_us,model,rows,deadline_us\n1,a\n",
            None,
            expect!["line 2: `rows` is ``: cannot parse integer from empty string"],
        );
    }
}
