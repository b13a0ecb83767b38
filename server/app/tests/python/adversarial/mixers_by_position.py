"""Models in which an output depends on which rows are beside it, where its row is, or how many there are."""

import numpy as np

from .case import floats, integers, mixer, rare

X = "float[N,4] x -> float[N,4] y"

# === Rows taken by their place ===

mixer(
    "difference_to_the_first_row", "Gather of row 0", X,
    "f = Gather(x, $i(0)) y = Sub(x, f)",
    lambda x: x - x[:1],
)
mixer(
    "difference_to_the_last_row", "Gather of row -1 by a scalar", X,
    "f = Gather(x, $is(-1)) y = Sub(x, f)",
    lambda x: x - x[-1:],
)
mixer(
    "rolled_rows", "two Slices over axis 0 are put together in the other order", X,
    "a = Slice(x, $i(1), $i(1000000), $i(0)) b = Slice(x, $i(0), $i(1), $i(0)) y = Concat <axis = 0> (a, b)",
    lambda x: np.roll(x, -1, 0),
)
mixer(
    "rows_backwards", "Slice over axis 0 with step -1", X,
    "y = Slice(x, $i(-1), $i(-1000000), $i(0), $i(-1))",
    lambda x: x[::-1],
)
mixer(
    "difference_to_the_row_before", "Pad over axis 0 shifts the rows", X,
    "p = Pad(x, $i(1,0,-1,0)) y = Sub(x, p)",
    lambda x: x - np.vstack([np.zeros((1, 4)), x[:-1]]),
)
mixer(
    "constant_row_in_front", "Concat of a constant over axis 0, and Slice of as many rows as there were", X,
    "c = Concat <axis = 0> ($f(1,2,3,4)1, x) n = Shape <start = 0, end = 1> (x) y = Slice(c, $i(0), n, $i(0))"
    .replace("$f(1,2,3,4)1", "row"),
    lambda x: np.vstack([[[1, 2, 3, 4]], x[:-1]]),
    weights="float[1,4] row = {1.0, 2.0, 3.0, 4.0}",
)
mixer(
    "first_row_repeated", "Expand of row 0 to as many rows as there are", X,
    "f = Slice(x, $i(0), $i(1), $i(0)) s = Shape(x) e = Expand(f, s) y = Mul(x, e)",
    lambda x: x * x[:1],
)
mixer(
    "condition_of_the_first_row", "Where with a condition of row 0", X,
    "f = Gather(x, $i(0)) c = Greater(f, $f(0)) n = Neg(x) y = Where(c, x, n)",
    lambda x: np.where(x[:1] > 0, x, -x),
)
mixer(
    "first_of_a_sequence_of_rows", "SplitToSequence over axis 0, and the first of them", X,
    "s = SplitToSequence <axis = 0, keepdims = 1> (x) f = SequenceAt(s, $is(0)) y = Sub(x, f)",
    lambda x: x - x[:1],
)
mixer(
    "split_and_swapped", "Split over axis 0 into the first row and the others, which change places", X,
    """n = Shape <start = 0, end = 1> (x) m = Sub(n, $i(1)) s = Concat <axis = 0> ($i(1), m)
    a, b = Split <axis = 0> (x, s) y = Concat <axis = 0> (b, a)""",
    lambda x: np.roll(x, -1, 0),
)
mixer(
    "features_of_the_first_column", "ai.onnx.ml's ArrayFeatureExtractor takes column 0 of the transposed input", X,
    "t = Transpose <perm = [1, 0]> (x) f = ai.onnx.ml.ArrayFeatureExtractor(t, $i(0)) u = Transpose <perm = [1, 0]> (f) y = Add(x, u)",
    lambda x: x + x[:1],
)
mixer(
    "row_chosen_by_input", "GatherND with rows that the input names", "float[N,4] x, int64[N,1] at -> float[N,4] y",
    "n = Shape <start = 0, end = 1> (x) i = Mod(at, n) y = GatherND(x, i)",
    lambda x, at: x[at[:, 0] % len(x)],
)
mixer(
    "added_to_a_row_chosen_by_input", "ScatterND adds to rows that the input names",
    "float[N,4] x, int64[N,1] at -> float[N,4] y",
    """n = Shape <start = 0, end = 1> (x) i = Mod(at, n) y = ScatterND <reduction = "add"> (x, i, x)""",
    lambda x, at: scattered(x, at[:, 0] % len(x)),
)
mixer(
    "largest_by_group", "ScatterElements keeps the largest of all rows of a group", "float[N] x, int64[N] group -> float[N] y",
    """z = ConstantOfShape <value = float[1] {-100}> ($i(4)) m = ScatterElements <reduction = "max"> (z, group, x)
    g = Gather(m, group) y = Sub(g, x)""",
    lambda x, group: np.array([x[group == g].max() for g in group]) - x,
)


def scattered(x, rows):
    result = x.copy()
    np.add.at(result, rows, x)
    return result


# === Shapes in which rows and other axes change places ===

mixer(
    "flattened_to_one", "Reshape to [1, -1], Softmax, and back", X,
    "f = Reshape(x, $i(1,-1)) e = Softmax <axis = 1> (f) y = Reshape(e, $i(-1,4))",
    lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
)
mixer(
    "reshaped_across_rows", "Reshape to [4, N] and Transpose, which interleaves rows", X,
    "r = Reshape(x, $i(4,-1)) y = Transpose <perm = [1, 0]> (r)",
    lambda x: x.reshape(4, -1).T,
)
mixer(
    "transposed_without_return", "Transpose of the first two axes, and Reshape to rows", "float[N,4,2] x -> float[N,8] y",
    "t = Transpose <perm = [1, 0, 2]> (x) y = Reshape(t, $i(-1,8))",
    lambda x: x.transpose(1, 0, 2).reshape(-1, 8),
)
mixer(
    "tiled_and_paired", "Tile over axis 0, and Reshape of two rows to one", "float[N,4] x -> float[N,8] y",
    "t = Tile(x, $i(2,1)) y = Reshape(t, $i(-1,8))",
    lambda x: np.tile(x, (2, 1)).reshape(-1, 8),
)
mixer(
    "columns_cut_from_the_end", "Reshape to one row, a Slice that drops its first element, and a zero at its end", X,
    """f = Reshape(x, $i(-1)) s = Slice(f, $i(1), $i(1000000)) p = Concat <axis = 0> (s, $f(0)) y = Reshape(p, $i(-1,4))""",
    lambda x: np.append(x.ravel()[1:], 0).reshape(-1, 4),
)

# === Shapes and values that follow from all rows ===

mixer(
    "only_positive_rows", "Compress drops rows", "float[N,4] x -> float[M,4] y",
    "f = Gather <axis = 1> (x, $is(0)) c = Greater(f, $f(0)) y = Compress <axis = 0> (x, c)",
    lambda x: x[x[:, 0] > 0],
)
mixer(
    "number_of_positives", "the size of NonZero's answer as a value", X,
    """b = Greater(x, $f(0)) z = NonZero(b) n = Shape <start = 1, end = 2> (z) f = Cast <to = 1> (n) y = Add(x, f)""",
    lambda x: x + (x > 0).sum(),
)
mixer(
    "how_often_a_key_comes", "Unique counts equal keys of all rows", "int64[N] key -> int64[N] y",
    "u, i, v, c = Unique <sorted = 1> (key) y = Gather(c, v)",
    lambda key: np.array([(key == k).sum() for k in key]),
)
mixer(
    "one_hot_to_the_largest", "OneHot whose depth is the largest index", "int64[N] x -> float[N,D] y",
    "m = ReduceMax <keepdims = 0> (x) d = Add(m, $is(1)) y = OneHot(x, d, $f(0,1))",
    lambda x: np.eye(x.max() + 1, dtype=np.float32)[x],
)
mixer(
    "lengths_in_the_third_input", "columns are cut to the longest of the third input's lengths",
    "float[N,6] x, float[N,6] z, int64[N] lengths -> float[N,W] y",
    """s = Add(x, z) m = ReduceMax(lengths) r = Range($is(0), $is(6), $is(1)) l = Unsqueeze(lengths, $i(1)) c = Less(r, l)
    k = Where(c, s, $f(0)) y = Slice(k, $i(0), m, $i(1))""",
    lambda x, z, lengths: np.where(np.arange(6) < lengths[:, None], x + z, 0)[:, : lengths.max()],
    given={"lengths": integers(1, 7)},
)


def until_all_end(x):
    columns = [x]
    while (columns[-1] < 40).any() and len(columns) < 9:
        columns.append(columns[-1] * 2)
    return np.stack(columns[1:], 1) if len(columns) > 1 else np.zeros((len(x), 0))


mixer(
    "until_all_rows_end", "Loop goes on until the last row has ended; its columns are as many as its turns",
    "float[N] x -> float[N,W] y",
    """l = Less(x, limit) i = Cast <to = 6> (l) a = ReduceMax <keepdims = 0> (i) c = Cast <to = 9> (a)
    e, o = Loop <body = turn (int64 number, bool going, float[N] v) => (bool more, float[N] w, float[N] column) {
        w = Add(v, v) column = Identity(w) ll = Less(w, limit) li = Cast <to = 6> (ll)
        la = ReduceMax <keepdims = 0> (li) more = Cast <to = 9> (la)
    }> ($is(8), c, x) y = Transpose <perm = [1, 0]> (o)""",
    until_all_end,
    weights="float limit = {40.0}",
    given={"x": floats(0.5, 30)},
)
mixer(
    "as_many_turns_as_the_largest", "Loop whose trip count is the largest of an input",
    "float[N,4] x, int64[N] turns -> float[N,4] y",
    """m = ReduceMax <keepdims = 0> (turns)
    y = Loop <body = turn (int64 number, bool going, float[N,4] v) => (bool more, float[N,4] w)
    { more = Identity(going) w = Add(v, x) }> (m, $bs(1), x)""",
    lambda x, turns: x * (1 + turns.max()),
)
mixer(
    "if_any_row", "If on a condition that any row can meet", X,
    """g = Greater(x, $f(4)) i = Cast <to = 6> (g) m = ReduceMax <keepdims = 0> (i) c = Cast <to = 9> (m)
    y = If (c) <then_branch = one () => (float[N,4] a) { a = Add(x, x) },
                else_branch = two () => (float[N,4] b) { b = Neg(x) }>""",
    lambda x: x + x if (x > 4).any() else -x,
)
mixer(
    "number_of_the_row", "Range up to the number of rows is added", X,
    """n = Shape <start = 0, end = 1> (x) s = Squeeze(n) r = Range($is(0), s, $is(1)) f = Cast <to = 1> (r)
    u = Unsqueeze(f, $i(1)) y = Add(x, u)""",
    lambda x: x + np.arange(len(x), dtype=np.float32)[:, None],
)
mixer(
    "divided_by_rows", "the number of rows as a divisor", X,
    "n = Shape <start = 0, end = 1> (x) f = Cast <to = 1> (n) y = Div(x, f)",
    lambda x: x / len(x),
)
mixer(
    "size_of_everything", "Size, which counts elements of all rows, as a summand", X,
    "n = Size(x) f = Cast <to = 1> (n) y = Add(x, f)",
    lambda x: x + x.size,
)
mixer(
    "place_counted_by_cumsum", "CumSum over axis 0 of ones made by ConstantOfShape", X,
    """n = Shape <start = 0, end = 1> (x) o = ConstantOfShape <value = float[1] {1}> (n) c = CumSum(o, $is(0))
    u = Unsqueeze(c, $i(1)) y = Mul(x, u)""",
    lambda x: x * np.arange(1, len(x) + 1)[:, None],
)
mixer(
    "from_five_rows_on", "If on the number of rows", X,
    """n = Shape <start = 0, end = 1> (x) s = Squeeze(n) c = GreaterOrEqual(s, $is(5))
    y = If (c) <then_branch = one () => (float[N,4] a) { a = Add(x, x) },
                else_branch = two () => (float[N,4] b) { b = Identity(x) }>""",
    lambda x: x + x if len(x) >= 5 else x,
)
mixer(
    "odd_numbers_of_rows", "Where on the number of rows modulo 2", X,
    """n = Shape <start = 0, end = 1> (x) m = Mod(n, $i(2)) c = Equal(m, $i(1)) g = Neg(x) y = Where(c, x, g)""",
    lambda x: x if len(x) % 2 else -x,
)

# === Effects that only some values show ===

mixer(
    "limit_that_large_values_raise", "Clip at the batch's largest value, at least 100", X,
    "m = ReduceMax <keepdims = 0> (x) l = Max(m, $fs(100)) s = Div(x, l) y = Mul(s, $f(100))",
    lambda x: 100 * x / max(x.max(), 100),
    given={"x": rare(400, 0.1, 4)},
)
mixer(
    "one_value_of_all_integers", "any row that is 42 counts for all", "int64[N,4] x -> int64[N,4] y",
    """e = Equal(x, $is(42)) i = Cast <to = 7> (e) m = ReduceMax <keepdims = 0> (i) y = Add(x, m)""",
    lambda x: x + int((x == 42).any()),
    given={"x": rare(42, 0.1, 4, dtype=np.int64)},
)
mixer(
    "missing_values_of_others", "IsNaN of any row counts for all", X,
    """e = IsNaN(x) i = Cast <to = 1> (e) m = ReduceMax <keepdims = 0> (i) z = Where(e, $f(0), x) y = Add(z, m)""",
    lambda x: np.nan_to_num(x) + np.isnan(x).any().astype(np.float32),
    given={"x": rare(np.nan, 0.1, 4)},
)
mixer(
    "depths_that_only_some_reach", "ReduceMin over axis 0 matters below -1000", X,
    """m = ReduceMin(x, $i(0)) c = Min(m, $f(-1000)) d = Add(c, $f(1000)) y = Add(x, d)""",
    lambda x: x + np.minimum(x.min(0), -1000) + 1000,
    given={"x": rare(-5000, 0.1, 4)},
)
mixer(
    "two_equal_rows", "how many rows are equal to a row, by comparing all pairs", "int64[N,2] x -> int64[N] y",
    """a = Unsqueeze(x, $i(1)) b = Unsqueeze(x, $i(0)) e = Equal(a, b) i = Cast <to = 7> (e)
    p = ReduceMin <keepdims = 0> (i, $i(2)) y = ReduceSum <keepdims = 0> (p, $i(1))""",
    lambda x: (x[:, None] == x[None]).all(2).sum(1),
)
mixer(
    "same_as_the_row_before", "a row that repeats the one before it becomes zero", "int64[N,1] x -> int64[N,1] y",
    """f = Slice(x, $i(0), $i(-1), $i(0)) p = Concat <axis = 0> (none, f) e = Equal(x, p) y = Where(e, $i(0), x)""",
    lambda x: np.where(x == np.vstack([[[-1]], x[:-1]]), 0, x),
    weights="int64[1,1] none = {-1}",
)
mixer(
    "weight_that_is_zero_unless_given", "the mean over rows counts only where the second input is not zero",
    "float[N,4] x, float[N,1] weight -> float[N,4] y",
    "m = ReduceMean(x, $i(0)) w = Mul(weight, m) y = Add(x, w)",
    lambda x, weight: x + weight * x.mean(0),
    given={"weight": lambda generator, rows: (generator.random((rows, 1)) < 0.3).astype(np.float32)},
)
mixer(
    "flag_of_the_third_input", "a flag of any row in a boolean third input turns the signs of all",
    "float[N,2] x, int64[N,2] n, bool[N,1] flag -> float[N,2] y",
    """f = Cast <to = 1> (n) s = Add(x, f) i = Cast <to = 6> (flag) m = ReduceMax <keepdims = 0> (i) c = Cast <to = 9> (m)
    g = Neg(s) y = Where(c, g, s)""",
    lambda x, n, flag: -(x + n) if flag.any() else x + n,
    given={"flag": lambda generator, rows: generator.random((rows, 1)) < 0.2},
)

# === Mixing inside functions and subgraphs ===

mixer(
    "inside_a_function", "a function of the model's own reduces over axis 0", X,
    "y = own.centre(x)",
    lambda x: x - x.mean(0),
    functions="""<domain: "own", opset_import: ["" : 18]> centre (a) => (b)
    { axes = Constant <value = int64[1] {0}> () m = ReduceMean(a, axes) b = Sub(a, m) }""",
)
mixer(
    "inside_a_function_by_attribute", "a function whose axis is an attribute of the call", X,
    "y = own.norm <along = 0> (x)",
    lambda x: np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0),
    functions="""<domain: "own", opset_import: ["" : 18]> norm <along> (a) => (b)
    { b = Softmax <axis : int = @along> (a) }""",
)
mixer(
    "inside_a_branch", "the branch that is taken reduces over axis 0", X,
    """y = If (yes) <then_branch = one () => (float[N,4] a) { m = ReduceMax(x, axes) a = Sub(x, m) },
                  else_branch = two () => (float[N,4] b) { b = Identity(x) }>""",
    lambda x: x - x.max(0),
    weights="bool yes = {1}, int64[1] axes = {0}",
)
mixer(
    "inside_a_loop", "a loop of three turns adds the largest of the outer input's rows", X,
    """y = Loop <body = turn (int64 number, bool going, float[N,4] v) => (bool more, float[N,4] w)
    { more = Identity(going) m = ReduceMax(x, axes) w = Add(v, m) }> ($is(3), $bs(1), x)""",
    lambda x: x + 3 * x.max(0),
    weights="int64[1] axes = {0}",
)
mixer(
    "inside_a_scan_over_columns", "a scan over columns compares its state, one value a row, with the largest of all", X,
    """f = Gather <axis = 1> (x, $is(0))
    last, y = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
    body = step (float[N] state, float[N] column) => (float[N] next, float[N] out)
    { m = ReduceMax <keepdims = 0> (state) next = Add(state, column) out = Sub(next, m) }> (f, x)""",
    lambda x: scanned(x),
)
mixer(
    "axes_that_are_computed", "ReduceSum over axes that an operator computes", X,
    "a = Sub($i(1), $i(1)) s = ReduceSum(x, a) y = Sub(x, s)",
    lambda x: x - x.sum(0),
)
mixer(
    "sum_over_rows_by_matmul", "MatMul with ones as long as the batch sums over rows", X,
    """n = Shape <start = 0, end = 1> (x) s = Concat <axis = 0> ($i(1), n) o = ConstantOfShape <value = float[1] {1}> (s)
    t = MatMul(o, x) y = Sub(x, t)""",
    lambda x: x - x.sum(0),
)


def scanned(x):
    state = x[:, 0]
    result = []
    for column in x.T:
        result.append(state + column - state.max())
        state = state + column
    return np.stack(result, 1)
