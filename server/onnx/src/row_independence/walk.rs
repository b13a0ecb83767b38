//! Follows tensors through graphs, their bodies and functions, in the order in which nodes compute.

use std::collections::HashMap;

use super::call::{Attributes, Call, FunctionAttributes, Outcome};
use super::control;
use super::operators;
use super::size::Unknowns;
use super::value::{Dependence, Value, Verdict};
use crate::graph::{Function, Graph, Node, Opset};

/// Nodes that are followed, those of a body or function as often as it is used: a file can say so in few bytes.
const STEPS_MAX: usize = 1_000_000;
/// Functions within functions, and bodies within bodies.
const DEPTH_MAX: usize = 32;

/// The tensors that a graph can name.
pub(super) struct Scope<'s, 'a> {
    values: HashMap<&'a str, Value>,
    /// Around a body.
    outer: Option<&'s Scope<'s, 'a>>,
}

/// What is the same for all nodes of a graph and of its bodies.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'c, 'a> {
    pub(super) opsets: &'a [Opset],
    pub(super) call: Option<&'c FunctionAttributes<'c, 'a>>,
    pub(super) depth: usize,
}

pub(super) struct Walk<'a> {
    functions: HashMap<(&'a str, &'a str, &'a str), &'a Function>,
    pub(super) unknowns: Unknowns,
    steps: usize,
}

// === impl Scope ===

impl<'a> Scope<'_, 'a> {
    pub(super) fn new<'s>(outer: Option<&'s Scope<'s, 'a>>) -> Scope<'s, 'a> {
        Scope { values: HashMap::new(), outer }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        match (self.values.get(name), self.outer) {
            (Some(value), _) => Some(value),
            (None, Some(outer)) => outer.get(name),
            (None, None) => None,
        }
    }

    pub(super) fn set(&mut self, name: &'a str, value: Value) {
        if !name.is_empty() {
            self.values.insert(name, value);
        }
    }
}

/// The standard domain has two names.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    pub(super) fn new(functions: &'a [Function]) -> Walk<'a> {
        let key = |function: &'a Function| {
            ((domain(&function.domain), function.name.as_str(), function.overload.as_str()), function)
        };
        Walk { functions: functions.iter().map(key).collect(), unknowns: Unknowns::default(), steps: 0 }
    }

    /// Follows the nodes of `graph`, whose inputs are in `scope`.
    pub(super) fn graph(
        &mut self,
        graph: &'a Graph,
        scope: &mut Scope<'_, 'a>,
        surroundings: Surroundings<'_, 'a>,
    ) {
        for tensor in &graph.initializers {
            // An input of that name has been given a value already.
            if !scope.values.contains_key(tensor.name.as_str()) {
                scope.set(&tensor.name, Value::weights(tensor));
            }
        }
        for tensor in &graph.sparse_initializers {
            if let Some(values) = &tensor.values {
                scope.set(&values.0.name, Value::shared(None));
            }
        }
        self.nodes(&graph.nodes, scope, surroundings);
    }

    fn nodes(&mut self, nodes: &'a [Node], scope: &mut Scope<'_, 'a>, surroundings: Surroundings<'_, 'a>) {
        for node in nodes {
            let outputs = self.node(node, scope, surroundings);
            let mut outputs = outputs.into_iter();
            for name in &node.outputs {
                let value = outputs.next().unwrap_or_else(|| {
                    let what = "has an output that is not followed";
                    Value::lost(Verdict::Undecided(
                        format!("{} '{}' {what}", node.operator, node.title()).into(),
                    ))
                });
                scope.set(name, value);
            }
        }
    }

    fn node(
        &mut self,
        node: &'a Node,
        scope: &Scope<'_, 'a>,
        surroundings: Surroundings<'_, 'a>,
    ) -> Vec<Value> {
        let operands: Vec<Option<Value>> = node
            .inputs
            .iter()
            .map(|name| match name.as_str() {
                "" => None,
                name => Some(scope.get(name).cloned().unwrap_or_else(|| {
                    Value::lost(Verdict::Undecided(format!("nothing computes the tensor '{name}'").into()))
                })),
            })
            .collect();
        let name = domain(&node.domain);
        let opset = surroundings.opsets.iter().find(|opset| domain(&opset.domain) == name);
        let call = Call {
            node,
            attributes: Attributes { own: &node.attributes, call: surroundings.call },
            operands: &operands,
            version: opset.map_or(1, |opset| opset.version),
        };
        match self.outcome(&call, scope, surroundings) {
            Ok(outputs) => outputs,
            Err(verdict) => vec![Value::lost(verdict); node.outputs.len()],
        }
    }

    fn outcome(
        &mut self,
        call: &Call<'_, 'a>,
        scope: &Scope<'_, 'a>,
        surroundings: Surroundings<'_, 'a>,
    ) -> Outcome {
        self.steps += 1;
        if self.steps > STEPS_MAX || surroundings.depth > DEPTH_MAX {
            return Err(call.undecided("is in a body or function that is used too often to be followed"));
        }
        let operands = || call.operands.iter().flatten();
        let lost = operands().filter_map(|value| match &value.dependence {
            Dependence::Lost(verdict) => Some(verdict),
            _ => None,
        });
        if let Some(worst) = lost.max_by_key(|verdict| verdict.severity()) {
            return Err(worst.clone());
        }
        let name = domain(&call.node.domain);
        let operator = call.node.operator.as_str();
        if let Some(function) = self.functions.get(&(name, operator, call.node.overload.as_str())).copied() {
            return self.function(function, call, surroundings);
        }
        if name.is_empty()
            && let Some(outcome) = control::follow(self, call, scope, surroundings)
        {
            return outcome;
        }
        let Some(operator) = operators::find(name, operator) else {
            let of = if name.is_empty() { String::new() } else { format!(" of the domain {name}") };
            return Err(call.undecided(&format!("is an operator{of} that is not known here")));
        };
        if name.is_empty() && call.version < 7 {
            return Err(call.undecided("is of a version of ONNX before 7"));
        }
        if !operator.follows_counts && operands().any(Value::is_count) {
            return match operands().any(|value| value.row_axis().is_some()) {
                true => Err(call.mixes("uses the number of rows as a value")),
                false => Ok(vec![
                    Value { dependence: Dependence::Count, shape: None, content: None };
                    call.node.outputs.len()
                ]),
            };
        }
        match (operator.transfer)(call, &mut self.unknowns) {
            // What has seen no rows cannot mix them, whatever else is not known of it.
            Err(Verdict::Undecided(_) | Verdict::Mixes(_)) if operands().all(Value::is_shared) => {
                Ok(vec![Value::shared(None); call.node.outputs.len()])
            }
            outcome => outcome,
        }
    }

    fn function(
        &mut self,
        function: &'a Function,
        call: &Call<'_, 'a>,
        surroundings: Surroundings<'_, 'a>,
    ) -> Outcome {
        let attributes = FunctionAttributes { given: call.attributes, defaults: &function.defaults };
        let mut scope = Scope::new(None);
        for (name, operand) in function.inputs.iter().zip(call.operands) {
            if let Some(operand) = operand {
                scope.set(name, operand.clone());
            }
        }
        let opsets = if function.opsets.is_empty() { surroundings.opsets } else { &function.opsets };
        let inside = Surroundings { opsets, call: Some(&attributes), depth: surroundings.depth + 1 };
        self.nodes(&function.nodes, &mut scope, inside);
        let missing = || Value::lost(call.undecided("has an output that is not computed"));
        Ok(function.outputs.iter().map(|name| scope.get(name).cloned().unwrap_or_else(missing)).collect())
    }
}
