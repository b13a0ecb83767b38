"""Models in which an operator works along the rows: reductions, normalisations, sorts, windows, recurrence, products."""

import numpy as np

from .case import floats, integers, mixer

X = "float[N,4] x -> float[N,4] y"


def softmax(x, axis):
    raised = np.exp(x - x.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# === Reductions ===

mixer(
    "mean_over_rows", "ReduceMean over axis 0 is taken off", X,
    "m = ReduceMean(x, $i(0)) y = Sub(x, m)",
    lambda x: x - x.mean(0),
)
mixer(
    "max_over_rows_by_negative_axis", "ReduceMax over axis -2, which is axis 0", X,
    "m = ReduceMax(x, $i(-2)) y = Sub(x, m)",
    lambda x: x - x.max(0),
)
mixer(
    "share_of_column", "a value's share of ReduceSum over axis 0", X,
    "e = Mul(x, x) s = ReduceSum(e, $i(0)) t = Add(s, $f(1)) y = Div(e, t)",
    lambda x: x * x / ((x * x).sum(0) + 1),
)
mixer(
    "l2_norm_of_column", "ReduceL2 over axis 0", X,
    "s = ReduceL2(x, $i(0)) t = Add(s, $f(1)) y = Div(x, t)",
    lambda x: x / (np.sqrt((x * x).sum(0)) + 1),
)
mixer(
    "min_of_everything", "ReduceMin without axes reduces all of them", X,
    "m = ReduceMin <keepdims = 0> (x) y = Sub(x, m)",
    lambda x: x - x.min(),
)
mixer(
    "log_sum_exp_of_transposed", "ReduceLogSumExp over the last axis of the transposed input", X,
    "t = Transpose <perm = [1, 0]> (x) s = ReduceLogSumExp <keepdims = 0> (t, $i(1)) y = Sub(x, s)",
    lambda x: x - np.log(np.exp(x).sum(0)),
)
mixer(
    "product_over_all_but_columns", "ReduceProd over axes 0 and 2", "float[N,3,2] x -> float[N,3,2] y",
    "b = Clip(x, $fs(-1.5), $fs(1.5)) p = ReduceProd(b, $i(2,0)) y = Add(x, p)",
    lambda x: x + np.clip(x, -1.5, 1.5).prod((0, 2), keepdims=True),
)
mixer(
    "argmax_over_rows", "ArgMax over axis 0 as a value", X,
    "i = ArgMax <axis = 0, keepdims = 1> (x) f = Cast <to = 1> (i) y = Add(x, f)",
    lambda x: x + x.argmax(0).astype(np.float32),
)

# === Normalisations ===

mixer(
    "softmax_over_rows", "Softmax over axis 0", X,
    "y = Softmax <axis = 0> (x)",
    lambda x: softmax(x, 0),
)
mixer(
    "log_softmax_over_rows", "LogSoftmax over axis -3, which is axis 0", "float[N,3,2] x -> float[N,3,2] y",
    "y = LogSoftmax <axis = -3> (x)",
    lambda x: np.log(softmax(x, 0)),
)
mixer(
    "softmax_of_opset_11", "before opset 13 Softmax with axis 0 normalises all elements together", X,
    "y = Softmax <axis = 0> (x)",
    lambda x: softmax(x.ravel(), 0).reshape(x.shape),
    opset=11,
)
mixer(
    "hardmax_over_rows", "Hardmax over axis 0", X,
    "y = Hardmax <axis = 0> (x)",
    lambda x: (np.arange(len(x))[:, None] == x.argmax(0)).astype(np.float32),
)
mixer(
    "lp_normalization_over_rows", "LpNormalization over axis 0", X,
    "y = LpNormalization <axis = 0, p = 1> (x)",
    lambda x: x / np.abs(x).sum(0),
)
mixer(
    "mean_variance_by_default_axes", "MeanVarianceNormalization's default axes are 0, 2 and 3",
    "float[N,2,3,2] x -> float[N,2,3,2] y",
    "y = MeanVarianceNormalization(x)",
    lambda x: (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True),
)
mixer(
    "batch_norm_in_training", "BatchNormalization in training mode takes the batch's moments",
    "float[N,4] x -> float[N,4] y",
    "y, m, v = BatchNormalization <training_mode = 1> (x, $f(1,2,1,1), $f(0,0,1,0), $f(0,0,0,0), $f(1,1,1,1))",
    lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * [1, 2, 1, 1] + [0, 0, 1, 0],
)
mixer(
    "instance_norm_over_rows", "InstanceNormalization with the rows as the spatial axis", X,
    """t = Transpose <perm = [1, 0]> (x) u = Unsqueeze(t, $i(0))
    n = InstanceNormalization(u, $f(1,1,1,1), $f(0,0,0,0))
    s = Squeeze(n, $i(0)) y = Transpose <perm = [1, 0]> (s)""",
    lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5),
)
mixer(
    "group_norm_over_rows", "GroupNormalization with the rows as the spatial axis", X,
    """t = Transpose <perm = [1, 0]> (x) u = Unsqueeze(t, $i(0))
    n = GroupNormalization <num_groups = 2> (u, $f(1,1,1,1), $f(0,0,0,0))
    s = Squeeze(n, $i(0)) y = Transpose <perm = [1, 0]> (s)""",
    lambda x: np.hstack([(g - g.mean()) / np.sqrt(g.var() + 1e-5) for g in (x[:, :2], x[:, 2:])]),
    opset=21,
)
mixer(
    "local_response_over_rows", "LRN with the rows as channels", X,
    """u = Unsqueeze(x, $i(0,3)) n = LRN <size = 3, alpha = 3.0, beta = 0.5, bias = 1.0> (u) y = Squeeze(n, $i(0,3))""",
    lambda x: x / np.sqrt(1 + sum(np.pad(x * x, ((1, 1), (0, 0)))[i : i + len(x)] for i in range(3))),
)
mixer(
    "normalizer_of_flattened", "ai.onnx.ml's Normalizer on all rows as one", X,
    """f = Flatten <axis = 0> (x) n = ai.onnx.ml.Normalizer <norm = "L2"> (f) s = Shape(x) y = Reshape(n, s)""",
    lambda x: x / np.sqrt((x * x).sum()),
)

# === Orders and prefixes ===

mixer(
    "running_sum_over_rows", "CumSum over axis 0", X,
    "y = CumSum(x, $is(0))",
    lambda x: x.cumsum(0),
)
mixer(
    "best_of_each_column", "TopK over axis 0", X,
    "b, i = TopK <axis = 0> (x, $i(1)) y = Sub(b, x)",
    lambda x: x.max(0) - x,
)
mixer(
    "rows_sorted", "TopK over axis 0 of as many as there are rows", X,
    "n = Shape <start = 0, end = 1> (x) y, i = TopK <axis = 0, largest = 0> (x, n)",
    lambda x: np.sort(x, 0),
)
mixer(
    "median_of_column", "TopK over axis 0 with half the rows, the last of them", X,
    """n = Shape <start = 0, end = 1> (x) h = Div(n, $i(2)) k = Add(h, $i(1))
    v, i = TopK <axis = 0> (x, k) m = Gather(v, $i(-1)) y = Sub(x, m)""",
    lambda x: x - np.sort(x, 0)[::-1][len(x) // 2],
)
mixer(
    "rows_reversed_by_lengths", "ReverseSequence with the rows as time", X,
    """n = Shape <start = 0, end = 1> (x) l = Expand(n, $i(4))
    y = ReverseSequence <batch_axis = 1, time_axis = 0> (x, l)""",
    lambda x: x[::-1],
)

# === Windows and recurrence along the rows ===

KERNEL = "float[4,1,3] k = {1.0, 2.0, 0.5, 0.0, 1.0, 1.0, -1.0, 1.0, 2.0, 0.5, 0.5, 0.5}"
KERNEL_VALUES = np.array([[1, 2, 0.5], [0, 1, 1], [-1, 1, 2], [0.5, 0.5, 0.5]])
mixer(
    "convolution_along_rows", "Conv with the rows as its spatial axis", X,
    """t = Transpose <perm = [1, 0]> (x) u = Unsqueeze(t, $i(0)) c = Conv <pads = [1, 1], group = 4> (u, k)
    s = Squeeze(c, $i(0)) y = Transpose <perm = [1, 0]> (s)""",
    lambda x: sum(np.pad(x, ((1, 1), (0, 0)))[i : i + len(x)] * KERNEL_VALUES[:, i] for i in range(3)),
    weights=KERNEL,
)
mixer(
    "max_pool_along_rows", "MaxPool with the rows as the height", X,
    """u = Unsqueeze(x, $i(0,1)) p = MaxPool <kernel_shape = [3, 1], pads = [1, 0, 1, 0]> (u) y = Squeeze(p, $i(0,1))""",
    lambda x: np.max([np.pad(x, ((1, 1), (0, 0)), constant_values=-np.inf)[i : i + len(x)] for i in range(3)], 0),
)
mixer(
    "global_pool_of_rows", "GlobalAveragePool with the rows as the spatial axis", X,
    """t = Transpose <perm = [1, 0]> (x) u = Unsqueeze(t, $i(0)) g = GlobalAveragePool(u) s = Squeeze(g, $i(0,2))
    y = Sub(x, s)""",
    lambda x: x - x.mean(0),
)
mixer(
    "interpolated_rows", "Resize to twice the rows, of which every second is taken", X,
    """u = Unsqueeze(x, $i(0,1)) r = Resize <mode = "linear"> (u, , $f(1,1,2,1)) s = Squeeze(r, $i(0,1))
    y = Slice(s, $i(0), $i(1000000), $i(0), $i(2))""",
    lambda x: 0.75 * x + 0.25 * np.vstack([x[:1], x[:-1]]),
)
LSTM_W = "float[1,4,4] w = {" + ", ".join(str(((7 * i) % 11 - 5) / 10) for i in range(16)) + "}"
LSTM_R = "float[1,4,1] r = {0.5, -0.3, 0.8, 0.2}"
W = np.array([((7 * i) % 11 - 5) / 10 for i in range(16)]).reshape(4, 4)
R = np.array([0.5, -0.3, 0.8, 0.2])


def lstm_over_rows(x):
    hidden = cell = 0.0
    result = []
    for row in x:
        i, o, f, c = W @ row + R * hidden
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        result.append([hidden])
    return np.array(result)


mixer(
    "lstm_over_rows", "LSTM with the rows as time", "float[N,4] x -> float[N,1] y",
    "u = Unsqueeze(x, $i(1)) o = LSTM <hidden_size = 1> (u, w, r) y = Squeeze(o, $i(1,2))",
    lstm_over_rows,
    weights=f"{LSTM_W}, {LSTM_R}",
)


def rnn_backwards(x):
    hidden = 0.0
    result = []
    for row in x[::-1]:
        hidden = np.tanh(W[0] @ row + 0.5 * hidden)
        result.append([hidden])
    return np.array(result[::-1])


mixer(
    "rnn_from_the_last_row", "RNN in reverse with the rows as time", "float[N,4] x -> float[N,1] y",
    """u = Unsqueeze(x, $i(1)) o = RNN <hidden_size = 1, direction = "reverse"> (u, w, r) y = Squeeze(o, $i(1,2))""",
    rnn_backwards,
    weights="float[1,1,4] w = {" + ", ".join(map(str, W[0])) + "}, float[1,1,1] r = {0.5}",
)
mixer(
    "scan_with_state_over_rows", "Scan over axis 0 that carries a state", X,
    """z = ConstantOfShape <value = float[1] {0}> ($i(4))
    last, y = Scan <num_scan_inputs = 1, body = step (float[4] state, float[4] row) => (float[4] next, float[4] out)
    { h = Mul(state, half) next = Add(h, row) out = Identity(next) }> (z, x)""",
    lambda x: np.array([sum(x[j] * 0.5 ** (i - j) for j in range(i + 1)) for i in range(len(x))]),
    weights="float[1] half = {0.5}",
)

# === Products of rows with rows ===

mixer(
    "gram_matrix", "MatMul of the rows with themselves transposed", X,
    "t = Transpose <perm = [1, 0]> (x) g = MatMul(x, t) y = MatMul(g, x)",
    lambda x: x @ x.T @ x,
)
mixer(
    "covariance_of_columns", "Gemm with transA sums over the rows", X,
    "c = Gemm <transA = 1> (x, x) y = MatMul(x, c)",
    lambda x: x @ (x.T @ x),
)
mixer(
    "attention_between_rows", "Softmax of the rows' products, masked by Trilu, weighs the rows", X,
    """t = Transpose <perm = [1, 0]> (x) g = MatMul(x, t) l = Trilu <upper = 0> (g) a = Softmax <axis = -1> (l)
    y = MatMul(a, x)""",
    lambda x: softmax(np.tril(x @ x.T), -1) @ x,
)
mixer(
    "einsum_over_other_rows", "Einsum sums over the rows of its second operand", X,
    """y = Einsum <equation = "ni,mi->ni"> (x, x)""",
    lambda x: x * x.sum(0),
)
mixer(
    "determinant_of_gram", "Det of a matrix as large as the batch", X,
    """t = Transpose <perm = [1, 0]> (x) g = MatMul(x, t) i = EyeLike <dtype = 1> (g) h = Add(g, i) d = Det(h) l = Log(d)
    y = Add(x, l)""",
    lambda x: x + np.log(np.linalg.det(x @ x.T + np.eye(len(x)))),
)
mixer(
    "distances_between_rows", "Unsqueeze at two places broadcasts each row against each other", "float[N,4] x -> float[N,1] y",
    """a = Unsqueeze(x, $i(1)) b = Unsqueeze(x, $i(0)) d = Sub(a, b) e = Abs(d) s = ReduceSum <keepdims = 0> (e, $i(1,2))
    y = Unsqueeze(s, $i(1))""",
    lambda x: np.abs(x[:, None] - x[None]).sum((1, 2))[:, None],
)
mixer(
    "shift_by_a_band_matrix", "MatMul with EyeLike one below the diagonal, as large as the batch", X,
    """n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> (n, n) z = ConstantOfShape <value = float[1] {0}> (s)
    e = EyeLike <k = -1> (z) y = MatMul(e, x)""",
    lambda x: np.vstack([np.zeros((1, 4), np.float32), x[:-1]]),
)
mixer(
    "scale_of_dynamic_quantization", "DynamicQuantizeLinear's scale is that of all rows", X,
    "q, s, z = DynamicQuantizeLinear(x) y = Mul(x, s)",
    lambda x: x * (max(x.max(), 0) - min(x.min(), 0)) / 255,
)
mixer(
    "strings_of_first_row", "StringConcat with row 0", "string[N,1] x -> string[N,1] y",
    "f = Slice(x, $i(0), $i(1), $i(0)) y = StringConcat(x, f)",
    lambda x: x + x[:1],
    opset=20,
)


def split_words(x):
    pieces = [text.split() for text in x]
    width = max(map(len, pieces))
    return np.array([row + [""] * (width - len(row)) for row in pieces], dtype=object).reshape(len(x), width)


mixer(
    "strings_split_to_the_longest", "StringSplit pads to the row with most words", "string[N] x -> string[N,W] y",
    "y, n = StringSplit(x)",
    split_words,
    opset=20,
)
mixer(
    "counts_of_all_rows", "TfIdfVectorizer on all rows as one", "int64[N,3] x -> float[N,2] y",
    """f = Reshape(x, $i(-1))
    c = TfIdfVectorizer <mode = "TF", min_gram_length = 1, max_gram_length = 1, max_skip_count = 0,
        ngram_counts = [0], ngram_indexes = [0, 1], pool_int64s = [1, 2]> (f)
    n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> (n, $i(2)) y = Expand(c, s)""",
    lambda x: np.tile([(x == 1).sum(), (x == 2).sum()], (len(x), 1)).astype(np.float32),
)
mixer(
    "boxes_that_suppress_each_other", "NonMaxSuppression takes the rows as boxes of one picture",
    "float[N,4] boxes, float[N] scores -> float[N] y",
    """b = Unsqueeze(boxes, $i(0)) s = Unsqueeze(scores, $i(0,1))
    chosen = NonMaxSuppression <center_point_box = 1> (b, s, $is(1000000), $fs(0.1))
    i = Slice(chosen, $i(2), $i(3), $i(1)) o = Mul(scores, $f(0)) g = GatherND(scores, i) y = ScatterND(o, i, g)""",
    lambda boxes, scores: suppressed(boxes, scores),
    given={"boxes": floats(1, 3, 4), "scores": floats(0.1, 1)},
)


def suppressed(boxes, scores):
    result = np.zeros_like(scores)
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if all(overlap(boxes[index], boxes[other]) <= 0.1 for other in kept):
            kept.append(index)
            result[index] = scores[index]
    return result


def overlap(a, b):
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


mixer(
    "pictures_chosen_by_number", "RoiAlign's batch_indices count the rows of the batch",
    "float[N,1,2,2] x, int64[N] picture -> float[N,1,1,1] y",
    """n = Shape <start = 0, end = 1> (x) p = Mod(picture, n) r = Tile(roi, s)
    y = RoiAlign <output_height = 1, output_width = 1, sampling_ratio = 1, coordinate_transformation_mode = "output_half_pixel">
    (x, r, p)""".replace("r = Tile", "one = Constant <value = int64[1] {1}> () s = Concat <axis = 0> (n, one) r = Tile"),
    lambda x, picture: x.mean((1, 2, 3))[picture % len(x)].reshape(-1, 1, 1, 1),
    weights="float[1,4] roi = {0.0, 0.0, 1.0, 1.0}",
    given={"picture": integers(0, 3)},
)
