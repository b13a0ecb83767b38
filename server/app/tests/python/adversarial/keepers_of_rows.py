"""Models that keep rows apart: pipelines of tables, networks of pictures, text, and operators along other axes."""

import numpy as np

from .case import anything, floats, integers, keeper

X = "float[N,4] x -> float[N,4] y"
PICTURE = "float[N,2,4,4] x -> float[N,2,4,4] y"


def softmax(x, axis=-1):
    raised = np.exp(x - x.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def wave(*shape, scale=1.0):
    """Weights that are the same every time, and no two rows of them alike."""
    return np.round(scale * np.sin(1 + 3 * np.arange(np.prod(shape))), 4).reshape(shape)


def weight(name, value):
    shape = ",".join(map(str, value.shape))
    return f"float[{shape}] {name} = {{{', '.join(map(str, value.ravel()))}}}"


# === Pipelines of tables ===

COEFFICIENTS = wave(3, 4)
keeper(
    "linear_regressor", "ai.onnx.ml's LinearRegressor", "float[N,4] x -> float[N,1] y",
    "y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, -2.0, 0.5, 0.25], intercepts = [0.5]> (x)",
    lambda x: (x @ np.array([1, -2, 0.5, 0.25]) + 0.5)[:, None],
)
keeper(
    "scaler_and_classifier", "Scaler, LinearClassifier and its labels", "float[N,4] x -> int64[N] label, float[N,3] p",
    f"""s = ai.onnx.ml.Scaler <offset = [1.0, 0.0, -1.0, 0.5], scale = [1.0, 2.0, 0.5, 1.0]> (x)
    label, p = ai.onnx.ml.LinearClassifier <classlabels_ints = [5, 7, 9], post_transform = "SOFTMAX",
    coefficients = [{", ".join(map(str, COEFFICIENTS.ravel()))}], intercepts = [0.1, 0.2, 0.3]> (s)""",
    lambda x: classified((x - [1, 0, -1, 0.5]) * [1, 2, 0.5, 1] @ COEFFICIENTS.T + [0.1, 0.2, 0.3]),
)


def classified(scores):
    return np.array([5, 7, 9])[scores.argmax(1)], softmax(scores)


TREE = """n_targets = 1, nodes_treeids = [0, 0, 0, 0, 0], nodes_nodeids = [0, 1, 2, 3, 4],
    nodes_featureids = [0, 2, 0, 0, 0], nodes_values = [0.5, -0.25, 0.0, 0.0, 0.0],
    nodes_modes = ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
    nodes_truenodeids = [1, 2, 0, 0, 0], nodes_falsenodeids = [4, 3, 0, 0, 0],
    target_treeids = [0, 0, 0], target_nodeids = [2, 3, 4], target_ids = [0, 0, 0], target_weights = [1.0, 2.0, 3.0]"""
keeper(
    "tree_regressor", "ai.onnx.ml's TreeEnsembleRegressor", "float[N,4] x -> float[N,1] y",
    f"y = ai.onnx.ml.TreeEnsembleRegressor <{TREE}> (x)",
    lambda x: np.where(x[:, 0] <= 0.5, np.where(x[:, 2] <= -0.25, 1.0, 2.0), 3.0)[:, None],
)
TREE_CLASSES = """classlabels_int64s = [3, 8, 9], nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2],
    nodes_featureids = [1, 0, 0], nodes_values = [0.0, 0.0, 0.0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0], class_treeids = [0, 0, 0, 0, 0, 0],
    class_nodeids = [1, 1, 1, 2, 2, 2], class_ids = [0, 1, 2, 0, 1, 2], class_weights = [0.8, 0.1, 0.1, 0.2, 0.7, 0.1]"""
keeper(
    "tree_classifier", "ai.onnx.ml's TreeEnsembleClassifier", "float[N,4] x -> int64[N] label, float[N,3] p",
    f"label, p = ai.onnx.ml.TreeEnsembleClassifier <{TREE_CLASSES}> (x)",
    lambda x: (np.where(x[:, 1] <= 0, 3, 8), np.where(x[:, 1:2] <= 0, [[0.8, 0.1, 0.1]], [[0.2, 0.7, 0.1]])),
)
keeper(
    "support_vectors", "ai.onnx.ml's SVMRegressor", "float[N,4] x -> float[N,1] y",
    """y = ai.onnx.ml.SVMRegressor <kernel_type = "RBF", kernel_params = [0.5, 0.0, 3.0], n_supports = 2, rho = [0.25],
    coefficients = [1.5, -2.0], support_vectors = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, -1.0, 0.5]> (x)""",
    lambda x: (np.exp(-0.5 * ((x[:, None] - SUPPORTS) ** 2).sum(2)) @ [1.5, -2.0] + 0.25)[:, None],
)
SUPPORTS = np.array([[0, 1, 0, 1], [1, 0, -1, 0.5]])
keeper(
    "imputer_and_normalizer", "Imputer, and Normalizer which works by row", X,
    """i = ai.onnx.ml.Imputer <imputed_value_floats = [1.0, 2.0, 3.0, 4.0], replaced_value_float = -1.0> (x)
    y = ai.onnx.ml.Normalizer <norm = "L1"> (i)""",
    lambda x: normalized(np.where(x == -1, [1, 2, 3, 4], x)),
    given={"x": lambda generator, rows: generator.choice(np.float32([-1, 2, 3.5, 7]), (rows, 4))},
)


def normalized(x):
    return x / np.abs(x).sum(1, keepdims=True)


keeper(
    "binarizer_of_features", "Binarizer and FeatureVectorizer of two inputs", "float[N,2] a, float[N,3] b -> float[N,5] y",
    """c = ai.onnx.ml.Binarizer <threshold = 0.5> (a) y = ai.onnx.ml.FeatureVectorizer <inputdimensions = [2, 3]> (c, b)""",
    lambda a, b: np.hstack([(a > 0.5).astype(np.float32), b]),
)
KEYS = ["ash", "fir", "lime tree"]
keeper(
    "label_encoder", "LabelEncoder of strings", "string[N,2] x -> int64[N,2] y",
    """y = ai.onnx.ml.LabelEncoder <keys_strings = ["ash", "fir", "lime tree"], values_int64s = [4, 5, 6], default_int64 = -3> (x)""",
    lambda x: np.array([[4 + KEYS.index(t) if t in KEYS else -3 for t in row] for row in x]),
)
keeper(
    "one_hot_encoder", "ai.onnx.ml's OneHotEncoder of strings", "string[N,1] x -> float[N,1,3] y",
    """y = ai.onnx.ml.OneHotEncoder <cats_strings = ["ash", "fir", "lime tree"], zeros = 1> (x)""",
    lambda x: np.array([[[float(t == key) for key in KEYS] for t in row] for row in x]),
)
keeper(
    "columns_of_features", "ArrayFeatureExtractor along the last axis", "float[N,4] x -> float[N,2] y",
    "y = ai.onnx.ml.ArrayFeatureExtractor(x, $i(3,1))",
    lambda x: x[:, [3, 1]],
)

# === Dense networks ===

A, B = wave(4, 6), wave(6, 3)
keeper(
    "perceptron_by_gemm", "Gemm, Relu, Gemm, Softmax", "float[N,4] x -> float[N,3] y",
    "h = Gemm(x, a, $f(0.1,0.2,0.3,0.4,0.5,0.6)) r = Relu(h) g = Gemm(r, b) y = Softmax(g)",
    lambda x: softmax(np.maximum(x @ A + np.arange(1, 7) / 10, 0) @ B),
    weights=f"{weight('a', A)}, {weight('b', B)}",
)
keeper(
    "transposed_weights_first", "MatMul of weights with the transposed rows, and back", "float[N,4] x -> float[N,6] y",
    "t = Transpose <perm = [1, 0]> (x) u = Transpose <perm = [1, 0]> (a) m = MatMul(u, t) y = Transpose <perm = [1, 0]> (m)",
    lambda x: x @ A,
    weights=weight("a", A),
)
keeper(
    "gelu_of_tanh", "an activation written out", X,
    """p = Pow(x, $fs(3)) q = Mul(p, $fs(0.044715)) s = Add(x, q) m = Mul(s, $fs(0.7978845608)) t = Tanh(m)
    o = Add(t, $fs(1)) h = Mul(x, $fs(0.5)) y = Mul(h, o)""",
    lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
)
keeper(
    "where_and_clip", "Where, Clip, Min and Max by element", "float[N,4] a, float[N,4] b -> float[N,4] y",
    "g = Greater(a, b) w = Where(g, a, b) c = Clip(w, $fs(-1), $fs(2)) m = Min(c, a) y = Max(m, b, $f(0.5))",
    lambda a, b: np.maximum(np.maximum(np.minimum(np.clip(np.where(a > b, a, b), -1, 2), a), b), 0.5),
)
keeper(
    "integers_and_bits", "integer division, remainder, shift and bits by element", "int64[N,3] x -> int64[N,3] y",
    "d = Div(x, $is(3)) m = Mod(x, $is(5)) b = BitwiseXor(d, m) y = Mul(b, x)",
    lambda x: ((x // 3) ^ (x % 5)) * x,
    given={"x": integers(0, 1000, 3)},
)
keeper(
    "doubles_and_casts", "FP64 with Cast, CastLike and Mod", "double[N,3] x, int64[N,3] n -> double[N,3] y",
    "f = CastLike(n, x) s = Add(x, f) r = Floor(s) y = Sub(s, r)",
    lambda x, n: (x + n) - np.floor(x + n),
)
keeper(
    "quantized_by_constants", "QuantizeLinear and DequantizeLinear with constant scales", X,
    "q = QuantizeLinear(x, $fs(0.05), z) y = DequantizeLinear(q, $fs(0.05), z)",
    lambda x: ((np.clip(np.rint(x / np.float32(0.05)) + 128, 0, 255) - 128) * 0.05).astype(np.float32),
    weights="uint8 z = {128}",
    given={"x": lambda generator, rows: (generator.integers(-150, 150, (rows, 4)) * 0.05 + 0.01).astype(np.float32)},
)
keeper(
    "integer_product", "MatMulInteger with constant weights and zero points", "uint8[N,3] x -> int32[N,2] y",
    "y = MatMulInteger(x, w, z, v)",
    lambda x: (x.astype(np.int32) - 3) @ (np.array([[1, 2], [3, 4], [5, 6]], np.int32) - 1),
    weights="uint8[3,2] w = {1, 2, 3, 4, 5, 6}, uint8 z = {3}, uint8 v = {1}",
)

# === Pictures ===

K = wave(3, 2, 3, 3)


def convolved(x, kernel, groups=1):
    """A 3 × 3 convolution with a border of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    per_group = kernel.shape[1]
    result = []
    for number, filters in enumerate(kernel):
        group = number // (len(kernel) // groups)
        planes = padded[:, group * per_group : (group + 1) * per_group]
        result.append(sum(
            planes[:, :, i : i + height, j : j + width] * filters[:, i : i + 1, j : j + 1]
            for i in range(3) for j in range(3)
        ).sum(1))
    return np.stack(result, 1)


keeper(
    "convolutional_network", "Conv, BatchNormalization, Relu, GlobalAveragePool, Flatten, Gemm",
    "float[N,2,4,4] x -> float[N,2] y",
    """c = Conv <pads = [1, 1, 1, 1]> (x, k)
    b = BatchNormalization(c, $f(1,2,3), $f(0.5,0,-0.5), $f(0.1,0.2,0.3), $f(1,2,4)) r = Relu(b)
    g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, w)""",
    lambda x: pooled(convolved(x, K)) @ A[:3, :2],
    weights=f"{weight('k', K)}, {weight('w', A[:3, :2])}",
)


def pooled(c):
    shift, mean, variance = (np.array(v).reshape(3, 1, 1) for v in ([0.5, 0, -0.5], [0.1, 0.2, 0.3], [1, 2, 4]))
    scaled = (c - mean) / np.sqrt(variance + 1e-5) * np.array([1, 2, 3]).reshape(3, 1, 1) + shift
    return np.maximum(scaled, 0).mean((2, 3))


keeper(
    "separable_convolution", "a Conv by channel, and one of 1 × 1", "float[N,2,4,4] x -> float[N,3,4,4] y",
    "d = Conv <pads = [1, 1, 1, 1], group = 2> (x, k) y = Conv(d, p)",
    lambda x: np.einsum("nchw,oc->nohw", convolved(x, K[:2, :1], groups=2), A[:3, :2]),
    weights=f"{weight('k', K[:2, :1])}, {weight('p', A[:3, :2].reshape(3, 2, 1, 1))}",
)
keeper(
    "transposed_convolution", "ConvTranspose with a stride as large as its kernel", "float[N,2,2,2] x -> float[N,1,4,4] y",
    "y = ConvTranspose <strides = [2, 2]> (x, k)",
    lambda x: np.einsum("nchw,cij->nhiwj", x, K[:2, 0, :2, :2]).reshape(len(x), 1, 4, 4),
    weights=weight("k", K[:2, :1, :2, :2]),
)
keeper(
    "pooled_twice", "MaxPool and AveragePool over pictures", "float[N,2,4,4] x -> float[N,2,1,1] y",
    "m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) y = AveragePool <kernel_shape = [2, 2]> (m)",
    lambda x: x.reshape(len(x), 2, 2, 2, 2, 2).max((3, 5)).mean((2, 3)).reshape(len(x), 2, 1, 1),
)
keeper(
    "instance_norm", "InstanceNormalization of each picture's channels", PICTURE,
    "y = InstanceNormalization(x, $f(1,2), $f(0,1))",
    lambda x: (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
    * np.array([1, 2]).reshape(2, 1, 1) + np.array([0, 1]).reshape(2, 1, 1),
)
keeper(
    "group_norm", "GroupNormalization of each picture", PICTURE,
    "y = GroupNormalization <num_groups = 1> (x, $f(1,2), $f(0,1))",
    lambda x: (x - x.mean((1, 2, 3), keepdims=True)) / np.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-5)
    * np.array([1, 2]).reshape(2, 1, 1) + np.array([0, 1]).reshape(2, 1, 1),
    opset=21,
)
keeper(
    "local_response", "LRN over channels", PICTURE,
    "y = LRN <size = 3, alpha = 3.0, beta = 0.5, bias = 1.0> (x)",
    lambda x: x / np.sqrt(1 + (x * x).sum(1, keepdims=True)),
)
keeper(
    "mean_variance_of_each_picture", "MeanVarianceNormalization over axes 2 and 3", PICTURE,
    "y = MeanVarianceNormalization <axes = [2, 3]> (x)",
    lambda x: (x - x.mean((2, 3), keepdims=True)) / x.std((2, 3), keepdims=True),
)
keeper(
    "depth_to_space", "DepthToSpace, and Pad around each picture", "float[N,4,2,2] x -> float[N,1,6,6] y",
    "d = DepthToSpace <blocksize = 2> (x) y = Pad(d, $i(0,0,1,1,0,0,1,1))",
    lambda x: np.pad(
        x.reshape(-1, 2, 2, 1, 2, 2).transpose(0, 3, 4, 1, 5, 2).reshape(-1, 1, 4, 4), ((0, 0), (0, 0), (1, 1), (1, 1))
    ),
)
keeper(
    "resized_pictures", "Resize of height and width by a factor", "float[N,1,2,2] x -> float[N,1,4,4] y",
    """y = Resize <mode = "nearest"> (x, , $f(1,1,2,2))""",
    lambda x: x.repeat(2, 2).repeat(2, 3),
)
keeper(
    "resized_to_a_computed_size", "Resize to sizes of which the first is the Shape's", "float[N,1,2,2] x -> float[N,1,4,6] y",
    """n = Shape <start = 0, end = 2> (x) s = Concat <axis = 0> (n, $i(4,6)) y = Resize <mode = "nearest"> (x, , , s)""",
    lambda x: x.repeat(2, 2).repeat(3, 3),
)
keeper(
    "sampled_by_a_grid", "GridSample, each picture by its own grid", "float[N,1,2,2] x, float[N,1,3,2] grid -> float[N,1,1,3] y",
    """y = GridSample <mode = "nearest", align_corners = 1> (x, grid)""",
    lambda x, grid: np.array([
        [[[picture[0, int(v > 0), int(u > 0)] for u, v in points[0]]]] for picture, points in zip(x, grid)
    ]),
    given={"grid": floats(-0.9, 0.9, 1, 3, 2)},
    opset=20,
)
keeper(
    "determinants", "Det of each row's own matrix", "float[N,3,3] x -> float[N] y",
    "y = Det(x)",
    lambda x: np.linalg.det(x.astype(np.float64)),
)

# === Texts ===

keeper(
    "suffixed_strings", "StringConcat with a constant", "string[N,2] x -> string[N,2] y",
    "y = StringConcat(x, $t(-end))",
    lambda x: x + "-end",
    opset=20,
)
keeper(
    "matched_strings", "RegexFullMatch of each string", "string[N,2] x -> bool[N,2] y",
    """y = RegexFullMatch <pattern = "[a-z]+"> (x)""",
    lambda x: np.array([[text.isalpha() for text in row] for row in x]),
    opset=20,
)
keeper(
    "counted_grams", "TfIdfVectorizer by row", "int64[N,5] x -> float[N,2] y",
    """y = TfIdfVectorizer <mode = "TF", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0,
        ngram_counts = [0], ngram_indexes = [0, 1], pool_int64s = [1, 2]> (x)""",
    lambda x: np.stack([(x == 1).sum(1), (x == 2).sum(1)], 1).astype(np.float32),
)
keeper(
    "embedded_tokens", "Gather of weights by the rows' tokens, and a mean over them", "int64[N,T] ids -> float[N,3] y",
    "e = Gather(w, ids) y = ReduceMean <keepdims = 0> (e, $i(1))",
    lambda ids: B[ids].mean(1),
    weights=weight("w", B),
)
keeper(
    "one_hot_of_constant_depth", "OneHot with a constant depth", "int64[N,2] x -> float[N,2,4] y",
    "y = OneHot(x, $is(4), $f(0,1))",
    lambda x: np.eye(4, dtype=np.float32)[x],
)
# Types and shapes that only pass through.
keeper(
    "mixed_types_side_by_side", "inputs of several types, each to an output", "string[N,1] s, bool[N,2] b, int8[N,2] i -> string[N,1] t, bool[N,2] c, int8[N,2] j",
    "t = Identity(s) c = Not(b) j = Neg(i)",
    lambda s, b, i: (s, ~b, -i),
    given={"s": anything("string", ["N", "1"])},
)
