//! Text class labels for tract, which computes only with labels that are numbers: classifiers are made to give the label's index, and outputs are looked up.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, attribute_proto::AttributeType};

const TEXTS: &str = "classlabels_strings";

/// Makes every classifier whose text label goes straight to outputs of the model give the label's
/// index, and returns the labels by output name.
pub(crate) fn number(graph: &mut GraphProto) -> HashMap<String, Vec<String>> {
    let mut labels = HashMap::new();
    let mut renumbered = HashSet::new();
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        let numbers = match node.op_type.as_str() {
            "TreeEnsembleClassifier" => "classlabels_int64s",
            "LinearClassifier" => "classlabels_ints",
            _ => continue,
        };
        let Some(texts) = texts(node) else { continue };
        let Some(reached) = node.output.first().and_then(|label| outputs_reached(graph, label)) else {
            continue;
        };
        let indices = AttributeProto {
            name: numbers.to_owned(),
            r#type: AttributeType::Ints as i32,
            ints: (0..texts.len() as i64).collect(),
            ..AttributeProto::default()
        };
        let attributes = &mut graph.node[index].attribute;
        attributes.retain(|attribute| attribute.name != TEXTS && attribute.name != numbers);
        attributes.push(indices);
        for output in graph.output.iter().filter(|output| reached.contains(&output.name)) {
            labels.insert(output.name.clone(), texts.clone());
        }
        renumbered.extend(reached);
    }
    // What the file says of these tensors' types holds no more.
    graph.value_info.retain(|value| !renumbered.contains(&value.name));
    labels
}

fn texts(node: &NodeProto) -> Option<Vec<String>> {
    let attribute = node.attribute.iter().find(|attribute| attribute.name == TEXTS)?;
    let texts = attribute.strings.iter().map(|text| String::from_utf8_lossy(text).into_owned());
    Some(texts.collect::<Vec<_>>()).filter(|texts| !texts.is_empty())
}

/// The tensors that carry `label` unchanged, or `None` where something else computes with one of them.
fn outputs_reached(graph: &GraphProto, label: &str) -> Option<HashSet<String>> {
    let mut reached = HashSet::from([label.to_owned()]);
    let mut waiting = vec![label.to_owned()];
    while let Some(tensor) = waiting.pop() {
        for node in graph.node.iter().filter(|node| node.input.contains(&tensor)) {
            if node.op_type != "Identity" {
                return None;
            }
            for output in &node.output {
                if reached.insert(output.clone()) {
                    waiting.push(output.clone());
                }
            }
        }
    }
    Some(reached)
}
