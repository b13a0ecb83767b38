//! Follows axis 0 through a model's graph: whether rows that are stacked there can influence each other's outputs.

mod call;
mod control;
mod operators;
mod size;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use gristmill_engine::backend::RowIndependence;
use gristmill_engine::tensor::{Dim, TensorSpec};

use self::size::Size;
use self::value::{Dependence, Value, Verdict};
use self::walk::{Scope, Surroundings, Walk};
use crate::graph::ModelFile;

/// What the structure of `file` says about rows along axis 0 of `inputs`, which a batch stacks; other
/// inputs keep their defaults.
///
/// # Errors
/// Rows provably mix, or the outputs do not have one entry for each: a clause that names the operator.
pub(crate) fn analyse(file: &ModelFile, inputs: &[TensorSpec]) -> Result<RowIndependence, String> {
    let graph = &file.graph;
    let mut walk = Walk::new(&file.functions);
    let mut scope = Scope::new(None);
    for input in &graph.inputs {
        let value = match inputs.iter().find(|spec| spec.name == input.name) {
            Some(spec) => {
                let unknowns = &mut walk.unknowns;
                let size = |dim: &Dim| match dim {
                    Dim::Fixed(size) => i64::try_from(*size).map_or_else(|_| unknowns.size(), Size::known),
                    Dim::Dynamic(_) => unknowns.size(),
                };
                let shape = spec.shape.as_ref().map(|dims| dims.iter().map(size).collect());
                Value::rows(0, Size::one(), shape)
            }
            None if graph.has_initializer(&input.name) => continue,
            None => {
                let reason = format!("input '{}' is not a tensor of rows", input.name);
                Value::lost(Verdict::Undecided(reason.into()))
            }
        };
        scope.set(&input.name, value);
    }
    let surroundings = Surroundings { opsets: &file.opsets, call: None, depth: 0 };
    walk.graph(graph, &mut scope, surroundings);

    let mut worst: Option<Verdict> = None;
    for output in &graph.outputs {
        let verdict = match scope.get(&output.name) {
            Some(value) => fault(&output.name, value),
            None => Some(Verdict::Undecided(format!("nothing computes the output '{}'", output.name).into())),
        };
        if let Some(verdict) = verdict
            && worst.as_ref().is_none_or(|worst| verdict.severity() > worst.severity())
        {
            worst = Some(verdict);
        }
    }
    match worst {
        None => Ok(RowIndependence::Proved),
        Some(Verdict::Undecided(reason)) => Ok(RowIndependence::Undecided { reason: reason.to_string() }),
        Some(Verdict::Random(reason)) => Ok(RowIndependence::Random { reason: reason.to_string() }),
        Some(Verdict::Mixes(reason)) => Err(reason.to_string()),
    }
}

/// Why an output cannot be dealt out to the rows' owners, if so.
fn fault(name: &str, value: &Value) -> Option<Verdict> {
    let mixes = |what: String| Some(Verdict::Mixes(format!("output '{name}' {what}").into()));
    match &value.dependence {
        Dependence::Lost(verdict) => Some(verdict.clone()),
        Dependence::Shared => mixes("is the same for any number of rows".into()),
        Dependence::Count => mixes("depends on the number of rows".into()),
        Dependence::Rows { axis: 0, each } if each.is_one() => None,
        Dependence::Rows { axis: 0, each } => match each.value() {
            Some(entries) => mixes(format!("has {entries} entries for each row")),
            None => {
                let reason = format!("output '{name}' may have several entries for each row");
                Some(Verdict::Undecided(reason.into()))
            }
        },
        Dependence::Rows { axis, .. } => mixes(format!("has the rows on axis {axis}")),
    }
}

/// What the structure says, for people.
pub(crate) fn note(independence: &RowIndependence) -> String {
    match independence {
        RowIndependence::Proved => "rows stay apart in every operator of the graph".into(),
        RowIndependence::Undecided { reason } => {
            format!("whether rows stay apart is not decided by the graph: {reason}")
        }
        RowIndependence::Random { reason } => format!("outputs are random: {reason}"),
    }
}
