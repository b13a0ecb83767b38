//! Operators of ONNX ML that scikit-learn's converter writes and tract lacks or computes otherwise than ONNX Runtime.

use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::math::{mul, sub};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

use super::forest::Forest;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// tract's reader of ONNX files, with the operators of this file.
pub(crate) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    onnx.op_register.insert("TreeEnsembleClassifier", tree_ensemble_classifier);
    onnx.op_register.insert("TreeEnsembleRegressor", tree_ensemble_regressor);
    onnx.op_register.insert("Scaler", scaler);
    onnx.op_register.insert("FeatureVectorizer", feature_vectorizer);
    onnx
}

/// A forest as an operator: scores, and before them a label where it is a classifier.
#[derive(Clone, Debug)]
struct Trees {
    forest: Arc<Forest>,
    labels: Option<Vec<i64>>,
}

/// `(x - offset) * scale`, as FP32.
#[derive(Clone, Debug)]
struct Scaler {
    offset: Arc<Tensor>,
    scale: Arc<Tensor>,
}

/// Columns side by side, as FP32.
#[derive(Clone, Debug)]
struct FeatureVectorizer {
    widths: Vec<usize>,
}

fn tree_ensemble_classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let Some(labels) = node.get_attr_opt_slice::<i64>("classlabels_int64s")? else {
        bail!("labels that are texts must go straight to an output of the model");
    };
    let forest = Arc::new(Forest::parse(node, Some(labels.len()))?);
    Ok((expand(Trees { forest, labels: Some(labels.to_vec()) }), vec![]))
}

fn tree_ensemble_regressor(_: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(Trees { forest: Arc::new(Forest::parse(node, None)?), labels: None }), vec![]))
}

fn scaler(_: &ParsingContext, node: &NodeProto) -> Built {
    let list = |name: &str| Ok::<_, TractError>(rctensor1(node.get_attr_slice::<f32>(name)?));
    Ok((expand(Scaler { offset: list("offset")?, scale: list("scale")? }), vec![]))
}

fn feature_vectorizer(_: &ParsingContext, node: &NodeProto) -> Built {
    let widths = node.get_attr_opt_slice::<i64>("inputdimensions")?.unwrap_or_default();
    let widths = widths.iter().map(|&width| usize::try_from(width)).collect::<Result<_, _>>()?;
    Ok((expand(FeatureVectorizer { widths }), vec![]))
}

fn as_fp32(prefix: &str, model: &mut TypedModel, input: OutletId) -> TractResult<OutletId> {
    Ok(model.wire_node(prefix, cast(f32::datum_type()), &[input])?[0])
}

// === impl Trees ===

/// One forest is equal to itself alone; tract asks only to merge nodes that are the same.
impl PartialEq for Trees {
    fn eq(&self, other: &Trees) -> bool {
        Arc::ptr_eq(&self.forest, &other.forest)
    }
}

impl Eq for Trees {}

impl Expansion for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(if self.labels.is_some() { 2 } else { 1 })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, self.nboutputs()?)?;
        solver.equals(&inputs[0].rank, 2)?;
        let scores = &outputs[outputs.len() - 1];
        solver.equals(&scores.datum_type, f32::datum_type())?;
        solver.equals(&scores.rank, 2)?;
        solver.equals(&scores.shape[0], &inputs[0].shape[0])?;
        solver.equals(&scores.shape[1], self.forest.columns().to_dim())?;
        if self.labels.is_some() {
            solver.equals(&outputs[0].datum_type, i64::datum_type())?;
            solver.equals(&outputs[0].rank, 1)?;
            solver.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let features = as_fp32(&format!("{prefix}.features"), model, inputs[0])?;
        model.wire_node(prefix, self.clone(), &[features])
    }
}

impl Op for Trees {
    fn name(&self) -> StaticName {
        Expansion::name(self)
    }

    op_as_typed_op!();
}

impl EvalOp for Trees {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let &[rows, width] = input.shape() else {
            bail!("rows of features expected, got {:?}", input.shape())
        };
        let features = input.try_as_plain_ram()?;
        let (scores, classes) = self.forest.evaluate(features.as_slice::<f32>()?, width)?;
        let scores = tensor1(&scores).into_shape(&[rows, self.forest.columns()])?.into_tvalue();
        let Some(labels) = &self.labels else { return Ok(tvec!(scores)) };
        let labels: Vec<i64> = classes.into_iter().map(|class| labels[class]).collect();
        Ok(tvec!(tensor1(&labels).into_tvalue(), scores))
    }
}

impl TypedOp for Trees {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = &inputs[0].shape[0];
        let scores = f32::fact(&[rows.clone(), self.forest.columns().to_dim()]);
        Ok(match self.labels {
            Some(_) => tvec!(i64::fact(std::slice::from_ref(rows)), scores),
            None => tvec!(scores),
        })
    }

    as_op!();
}

// === impl Scaler ===

impl Expansion for Scaler {
    fn name(&self) -> StaticName {
        "Scaler".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let x = as_fp32(&format!("{prefix}.fp32"), model, inputs[0])?;
        let offset = model.add_const(format!("{prefix}.offset"), self.offset.clone())?;
        let scale = model.add_const(format!("{prefix}.scale"), self.scale.clone())?;
        let centred = wire_with_rank_broadcast(format!("{prefix}.centred"), model, sub(), &[x, offset])?[0];
        wire_with_rank_broadcast(format!("{prefix}.scaled"), model, mul(), &[centred, scale])
    }
}

// === impl FeatureVectorizer ===

impl Expansion for FeatureVectorizer {
    fn name(&self) -> StaticName {
        "FeatureVectorizer".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].rank, 2)?;
        for (input, width) in inputs.iter().zip(&self.widths) {
            solver.equals(&input.rank, 2)?;
            solver.equals(&input.shape[0], &outputs[0].shape[0])?;
            solver.equals(&input.shape[1], width.to_dim())?;
        }
        solver.equals(&outputs[0].shape[1], self.widths.iter().sum::<usize>().to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let columns = inputs
            .iter()
            .enumerate()
            .map(|(index, &input)| as_fp32(&format!("{prefix}.fp32-{index}"), model, input))
            .collect::<TractResult<TVec<_>>>()?;
        model.wire_node(prefix, TypedConcat::new(1), &columns)
    }
}
