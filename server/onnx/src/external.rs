//! Finds the files beside a model in which it keeps weights: all that it refers to, wherever in the graph.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use gristmill_engine::error::LoadError;

use crate::graph::{self, Attribute, Function, Graph, Node};
use crate::initializer::{EXTERNAL, Initializer};

/// The files that the ONNX model at `path` refers to, relative to its directory, each once and sorted.
///
/// # Errors
/// `path` is no ONNX model, or a file that it refers to is missing or outside its directory; the text
/// names the weights and the file.
pub fn external_data_files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let bytes = graph::read_bytes(path)?;
    let model = graph::decode(path, &bytes)?;
    locate(path, &model.graph.unwrap_or_default(), &model.functions)
}

/// The same for a model that was decoded before.
///
/// # Errors
/// A file is missing or outside the directory of `path`.
pub(crate) fn locate(path: &Path, graph: &Graph, functions: &[Function]) -> Result<Vec<PathBuf>, LoadError> {
    let directory = graph::model_directory(path);
    let mut files = BTreeSet::new();
    for tensor in tensors(graph, functions).into_iter().filter(|tensor| tensor.location == EXTERNAL) {
        let entry = tensor.external.iter().find(|entry| entry.key == "location");
        let Some(location) = entry.map(|entry| entry.value.as_str()) else { continue };
        let tensor = &tensor.name;
        let Some(file) = plain_path(location) else {
            return Err(LoadError::permanent(format!(
                "{} keeps the weights '{tensor}' in '{location}', which is outside the model's directory; \
                 put the data file beside the model",
                path.display()
            )));
        };
        if !files.insert(file.clone()) {
            continue;
        }
        let file = directory.join(file);
        if let Err(error) = std::fs::metadata(&file) {
            return Err(LoadError::transient(format!(
                "{} keeps the weights '{tensor}' in the file {}, which cannot be read: {error}; \
                 put the data file beside the model",
                path.display(),
                file.display()
            )));
        }
    }
    Ok(files.into_iter().collect())
}

/// `location` without `.` parts; `None` where it leads out of the directory.
fn plain_path(location: &str) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in Path::new(location).components() {
        match component {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

/// Every tensor that the file holds: initializers and constants, those of bodies and functions included.
fn tensors<'a>(graph: &'a Graph, functions: &'a [Function]) -> Vec<&'a Initializer> {
    let mut tensors = Vec::new();
    let mut graphs = vec![graph];
    let mut visit = |nodes: &'a [Node], graphs: &mut Vec<&'a Graph>| {
        for attribute in nodes.iter().flat_map(|node| &node.attributes) {
            let Attribute { tensor, tensors: listed, sparse_tensor, sparse_tensors, .. } = attribute;
            tensors.extend(tensor.iter().chain(listed));
            let sparse = sparse_tensor.iter().chain(sparse_tensors);
            tensors.extend(sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)));
            graphs.extend(attribute.graph.iter().chain(&attribute.graphs));
        }
    };
    for function in functions {
        visit(&function.nodes, &mut graphs);
    }
    let mut initializers = Vec::new();
    while let Some(graph) = graphs.pop() {
        initializers.extend(&graph.initializers);
        let sparse = graph.sparse_initializers.iter();
        initializers.extend(sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)));
        visit(&graph.nodes, &mut graphs);
    }
    tensors.extend(initializers);
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Model, SparseTensor};
    use crate::initializer::{ExternalEntry, TensorFields};
    use prost::Message as _;

    fn outside(location: &str) -> Initializer {
        let entry = ExternalEntry { key: "location".into(), value: location.into() };
        Initializer(TensorFields {
            name: "w".into(),
            external: vec![entry],
            location: EXTERNAL,
            ..TensorFields::default()
        })
    }

    fn node(attribute: Attribute) -> Node {
        Node { attributes: vec![attribute], ..Node::default() }
    }

    fn files_of(model: &Model, present: &[&str]) -> Result<Vec<PathBuf>, String> {
        let directory = tempfile::tempdir().unwrap();
        for file in present {
            let file = directory.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, b"").unwrap();
        }
        let path = directory.path().join("model.onnx");
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        let root = directory.path().to_str().unwrap();
        external_data_files(&path).map_err(|error| error.to_string().replace(root, "DIR"))
    }

    fn with_weights(location: &str) -> Model {
        let graph = Graph { initializers: vec![outside(location)], ..Graph::default() };
        Model { ir_version: 8, graph: Some(graph), ..Model::default() }
    }

    #[test]
    fn every_place_in_a_model_can_hold_a_reference() {
        let sparse = |name: &str| SparseTensor { values: Some(outside(name)), indices: Some(outside("b")) };
        let body = Graph { initializers: vec![outside("sub/d")], ..Graph::default() };
        let deeper = Graph {
            nodes: vec![node(Attribute { graph: Some(body), ..Attribute::default() })],
            ..Graph::default()
        };
        let attributes = [
            Attribute { tensor: Some(outside("c")), ..Attribute::default() },
            Attribute { graphs: vec![deeper], ..Attribute::default() },
            Attribute { tensors: vec![outside("./e")], ..Attribute::default() },
            Attribute { sparse_tensor: Some(sparse("f")), ..Attribute::default() },
            Attribute { sparse_tensors: vec![sparse("g")], ..Attribute::default() },
        ];
        let mut model = with_weights("h");
        let graph = model.graph.as_mut().unwrap();
        graph.nodes = attributes.map(node).to_vec();
        graph.sparse_initializers = vec![sparse("i")];
        let constant = node(Attribute { tensor: Some(outside("j")), ..Attribute::default() });
        model.functions = vec![Function { nodes: vec![constant], ..Function::default() }];
        let all = ["b", "c", "e", "f", "g", "h", "i", "j", "sub/d"];
        assert_eq!(files_of(&model, &all), Ok(all.map(PathBuf::from).to_vec()));
    }

    #[test]
    fn a_tensor_that_holds_its_elements_refers_to_no_file() {
        let mut model = with_weights("left-over");
        model.graph.as_mut().unwrap().initializers[0].0.location = 0;
        assert_eq!(files_of(&model, &[]), Ok(vec![]));
    }

    #[test]
    fn files_outside_and_missing_files_are_refused() {
        for location in ["../w", "/w", "a/../../w", "", "."] {
            let error = files_of(&with_weights(location), &["w"]).unwrap_err();
            assert!(error.contains("which is outside the model's directory"), "{location}: {error}");
        }
        let error = files_of(&with_weights("w"), &[]).unwrap_err();
        assert!(
            error.starts_with("DIR/model.onnx keeps the weights 'w' in the file DIR/w, which"),
            "{error}"
        );
    }
}
