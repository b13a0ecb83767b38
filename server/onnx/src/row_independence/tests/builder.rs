//! Builds graphs for the tests, and says in a line what was found.

use gristmill_engine::backend::RowIndependence;
use gristmill_engine::tensor::{DType, Dim, TensorSpec};

use super::super::analyse;
use crate::file_bytes::FileBytes;
use crate::graph::{Attribute, Function, Graph, ModelFile, Node, Opset, Value};
use crate::initializer::{Initializer, TensorFields};

const INT64: i32 = 7;
const FLOAT: i32 = 1;

/// A graph that is being built. Inputs are batched along axis 0.
pub(super) struct Build {
    pub(super) graph: Graph,
    inputs: Vec<TensorSpec>,
    functions: Vec<Function>,
    version: i64,
}

pub(super) fn graph() -> Build {
    Build { graph: Graph::default(), inputs: Vec::new(), functions: Vec::new(), version: 17 }
}

/// `x` with the sizes behind the rows; −1 is a size that may be any.
pub(super) fn x(sizes: &[i64]) -> Build {
    graph().input("x", sizes)
}

pub(super) fn integer(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), integer: value, ..Attribute::default() }
}

pub(super) fn integers(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), integers: values.to_vec(), ..Attribute::default() }
}

pub(super) fn text(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), string: value.into(), ..Attribute::default() }
}

pub(super) fn body(name: &str, build: Build) -> Attribute {
    Attribute { name: name.into(), graph: Some(build.graph), ..Attribute::default() }
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(|name| if name == "-" { String::new() } else { name.into() }).collect()
}

/// `"Add a b -> c"`, or `"ai.onnx.ml:Scaler a -> c"`; an operand that is left out is `-`.
pub(super) fn node(line: &str, attributes: impl IntoIterator<Item = Attribute>) -> Node {
    let (left, outputs) = line.split_once("->").unwrap();
    let mut inputs = names(left);
    let operator = inputs.remove(0);
    let (domain, operator) = operator.split_once(':').unwrap_or(("", &operator));
    Node {
        inputs,
        outputs: names(outputs),
        operator: operator.into(),
        domain: domain.into(),
        attributes: attributes.into_iter().collect(),
        ..Node::default()
    }
}

impl Build {
    pub(super) fn version(self, version: i64) -> Build {
        Build { version, ..self }
    }

    pub(super) fn input(mut self, name: &str, sizes: &[i64]) -> Build {
        let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed);
        let shape = [Dim::Dynamic(None)].into_iter().chain(sizes.iter().map(dim)).collect();
        self.inputs.push(TensorSpec {
            name: name.into(),
            dtype: DType::Fp32,
            shape: Some(shape),
            optional: false,
            labels: Vec::new(),
        });
        self.formal(name)
    }

    /// An input of a body.
    pub(super) fn formal(mut self, name: &str) -> Build {
        self.graph.inputs.push(Value { name: name.into(), kind: None });
        self
    }

    pub(super) fn sizes(mut self, name: &str, values: &[i64]) -> Build {
        let dims = vec![i64::try_from(values.len()).unwrap()];
        self.graph.initializers.push(Initializer(TensorFields {
            name: name.into(),
            dims,
            element: INT64,
            int64s: values.to_vec(),
            ..TensorFields::default()
        }));
        self
    }

    pub(super) fn number(mut self, name: &str, value: i64) -> Build {
        self = self.sizes(name, &[value]);
        self.graph.initializers.last_mut().unwrap().0.dims.clear();
        self
    }

    /// Weights whose elements are not in the file.
    pub(super) fn weights(mut self, name: &str, dims: &[i64]) -> Build {
        self.graph.initializers.push(Initializer(TensorFields {
            name: name.into(),
            dims: dims.to_vec(),
            element: FLOAT,
            ..TensorFields::default()
        }));
        self
    }

    pub(super) fn scales(mut self, name: &str, values: &[f32]) -> Build {
        self = self.weights(name, &[i64::try_from(values.len()).unwrap()]);
        self.graph.initializers.last_mut().unwrap().0.floats = values.to_vec();
        self
    }

    pub(super) fn function(mut self, name: &str, inputs: &str, outputs: &str, nodes: Vec<Node>) -> Build {
        self.functions.push(Function {
            name: name.into(),
            domain: "own".into(),
            inputs: names(inputs),
            outputs: names(outputs),
            nodes,
            ..Function::default()
        });
        self
    }

    pub(super) fn node(self, line: &str) -> Build {
        self.with(line, [])
    }

    pub(super) fn with(mut self, line: &str, attributes: impl IntoIterator<Item = Attribute>) -> Build {
        self.graph.nodes.push(node(line, attributes));
        self
    }

    pub(super) fn output(mut self, name: &str) -> Build {
        self.graph.outputs.push(Value { name: name.into(), kind: None });
        self
    }

    /// What is found of the graph with the output `y`.
    pub(super) fn found(self) -> String {
        let build = if self.graph.outputs.is_empty() { self.output("y") } else { self };
        let opset = |domain: &str, version| Opset { domain: domain.into(), version };
        let file = ModelFile {
            graph: build.graph,
            ir_version: 8,
            opsets: vec![opset("", build.version), opset("ai.onnx.ml", 3), opset("own", 1)],
            functions: build.functions,
            bytes: FileBytes::from(Vec::new()),
            has_external_data: false,
        };
        match analyse(&file, &build.inputs) {
            Ok(RowIndependence::Proved) => "proved".into(),
            Ok(RowIndependence::Undecided { reason }) => format!("undecided: {reason}"),
            Ok(RowIndependence::Random { reason }) => format!("random: {reason}"),
            Err(reason) => format!("mixes: {reason}"),
        }
    }

    #[track_caller]
    pub(super) fn proved(self) {
        assert_eq!(self.found(), "proved");
    }

    /// `what` is how the text begins.
    #[track_caller]
    pub(super) fn is(self, what: &str) {
        let found = self.found();
        assert!(found.starts_with(what), "{found}");
    }

    #[track_caller]
    pub(super) fn mixes(self, reason: &str) {
        self.is(&format!("mixes: {reason}"));
    }

    #[track_caller]
    pub(super) fn undecided(self, reason: &str) {
        self.is(&format!("undecided: {reason}"));
    }
}
