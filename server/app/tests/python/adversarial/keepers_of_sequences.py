"""Models that keep rows apart where it takes more to see it: recurrence, attention, computed shapes, subgraphs."""

import numpy as np

from .case import integers, keeper
from .keepers_of_rows import sigmoid, softmax, wave, weight

X = "float[N,4] x -> float[N,4] y"
SEQUENCE = "float[N,T,4] x -> float[N,T,4] y"

# === Recurrence over time ===

W, R = wave(8, 4), wave(8, 2)


def lstm(x, w, r):
    """Over `x[rows, time, features]`; the hidden state at each time."""
    hidden = cell = np.zeros((len(x), r.shape[1]))
    states = []
    for t in range(x.shape[1]):
        i, o, f, c = np.split(x[:, t] @ w.T + hidden @ r.T, 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    return np.stack(states, 1)


LSTM_WEIGHTS = f"{weight('w', W[None])}, {weight('r', R[None])}"
keeper(
    "lstm_with_transposes", "LSTM with time first between two Transposes", "float[N,T,4] x -> float[N,T,2] y",
    """t = Transpose <perm = [1, 0, 2]> (x) o = LSTM <hidden_size = 2> (t, w, r) s = Squeeze(o, $i(1))
    y = Transpose <perm = [1, 0, 2]> (s)""",
    lambda x: lstm(x, W, R),
    weights=LSTM_WEIGHTS,
)
keeper(
    "lstm_with_expanded_state", "LSTM whose initial state is made for as many rows by Shape and Expand",
    "float[N,T,4] x -> float[N,2] y",
    """n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> ($i(1), n, $i(2)) z = Expand($f(0), s)
    t = Transpose <perm = [1, 0, 2]> (x) o, h, c = LSTM <hidden_size = 2> (t, w, r, , , z, z) y = Squeeze(h, $i(0))""",
    lambda x: lstm(x, W, R)[:, -1],
    weights=LSTM_WEIGHTS,
)
GW, GR = wave(6, 4), wave(6, 2)


def gru(x, w, r, reverse=False):
    hidden = np.zeros((len(x), r.shape[1]))
    states = []
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        wz, wr, wh = np.split(x[:, t] @ w.T, 3, axis=1)
        rz, rr, rh = np.split(r, 3)
        z, reset = sigmoid(wz + hidden @ rz.T), sigmoid(wr + hidden @ rr.T)
        hidden = (1 - z) * np.tanh(wh + (reset * hidden) @ rh.T) + z * hidden
        states.append(hidden)
    return np.stack(states[:: -1 if reverse else 1], 1)


keeper(
    "gru_in_both_directions", "a bidirectional GRU whose directions are put side by side", "float[N,T,4] x -> float[N,T,4] y",
    """t = Transpose <perm = [1, 0, 2]> (x) o = GRU <hidden_size = 2, direction = "bidirectional"> (t, w, r)
    p = Transpose <perm = [2, 0, 1, 3]> (o) y = Reshape(p, $i(0,0,-1))""",
    lambda x: np.concatenate([gru(x, GW, GR), gru(x, -GW, GR, reverse=True)], 2),
    weights=f"{weight('w', np.stack([GW, -GW]))}, {weight('r', np.stack([GR, GR]))}",
)


def rnn_to_length(x, lengths):
    hidden = np.zeros((len(x), 2))
    for t in range(x.shape[1]):
        hidden = np.where(t < lengths[:, None], np.tanh(x[:, t] @ W[:2].T + hidden @ R[:2].T), hidden)
    return hidden


keeper(
    "rnn_with_lengths", "RNN with a length for each row", "float[N,T,4] x, int32[N] lengths -> float[N,2] y",
    """t = Transpose <perm = [1, 0, 2]> (x) o, h = RNN <hidden_size = 2> (t, w, r, , lengths) y = Squeeze(h, $i(0))""",
    rnn_to_length,
    weights=f"{weight('w', W[None, :2])}, {weight('r', R[None, :2])}",
    given={"lengths": integers(1, 6, dtype=np.int32)},
)
keeper(
    "scan_over_time", "Scan over axis 1 that carries a state for each row", "float[N,T,4] x -> float[N,T,4] y",
    """f = Gather <axis = 1> (x, $is(0))
    last, y = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
    body = step (float[N,4] state, float[N,4] now) => (float[N,4] next, float[N,4] out)
    { h = Mul(state, half) next = Add(h, now) out = Identity(next) }> (f, x)""",
    lambda x: np.stack([
        x[:, 0] * 0.5 ** (t + 1) + sum(x[:, s] * 0.5 ** (t - s) for s in range(t + 1)) for t in range(x.shape[1])
    ], 1),
    weights="float half = {0.5}",
)
keeper(
    "loop_of_constant_turns", "Loop with a constant trip count and a state for each row", X,
    """y = Loop <body = turn (int64 number, bool going, float[N,4] v) => (bool more, float[N,4] w)
    { more = Identity(going) s = Tanh(v) w = Add(s, x) }> ($is(4), $bs(1), x)""",
    lambda x: x + np.tanh(x + np.tanh(x + np.tanh(x + np.tanh(x)))),
)
keeper(
    "loop_that_counts", "Loop that uses the number of its turn and collects columns", "float[N] x -> float[N,3] y",
    """last, o = Loop <body = turn (int64 number, bool going, float[N] v) => (bool more, float[N] w, float[N] column)
    { more = Identity(going) f = Cast <to = 1> (number) w = Add(v, f) column = Mul(w, v) }> ($is(3), $bs(1), x)
    y = Transpose <perm = [1, 0]> (o)""",
    lambda x: np.stack([x * x, x * (x + 1), (x + 1) * (x + 3)], 1),
)

# === Attention ===

Q, KW, V = wave(4, 4, scale=0.5), wave(4, 4, scale=-0.4), wave(4, 4, scale=0.8)


def heads(x, w):
    return (x @ w).reshape(len(x), -1, 2, 2).transpose(0, 2, 1, 3)


def attended(x, mask=None):
    scores = heads(x, Q) @ heads(x, KW).transpose(0, 1, 3, 2) / np.sqrt(2)
    if mask is not None:
        scores = scores + np.where(mask, 0, -10000)[:, None, None, :]
    return (softmax(scores) @ heads(x, V)).transpose(0, 2, 1, 3).reshape(x.shape)


HEADS = """shape = Shape(x) n = Gather(shape, $i(0)) t = Gather(shape, $i(1)) split = Concat <axis = 0> (n, t, $i(2,2))
    q0 = MatMul(x, qw) q1 = Reshape(q0, split) q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k0 = MatMul(x, kw) k1 = Reshape(k0, split) k = Transpose <perm = [0, 2, 3, 1]> (k1)
    v0 = MatMul(x, vw) v1 = Reshape(v0, split) v = Transpose <perm = [0, 2, 1, 3]> (v1)
    product = MatMul(q, k) scaled = Div(product, $fs(1.41421356))"""
JOINED = """a = Softmax(masked) o = MatMul(a, v) p = Transpose <perm = [0, 2, 1, 3]> (o)
    joined = Concat <axis = 0> (n, t, $i(4)) y = Reshape(p, joined)"""
ATTENTION_WEIGHTS = f"{weight('qw', Q)}, {weight('kw', KW)}, {weight('vw', V)}"
keeper(
    "self_attention", "two heads by Shape, Gather, Concat and Reshape", SEQUENCE,
    f"{HEADS} masked = Identity(scaled) {JOINED}",
    attended,
    weights=ATTENTION_WEIGHTS,
)
keeper(
    "masked_attention", "two heads with a mask for each row", "float[N,T,4] x, int64[N,T] mask -> float[N,T,4] y",
    f"""{HEADS} f = Cast <to = 1> (mask) i = Sub($fs(1), f) big = Mul(i, $fs(-10000)) wide = Unsqueeze(big, $i(1,2))
    masked = Add(scaled, wide) {JOINED}""",
    lambda x, mask: attended(x, mask == 1),
    weights=ATTENTION_WEIGHTS,
    given={"mask": lambda generator, rows: (np.arange(5) < generator.integers(1, 6, (rows, 1))).astype(np.int64)},
)
keeper(
    "causal_attention", "scores masked by Trilu of a matrix as large as the time", SEQUENCE,
    """k = Transpose <perm = [0, 2, 1]> (x) s = MatMul(x, k) m = Trilu <upper = 0> (s) a = Softmax(m) y = MatMul(a, x)""",
    lambda x: softmax(np.tril(x @ x.transpose(0, 2, 1))) @ x,
)
keeper(
    "class_token_and_positions", "a constant expanded to as many rows stands before each row, and Range along time is added",
    "float[N,T,4] x -> float[N,U,4] y",
    """n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> (n, $i(1,4)) c = Expand(token, s)
    j = Concat <axis = 1> (c, x) t = Shape <start = 1, end = 2> (j) l = Squeeze(t) r = Range($is(0), l, $is(1))
    f = Cast <to = 1> (r) p = Unsqueeze(f, $i(0,2)) y = Add(j, p)""",
    lambda x: np.concatenate([np.tile(np.float32([1, 2, 3, 4]), (len(x), 1, 1)), x], 1)
    + np.arange(x.shape[1] + 1, dtype=np.float32)[:, None],
    weights="float[1,1,4] token = {1.0, 2.0, 3.0, 4.0}",
)
keeper(
    "rotated_halves", "rotary positions by Split, Neg and Concat along the last axis", SEQUENCE,
    "a, b = Split <axis = -1> (x, $i(2,2)) n = Neg(b) r = Concat <axis = -1> (n, a) c = Mul(x, cos) s = Mul(r, sin) y = Add(c, s)",
    lambda x: x * COS + np.concatenate([-x[..., 2:], x[..., :2]], -1) * SIN,
    weights=f"{weight('cos', wave(1, 5, 4))}, {weight('sin', wave(1, 5, 4, scale=0.5))}",
)
COS, SIN = wave(1, 5, 4), wave(1, 5, 4, scale=0.5)

# === Normalisations of each row ===

keeper(
    "layer_norm_by_hand", "ReduceMean, Sub, Pow, Sqrt and Div over the last axis", SEQUENCE,
    """m = ReduceMean(x, $i(-1)) d = Sub(x, m) q = Pow(d, $fs(2)) v = ReduceMean(q, $i(-1)) e = Add(v, $fs(0.00001))
    r = Sqrt(e) y = Div(d, r)""",
    lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
)
keeper(
    "layer_norm", "LayerNormalization over the last axis", SEQUENCE,
    "y = LayerNormalization(x, $f(1,2,1,2), $f(0,0,1,1))",
    lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * [1, 2, 1, 2] + [0, 0, 1, 1],
)
keeper(
    "softmax_of_opset_11_by_row", "before opset 13 Softmax with axis 1 normalises each row", "float[N,3,2] x -> float[N,3,2] y",
    "y = Softmax <axis = 1> (x)",
    lambda x: softmax(x.reshape(len(x), -1)).reshape(x.shape),
    opset=11,
)
keeper(
    "largest_of_each_row", "ReduceMax over axes 1 and -1, ReduceL2 over axis 1", "float[N,3,2] x -> float[N,1,1] m, float[N,2] l",
    "m = ReduceMax(x, $i(1,-1)) l = ReduceL2 <keepdims = 0> (x, $i(1))",
    lambda x: (x.max((1, 2), keepdims=True), np.sqrt((x * x).sum(1))),
)
keeper(
    "flattened_by_row", "Flatten with axis 1, and Softmax", "float[N,3,2] x -> float[N,6] y",
    "f = Flatten <axis = 1> (x) y = Softmax(f)",
    lambda x: softmax(x.reshape(len(x), 6)),
)

# === Orders within a row ===

keeper(
    "best_of_each_row", "TopK over the last axis", "float[N,4] x -> float[N,2] v, int64[N,2] i",
    "v, i = TopK(x, $i(2))",
    lambda x: (np.sort(x, 1)[:, :-3:-1], np.argsort(-x, 1, kind="stable")[:, :2]),
)
keeper(
    "running_sums_of_each_row", "CumSum over axis 1, backwards", X,
    "y = CumSum <reverse = 1> (x, $is(1))",
    lambda x: x[:, ::-1].cumsum(1)[:, ::-1],
)
keeper(
    "columns_in_order_of_others", "GatherElements over axis 1 by the order of another input",
    "float[N,4] a, float[N,4] b -> float[N,4] y",
    "v, i = TopK(b, $i(4)) y = GatherElements <axis = 1> (a, i)",
    lambda a, b: np.take_along_axis(a, np.argsort(-b, 1, kind="stable"), 1),
)
keeper(
    "columns_reversed", "Slice of axis 1 with step -1, and Gather of columns", X,
    "r = Slice(x, $i(-1), $i(-1000), $i(1), $i(-1)) y = Gather <axis = 1> (r, $i(1,0,2,3))",
    lambda x: x[:, ::-1][:, [1, 0, 2, 3]],
)
keeper(
    "scattered_columns", "ScatterElements over axis 1", "float[N,4] x, int64[N,2] at -> float[N,4] y",
    """z = Mul(x, $f(0)) v = Slice(x, $i(0), $i(2), $i(1)) y = ScatterElements <axis = 1, reduction = "add"> (z, at, v)""",
    lambda x, at: np.array([[sum(x[r, j] for j in range(2) if at[r, j] == c) for c in range(4)] for r in range(len(x))]),
)
keeper(
    "reversed_to_each_length", "ReverseSequence with a length for each row", "float[N,4] x, int64[N] lengths -> float[N,4] y",
    "y = ReverseSequence <batch_axis = 0, time_axis = 1> (x, lengths)",
    lambda x, lengths: np.array([np.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(x, lengths)]),
    given={"lengths": integers(1, 5)},
)
keeper(
    "mean_to_each_length", "a mean over time up to each row's length", "float[N,T,4] x, int64[N] lengths -> float[N,4] y",
    """t = Shape <start = 1, end = 2> (x) s = Squeeze(t) r = Range($is(0), s, $is(1)) l = Unsqueeze(lengths, $i(1))
    c = Less(r, l) f = Cast <to = 1> (c) w = Unsqueeze(f, $i(2)) m = Mul(x, w) a = ReduceSum <keepdims = 0> (m, $i(1))
    d = Cast <to = 1> (l) y = Div(a, d)""",
    lambda x, lengths: np.array([row[:n].mean(0) for row, n in zip(x, lengths)]),
    given={"lengths": integers(1, 6)},
)
keeper(
    "last_token_of_each_row", "GatherND with one batch dimension takes the token at each row's length",
    "float[N,T,4] x, int64[N] lengths -> float[N,4] y",
    "o = Sub(lengths, $is(1)) i = Unsqueeze(o, $i(1)) y = GatherND <batch_dims = 1> (x, i)",
    lambda x, lengths: x[np.arange(len(x)), lengths - 1],
    given={"lengths": integers(1, 6)},
)
keeper(
    "equal_to_the_best", "ArgMax over axis 1, and which columns are as good", "float[N,4] x -> int64[N] i, bool[N,4] e",
    "i = ArgMax <axis = 1, keepdims = 0> (x) m = ReduceMax(x, $i(1)) e = Equal(x, m)",
    lambda x: (x.argmax(1), x == x.max(1, keepdims=True)),
)

# === Shapes ===

D = wave(4, 3)
keeper(
    "merged_and_split", "Reshape of rows and time to one axis, MatMul, and back by the Shape", "float[N,T,4] x -> float[N,T,3] y",
    """s = Shape <start = 0, end = 2> (x) f = Reshape(x, $i(-1,4)) m = MatMul(f, w) t = Concat <axis = 0> (s, $i(3))
    y = Reshape(m, t)""",
    lambda x: x @ D,
    weights=weight("w", D),
)
keeper(
    "time_distributed_softmax", "Reshape to one axis, Softmax over the last, and Reshape with a constant time",
    "float[N,5,4] x -> float[N,5,4] y",
    "f = Reshape(x, $i(-1,4)) e = Softmax <axis = 1> (f) y = Reshape(e, $i(-1,5,4))",
    lambda x: softmax(x),
)
keeper(
    "time_first_and_back", "Transpose, an operator by element, and Transpose back", SEQUENCE,
    "t = Transpose <perm = [1, 0, 2]> (x) e = Elu(t) y = Transpose <perm = [1, 0, 2]> (e)",
    lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
)
keeper(
    "softmax_over_time_first", "Transpose, Softmax over axis 0, which is time then, and back", SEQUENCE,
    "t = Transpose <perm = [1, 0, 2]> (x) e = Softmax <axis = 0> (t) y = Transpose <perm = [1, 0, 2]> (e)",
    lambda x: softmax(x, 1),
)
keeper(
    "einsum_of_each_row", "Einsum of products within rows", "float[N,2,3] a, float[N,3,2] b -> float[N,2,2] y",
    """y = Einsum <equation = "nij,njk->nik"> (a, b)""",
    lambda a, b: a @ b,
)
keeper(
    "distances_to_prototypes", "Unsqueeze broadcasts each row against constants", "float[N,4] x -> float[N,3] y",
    """u = Unsqueeze(x, $i(1)) d = Sub(u, p) q = Mul(d, d) y = ReduceSum <keepdims = 0> (q, $i(2))""",
    lambda x: ((x[:, None] - D.T) ** 2).sum(2),
    weights=weight("p", D.T[None]),
)
keeper(
    "differences_within_a_row", "Unsqueeze at two places within each row", "float[N,4] x -> float[N,4,4] y",
    "a = Unsqueeze(x, $i(1)) b = Unsqueeze(x, $i(2)) y = Sub(a, b)",
    lambda x: x[:, None, :] - x[:, :, None],
)
keeper(
    "ones_as_many_as_rows", "ConstantOfShape by the Shape stands beside the columns", "float[N,4] x -> float[N,5] y",
    """n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> (n, $i(1)) o = ConstantOfShape <value = float[1] {1}> (s)
    y = Concat <axis = 1> (x, o)""",
    lambda x: np.hstack([x, np.ones((len(x), 1), np.float32)]),
)
keeper(
    "tiled_columns", "Tile of columns, and Split into two outputs", "float[N,4] x -> float[N,2] a, float[N,6] b",
    "t = Tile(x, $i(1,2)) a, b = Split <axis = 1> (t, $i(2,6))",
    lambda x: (x[:, :2], np.hstack([x[:, 2:], x])),
)
keeper(
    "sequence_of_columns", "SplitToSequence over axis 1, and the second of them", "float[N,4] x -> float[N,2] y",
    "s = SplitToSequence <axis = 1, keepdims = 1> (x, $is(2)) y = SequenceAt(s, $is(1))",
    lambda x: x[:, 2:],
)
keeper(
    "row_seen_from_the_end", "Reshape by a Shape whose dimensions are divided and multiplied again", "float[N,4] x -> float[N,2,2] y",
    """s = Shape(x) n = Gather(s, $i(0)) c = Gather(s, $i(1)) h = Div(c, $i(2)) t = Concat <axis = 0> (n, h, $i(-1))
    y = Reshape(x, t)""",
    lambda x: x.reshape(-1, 2, 2),
)

# === Functions and subgraphs ===

keeper(
    "function_by_row", "a function of the model's own reduces over the last axis", X,
    "y = own.centre(x)",
    lambda x: x - x.mean(1, keepdims=True),
    functions="""<domain: "own", opset_import: ["" : 18]> centre (a) => (b)
    { axes = Constant <value = int64[1] {-1}> () m = ReduceMean(a, axes) b = Sub(a, m) }""",
)
keeper(
    "branch_on_a_constant", "If on a constant; the branch that is never taken mixes rows", X,
    """y = If (no) <then_branch = one () => (float[N,4] a) { m = ReduceMax(x, axes) a = Sub(x, m) },
                 else_branch = two () => (float[N,4] b) { b = Exp(x) }>""",
    lambda x: np.exp(x),
    weights="bool no = {0}, int64[1] axes = {0}",
)
keeper(
    "branch_on_the_columns", "If on the number of columns", X,
    """n = Shape <start = 1, end = 2> (x) s = Squeeze(n) c = Greater(s, $is(3))
    y = If (c) <then_branch = one () => (float[N,4] a) { a = Neg(x) },
                else_branch = two () => (float[N,4] b) { b = Identity(x) }>""",
    lambda x: -x,
)
