//! Tree ensembles, computed as ONNX Runtime does. tract's own take the wrong label of two classes and search leaves one by one.

use std::collections::HashMap;

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::internal::{bail, format_err};

/// The trees of a `TreeEnsembleClassifier` or `TreeEnsembleRegressor`, and what becomes of their votes.
#[derive(Debug)]
pub(crate) struct Forest {
    /// The nodes of all trees; children are indices into this list.
    nodes: Vec<TreeNode>,
    /// Index of each tree's first node.
    roots: Vec<u32>,
    /// The votes of all leaves, those of one leaf side by side.
    votes: Vec<Vote>,
    /// Features that the trees look at.
    features: usize,
    /// Scores that the votes add up to.
    targets: usize,
    base: Vec<f32>,
    aggregate: Aggregate,
    finish: Finish,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    target: u32,
    weight: f32,
}

#[derive(Clone, Copy, Debug)]
enum TreeNode {
    Branch { feature: u32, mode: Mode, value: f32, nan_is_true: bool, yes: u32, no: u32 },
    Leaf { start: u32, end: u32 },
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    AtMost,
    Less,
    AtLeast,
    Greater,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// How votes become scores, and scores a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// Sums as they are; the class is the one with the highest sum that got a vote.
    Plain,
    Softmax,
    Logistic,
    /// Two classes, and the votes are the second one's probability.
    Complement,
    /// Two classes, and the votes are the logit of the second one's probability.
    Logit,
}

// === impl Forest ===

impl Forest {
    /// The forest of a node, of as many classes as given where it is a classifier.
    ///
    /// # Errors
    /// The attributes contradict each other, or ask for what is not supported here.
    pub(crate) fn parse(node: &NodeProto, classes: Option<usize>) -> TractResult<Forest> {
        let tensors = node.attribute.iter().find(|attribute| attribute.name.ends_with("_as_tensor"));
        if let Some(attribute) = tensors {
            bail!("attribute '{}' (64-bit trees) is not supported", attribute.name);
        }
        let prefix = if classes.is_some() { "class" } else { "target" };
        let targets = match classes {
            Some(classes) => classes,
            None => usize::try_from(node.get_attr::<i64>("n_targets")?)?,
        };
        let leaves = Leaves::parse(node, prefix, targets)?;
        let finish = finish(node, classes, &leaves)?;
        // With two classes and votes for one there is one sum.
        let targets = if matches!(finish, Finish::Complement | Finish::Logit) { 1 } else { targets };
        let base = floats(node, "base_values")?;
        if !base.is_empty() && base.len() != targets {
            bail!("{} base values for {targets} sums are not supported", base.len());
        }
        let aggregate = match node.get_attr_opt::<&str>("aggregate_function")?.unwrap_or("SUM") {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Minimum,
            "MAX" => Aggregate::Maximum,
            other => bail!("aggregate_function '{other}' is not supported"),
        };
        let mut forest = Forest {
            nodes: Vec::new(),
            roots: Vec::new(),
            votes: Vec::new(),
            features: 0,
            targets,
            base,
            aggregate,
            finish,
        };
        forest.add_nodes(node, &leaves)?;
        Ok(forest)
    }

    fn add_nodes(&mut self, node: &NodeProto, leaves: &Leaves) -> TractResult<()> {
        let trees = integers(node, "nodes_treeids")?;
        let count = trees.len();
        let ids = exactly(count, "nodes_nodeids", integers(node, "nodes_nodeids")?)?;
        let features = exactly(count, "nodes_featureids", integers(node, "nodes_featureids")?)?;
        let values = exactly(count, "nodes_values", floats(node, "nodes_values")?)?;
        let modes = exactly(count, "nodes_modes", node.get_attr_vec::<&str>("nodes_modes")?)?;
        let yes = exactly(count, "nodes_truenodeids", integers(node, "nodes_truenodeids")?)?;
        let no = exactly(count, "nodes_falsenodeids", integers(node, "nodes_falsenodeids")?)?;
        let nan = integers(node, "nodes_missing_value_tracks_true")?;

        let index: HashMap<(i64, i64), u32> = (0..count).map(|n| ((trees[n], ids[n]), n as u32)).collect();
        let child = |tree: i64, id: i64| {
            index.get(&(tree, id)).copied().ok_or_else(|| format_err!("tree {tree} has no node {id}"))
        };
        let mut is_child = vec![false; count];
        for n in 0..count {
            let mode = match modes[n] {
                "LEAF" => {
                    let votes = leaves.votes.get(&(trees[n], ids[n])).map_or(&[][..], Vec::as_slice);
                    let start = self.votes.len() as u32;
                    self.votes.extend(votes);
                    self.nodes.push(TreeNode::Leaf { start, end: self.votes.len() as u32 });
                    continue;
                }
                "BRANCH_LEQ" => Mode::AtMost,
                "BRANCH_LT" => Mode::Less,
                "BRANCH_GTE" => Mode::AtLeast,
                "BRANCH_GT" => Mode::Greater,
                "BRANCH_EQ" => Mode::Equal,
                "BRANCH_NEQ" => Mode::NotEqual,
                other => bail!("node mode '{other}' is not supported"),
            };
            let feature = u32::try_from(features[n])?;
            let (yes, no) = (child(trees[n], yes[n])?, child(trees[n], no[n])?);
            is_child[yes as usize] = true;
            is_child[no as usize] = true;
            self.features = self.features.max(feature as usize + 1);
            let nan_is_true = nan.get(n).is_some_and(|&flag| flag != 0);
            self.nodes.push(TreeNode::Branch { feature, mode, value: values[n], nan_is_true, yes, no });
        }
        self.roots = (0..count).filter(|&n| !is_child[n]).map(|n| n as u32).collect();
        Ok(())
    }

    /// Columns of the scores.
    pub(crate) fn columns(&self) -> usize {
        match self.finish {
            Finish::Complement | Finish::Logit => 2,
            _ => self.targets,
        }
    }

    /// The scores of every row of `inputs` (`[rows, width]`, row-major), and the index of its class.
    ///
    /// # Errors
    /// The rows have fewer features than the trees look at, or the trees go in circles.
    pub(crate) fn evaluate(&self, inputs: &[f32], width: usize) -> TractResult<(Vec<f32>, Vec<usize>)> {
        if width < self.features {
            bail!("rows of {width} features were given to trees that look at {}", self.features);
        }
        let mut scores = Vec::with_capacity(inputs.len() / width.max(1) * self.columns());
        let mut classes = Vec::with_capacity(inputs.len() / width.max(1));
        let mut sums = vec![None; self.targets];
        for row in inputs.chunks_exact(width.max(1)) {
            sums.fill(None);
            for &root in &self.roots {
                for vote in self.leaf(root, row)? {
                    let sum: &mut Option<f32> = &mut sums[vote.target as usize];
                    *sum = Some(match (*sum, self.aggregate) {
                        (None, _) => vote.weight,
                        (Some(sum), Aggregate::Sum | Aggregate::Average) => sum + vote.weight,
                        (Some(sum), Aggregate::Minimum) => sum.min(vote.weight),
                        (Some(sum), Aggregate::Maximum) => sum.max(vote.weight),
                    });
                }
            }
            if self.aggregate == Aggregate::Average {
                for sum in sums.iter_mut().flatten() {
                    *sum /= self.roots.len() as f32;
                }
            }
            for (sum, base) in sums.iter_mut().zip(&self.base) {
                *sum = Some(sum.unwrap_or(0.0) + base);
            }
            classes.push(self.finish_row(&sums, &mut scores));
        }
        Ok((scores, classes))
    }

    fn leaf(&self, root: u32, row: &[f32]) -> TractResult<&[Vote]> {
        let mut at = root;
        for _ in 0..self.nodes.len() {
            match self.nodes[at as usize] {
                TreeNode::Leaf { start, end } => return Ok(&self.votes[start as usize..end as usize]),
                TreeNode::Branch { feature, mode, value, nan_is_true, yes, no } => {
                    let feature = row[feature as usize];
                    let taken = mode.holds(feature, value) || (nan_is_true && feature.is_nan());
                    at = if taken { yes } else { no };
                }
            }
        }
        bail!("the trees go in circles")
    }

    /// Appends the row's scores and returns its class.
    fn finish_row(&self, sums: &[Option<f32>], scores: &mut Vec<f32>) -> usize {
        let first = sums.first().copied().flatten().unwrap_or(0.0);
        match self.finish {
            Finish::Complement => {
                scores.extend([1.0 - first, first]);
                return usize::from(first > 0.5);
            }
            Finish::Logit => {
                scores.extend([logistic(-first), logistic(first)]);
                return usize::from(first > 0.0);
            }
            Finish::Plain => scores.extend(sums.iter().map(|sum| sum.unwrap_or(0.0))),
            Finish::Logistic => scores.extend(sums.iter().map(|sum| logistic(sum.unwrap_or(0.0)))),
            Finish::Softmax => {
                let sums = sums.iter().map(|sum| sum.unwrap_or(0.0));
                let highest = sums.clone().fold(f32::NEG_INFINITY, f32::max);
                let total: f32 = sums.clone().map(|sum| (sum - highest).exp()).sum();
                scores.extend(sums.map(|sum| (sum - highest).exp() / total));
            }
        }
        let mut best: Option<(usize, f32)> = None;
        for (class, sum) in sums.iter().enumerate() {
            if let Some(sum) = *sum
                && best.is_none_or(|(_, highest)| sum > highest)
            {
                best = Some((class, sum));
            }
        }
        best.map_or(0, |(class, _)| class)
    }
}

fn finish(node: &NodeProto, classes: Option<usize>, leaves: &Leaves) -> TractResult<Finish> {
    let transform = node.get_attr_opt::<&str>("post_transform")?.unwrap_or("NONE");
    let finish = match (classes, transform) {
        (Some(2), _) => match (leaves.targets_voted_for, leaves.has_negative_weight, transform) {
            (1, false, "NONE") => Finish::Complement,
            (1, true, "LOGISTIC") => Finish::Logit,
            _ => bail!("two classes with such votes and post_transform '{transform}' are not supported"),
        },
        (_, "NONE") => Finish::Plain,
        (Some(_), "SOFTMAX") => Finish::Softmax,
        (Some(_), "LOGISTIC") => Finish::Logistic,
        _ => bail!("post_transform '{transform}' is not supported"),
    };
    Ok(finish)
}

/// The votes in a node's attributes.
struct Leaves {
    /// By tree and node.
    votes: HashMap<(i64, i64), Vec<Vote>>,
    targets_voted_for: usize,
    has_negative_weight: bool,
}

impl Leaves {
    fn parse(node: &NodeProto, prefix: &str, targets: usize) -> TractResult<Leaves> {
        let name = |suffix: &str| format!("{prefix}_{suffix}");
        let trees = integers(node, &name("treeids"))?;
        let nodes = exactly(trees.len(), "leaf nodes", integers(node, &name("nodeids"))?)?;
        let ids = exactly(trees.len(), "leaf targets", integers(node, &name("ids"))?)?;
        let weights = exactly(trees.len(), "leaf weights", floats(node, &name("weights"))?)?;
        let mut votes: HashMap<(i64, i64), Vec<Vote>> = HashMap::new();
        for (leaf, &tree) in trees.iter().enumerate() {
            let target = u32::try_from(ids[leaf])?;
            if target as usize >= targets {
                bail!("a leaf votes for {target} of {targets}");
            }
            votes.entry((tree, nodes[leaf])).or_default().push(Vote { target, weight: weights[leaf] });
        }
        let targets: std::collections::HashSet<i64> = ids.into_iter().collect();
        Ok(Leaves {
            votes,
            targets_voted_for: targets.len(),
            has_negative_weight: weights.iter().any(|&weight| weight < 0.0),
        })
    }
}

fn integers(node: &NodeProto, name: &str) -> TractResult<Vec<i64>> {
    Ok(node.get_attr_opt_slice::<i64>(name)?.unwrap_or_default().to_vec())
}

fn floats(node: &NodeProto, name: &str) -> TractResult<Vec<f32>> {
    Ok(node.get_attr_opt_slice::<f32>(name)?.unwrap_or_default().to_vec())
}

fn exactly<T>(count: usize, name: &str, list: Vec<T>) -> TractResult<Vec<T>> {
    if list.len() != count {
        bail!("{name}: expected {count} entries, got {}", list.len());
    }
    Ok(list)
}

fn logistic(value: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 { 1.0 - positive } else { positive }
}

// === impl Mode ===

impl Mode {
    fn holds(self, feature: f32, value: f32) -> bool {
        match self {
            Mode::AtMost => feature <= value,
            Mode::Less => feature < value,
            Mode::AtLeast => feature >= value,
            Mode::Greater => feature > value,
            Mode::Equal => feature == value,
            Mode::NotEqual => feature != value,
        }
    }
}
