//! Which operators are known, and which family each belongs to.

mod classical;
mod elementwise;
mod generation;
mod layout;
mod products;
mod recurrent;
mod reductions;
mod scaled;
mod selection;
mod windows;

use super::call::{Call, Outcome};
use super::size::Unknowns;

/// What an operator does to rows.
pub(super) type Transfer = fn(&Call<'_, '_>, &mut Unknowns) -> Outcome;

pub(super) struct Operator {
    pub(super) transfer: Transfer,
    /// Whether it can be told what it does to tensors that depend on the number of rows.
    pub(super) follows_counts: bool,
}

/// The operator of that name, in the standard domain (an empty name) or another.
pub(super) fn find(domain: &str, operator: &str) -> Option<Operator> {
    let counting = counting(operator).filter(|_| domain.is_empty());
    if let Some(transfer) = counting {
        return Some(Operator { transfer, follows_counts: true });
    }
    let transfer = match domain {
        "" => standard(operator),
        "ai.onnx.ml" => machine_learning(operator),
        "com.microsoft" => microsoft(operator),
        _ => None,
    };
    transfer.map(|transfer| Operator { transfer, follows_counts: false })
}

/// Operators that compute with sizes.
fn counting(operator: &str) -> Option<Transfer> {
    Some(match operator {
        "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max"
        | "Min" | "Mod" | "Mul" | "Or" | "Sub" | "Where" => elementwise::nary,
        "Identity" => elementwise::identity,
        "Cast" => elementwise::cast,
        "Neg" | "Not" => elementwise::negation,
        "Abs" | "Ceil" | "Floor" | "Round" | "Sqrt" => elementwise::unary,
        "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceSum" => reductions::reduce,
        "Shape" => layout::shape,
        "Size" => layout::size,
        "Transpose" => layout::transpose,
        "Flatten" => layout::flatten,
        "Reshape" => layout::reshape,
        "Squeeze" => layout::squeeze,
        "Unsqueeze" => layout::unsqueeze,
        "Expand" => layout::expand,
        "Tile" => selection::tile,
        "Concat" => selection::concat,
        "Split" => selection::split,
        "Slice" => selection::slice,
        "Pad" => selection::pad,
        "Gather" => selection::gather,
        "Constant" => generation::constant,
        "ConstantOfShape" => generation::constant_of_shape,
        "Range" => generation::range,
        "Resize" | "Upsample" => windows::resize,
        _ => return None,
    })
}

fn standard(operator: &str) -> Option<Transfer> {
    Some(match operator {
        "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "CastLike" | "Celu"
        | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Gelu" | "HardSigmoid" | "HardSwish" | "IsInf"
        | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Reciprocal" | "RegexFullMatch" | "Relu" | "Selu"
        | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign" | "Swish" | "Tan"
        | "Tanh" | "ThresholdedRelu" => elementwise::unary,
        "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Clip" | "Mean" | "PRelu" | "Pow"
        | "StringConcat" | "Sum" | "Xor" => elementwise::nary,
        "Dropout" => elementwise::dropout,
        "MatMul" => products::matmul,
        "MatMulInteger" => products::matmul_integer,
        "QLinearMatMul" => products::qlinear_matmul,
        "Gemm" => products::gemm,
        "Einsum" => products::einsum,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMean" | "ReduceSumSquare" => {
            reductions::reduce
        }
        "ArgMax" | "ArgMin" => reductions::extreme_index,
        "Softmax" | "LogSoftmax" | "Hardmax" => reductions::softmax,
        "LpNormalization" => reductions::along,
        "CumSum" => reductions::running,
        "TopK" => reductions::top,
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => reductions::layer,
        "InstanceNormalization" | "GroupNormalization" | "LRN" => reductions::by_row,
        "BatchNormalization" => reductions::batch_normalization,
        "MeanVarianceNormalization" => reductions::mean_variance,
        "Conv" | "ConvInteger" | "ConvTranspose" | "QLinearConv" => windows::convolution,
        "AveragePool" | "LpPool" | "MaxPool" => windows::pool,
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => windows::global_pool,
        "Col2Im" => windows::columns_to_image,
        "DepthToSpace" | "SpaceToDepth" => windows::within_image,
        "DeformConv" | "GridSample" => windows::sampled,
        "GatherElements" => selection::gather_elements,
        "GatherND" => selection::gather_nd,
        "Scatter" | "ScatterElements" => selection::scatter_elements,
        "ScatterND" => selection::scatter_nd,
        "Compress" => selection::compress,
        "OneHot" => generation::one_hot,
        "EyeLike" => generation::eye,
        "Det" | "Trilu" => generation::matrices,
        "Bernoulli" | "Multinomial" | "RandomNormal" | "RandomNormalLike" | "RandomUniform"
        | "RandomUniformLike" => generation::random,
        "NonZero" | "NonMaxSuppression" | "Unique" => generation::shaped_by_values,
        "StringSplit" => generation::padded,
        "GRU" | "LSTM" | "RNN" => recurrent::recurrent,
        "ReverseSequence" => recurrent::reverse_sequence,
        "QuantizeLinear" | "DequantizeLinear" => scaled::quantize,
        "DynamicQuantizeLinear" => scaled::dynamic_quantize,
        "TfIdfVectorizer" => classical::tf_idf,
        "StringNormalizer" => classical::string_normalizer,
        _ => return None,
    })
}

fn machine_learning(operator: &str) -> Option<Transfer> {
    Some(match operator {
        "TreeEnsembleClassifier" | "LinearClassifier" | "SVMClassifier" => classical::classifier,
        "TreeEnsembleRegressor" | "TreeEnsemble" | "LinearRegressor" | "SVMRegressor" => classical::regressor,
        "Scaler" | "Imputer" | "Normalizer" => classical::features,
        "FeatureVectorizer" => classical::feature_vectorizer,
        "Binarizer" | "CategoryMapper" | "LabelEncoder" => elementwise::unary,
        "OneHotEncoder" => classical::one_hot_encoder,
        "ArrayFeatureExtractor" => classical::array_feature_extractor,
        _ => return None,
    })
}

fn microsoft(operator: &str) -> Option<Transfer> {
    Some(match operator {
        "Gelu" | "QuickGelu" => elementwise::unary,
        "BiasGelu" | "FastGelu" => elementwise::nary,
        "FusedMatMul" => products::fused_matmul,
        "FusedGemm" => products::gemm,
        "FusedConv" => windows::convolution,
        "QuantizeLinear" | "DequantizeLinear" => scaled::quantize,
        "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" => scaled::dynamic_quantize,
        _ => return None,
    })
}
