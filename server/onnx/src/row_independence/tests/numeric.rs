//! Elementwise operators, products, reductions, normalisations, convolutions, recurrent layers, quantisation.

use super::builder::{Build, graph, integer, integers, text, x};

#[test]
fn entries_at_the_same_place() {
    for operator in ["Relu", "Cast", "Erf", "Identity", "Not"] {
        x(&[3]).node(&format!("{operator} x -> y")).proved();
    }
    x(&[3]).weights("w", &[3]).node("Add x w -> y").proved();
    x(&[3]).weights("w", &[1, 3]).node("Mul w x -> y").proved();
    x(&[3]).weights("w", &[]).node("Where x w x -> y").proved();
    x(&[3]).input("z", &[1]).node("Sub x z -> y").proved();
    x(&[3]).weights("w", &[4, 3]).node("Add x w -> y").mixes("Add 'y' combines the rows with the 4 entries");
    x(&[3]).input("z", &[]).node("Add x z -> y").mixes("Add 'y' combines every row with every other");
    x(&[1])
        .with("Transpose x -> t", [integers("perm", &[1, 0])])
        .node("Add x t -> y")
        .mixes("Add 'y' combines");
    x(&[3]).weights("w", &[2, 1, 3]).node("Add x w -> y").mixes("output 'y' has the rows on axis 1");
}

#[test]
fn the_number_of_rows_as_a_value() {
    let count = || x(&[3]).number("zero", 0).node("Shape x -> s").node("Gather s zero -> n");
    count().node("Cast n -> f").node("Div x f -> y").mixes("Div 'y' uses the number of rows as a value");
    count().node("Sqrt n -> f").node("Clip x f -> y").mixes("Clip 'y' uses the number of rows as a value");
    count().node("Identity s -> y").mixes("output 'y' depends on the number of rows");
    let one = || x(&[-1]).number("one", 1).node("Shape x -> s").node("Gather s one -> t");
    one().node("Div x t -> y").proved();
}

#[test]
fn products_of_matrices() {
    x(&[3]).weights("w", &[3, 4]).node("MatMul x w -> y").proved();
    x(&[5, 3]).weights("w", &[3, 4]).node("MatMul x w -> y").proved();
    x(&[3, 4]).input("z", &[4, 5]).node("MatMul x z -> y").proved();
    x(&[3]).weights("w", &[3]).node("MatMul x w -> y").proved();
    x(&[3]).weights("w", &[2, 3]).node("MatMul w x -> y").mixes("MatMul 'y' sums over the axis of the rows");
    x(&[3])
        .node("Transpose x -> t")
        .node("MatMul x t -> y")
        .mixes("MatMul 'y' multiplies every row with every");
    x(&[]).node("MatMul x x -> y").mixes("MatMul 'y' sums");
    x(&[3]).weights("w", &[4, 3]).weights("b", &[4]).with("Gemm x w b -> y", [integer("transB", 1)]).proved();
    x(&[3]).weights("w", &[3, 4]).with("Gemm x w -> y", [integer("transA", 1)]).mixes("Gemm 'y' sums");
    x(&[3]).weights("w", &[3, 4]).weights("b", &[9, 4]).node("Gemm x w b -> y").mixes("Gemm 'y' combines");
    let einsum = |build: Build, line: &str, equation: &str| build.with(line, [text("equation", equation)]);
    einsum(x(&[3, 4]).input("z", &[4]), "Einsum x z -> y", "bij,bj->bi").proved();
    einsum(x(&[3]).input("z", &[3]), "Einsum x z -> y", "bi,ci->bc").mixes("Einsum 'y' multiplies every row");
    einsum(x(&[3]), "Einsum x -> y", "bi->i").mixes("Einsum 'y' sums over the axis");
    einsum(x(&[3]), "Einsum x x -> y", "bi,bi").undecided("Einsum 'y' does not state");
}

#[test]
fn reductions() {
    let reduce = |axes: &[i64], keep| {
        x(&[3, 4]).with("ReduceMean x -> y", [integers("axes", axes), integer("keepdims", keep)])
    };
    reduce(&[1, 2], 0).proved();
    reduce(&[-1], 1).proved();
    reduce(&[0], 1).mixes("ReduceMean 'y' averages over axis 0, which counts the rows");
    reduce(&[-3], 1).mixes("ReduceMean 'y' averages over axis 0");
    reduce(&[], 1).mixes("ReduceMean 'y' averages over all axes");
    x(&[3]).sizes("a", &[1]).node("ReduceSum x a -> y").proved();
    x(&[3]).sizes("a", &[0]).node("ReduceSum x a -> y").mixes("ReduceSum 'y' sums over axis 0");
    x(&[3]).with("ReduceSum x -> y", [integer("noop_with_empty_axes", 1)]).proved();
    x(&[3])
        .input("a", &[])
        .node("ReduceSum x a -> y")
        .mixes("ReduceSum 'y' takes its axes from the values of the rows");
    x(&[3]).with("ArgMax x -> y", [integer("axis", 1), integer("keepdims", 0)]).proved();
    x(&[3]).node("ArgMax x -> y").mixes("ArgMax 'y' looks for the extreme over axis 0");
    x(&[3]).number("k", 2).node("TopK x k -> y i").proved();
    x(&[3]).number("k", 2).with("TopK x k -> y i", [integer("axis", 0)]).mixes("TopK 'y' sorts over axis 0");
    x(&[3]).number("a", 0).node("CumSum x a -> y").mixes("CumSum 'y' sums up over axis 0");
    x(&[3]).number("a", -1).node("CumSum x a -> y").proved();
}

#[test]
fn normalisations() {
    x(&[3, 4]).node("Softmax x -> y").proved();
    x(&[3, 4])
        .with("Softmax x -> y", [integer("axis", 0)])
        .mixes("Softmax 'y' sums exponentials over axis 0");
    x(&[3, 4]).version(11).with("Softmax x -> y", [integer("axis", 2)]).proved();
    x(&[3]).version(11).with("Softmax x -> y", [integer("axis", 0)]).mixes("Softmax 'y'");
    // Before version 13, the axes behind are one with it.
    x(&[3, 4])
        .version(11)
        .with("Transpose x -> t", [integers("perm", &[1, 0, 2])])
        .with("Softmax t -> s", [integer("axis", 0)])
        .with("Transpose s -> y", [integers("perm", &[1, 0, 2])])
        .mixes("Softmax 's' sums exponentials over axis 1");
    let norm = || x(&[3, 4]).weights("g", &[4]).weights("c", &[3]).weights("m", &[3]).weights("v", &[3]);
    norm().node("LayerNormalization x g g -> y").proved();
    norm()
        .with("LayerNormalization x g g -> y", [integer("axis", 0)])
        .mixes("LayerNormalization 'y' normalises over axis 0");
    norm().node("BatchNormalization x c c m v -> y").proved();
    norm()
        .with("BatchNormalization x c c m v -> y a b", [integer("training_mode", 1)])
        .mixes("BatchNormalization 'y' normalises by the mean");
    norm().node("InstanceNormalization x c c -> y").proved();
    x(&[3, 4, 4])
        .node("MeanVarianceNormalization x -> y")
        .mixes("MeanVarianceNormalization 'y' normalises over axis 0");
    x(&[3, 4, 4]).with("MeanVarianceNormalization x -> y", [integers("axes", &[2, 3])]).proved();
}

#[test]
fn images() {
    let image = || x(&[3, 8, 8]).weights("w", &[4, 3, 3, 3]);
    image().node("Conv x w -> y").proved();
    image().input("v", &[3, 3, 3]).node("Conv x v -> y").mixes("Conv 'y' has filters that rows give");
    image().node("GlobalAveragePool x -> y").proved();
    image().with("MaxPool x -> y", [integers("kernel_shape", &[2, 2])]).proved();
    image()
        .with("MaxPool x -> z y", [integers("kernel_shape", &[2, 2])])
        .undecided("MaxPool 'z' numbers the places");
    image()
        .with("Transpose x -> t", [integers("perm", &[1, 0, 2, 3])])
        .node("Conv t w -> y")
        .mixes("Conv 'y' looks along axis 1");
    image().scales("s", &[1.0, 1.0, 2.0, 2.0]).node("Resize x - s -> y").proved();
    image()
        .scales("s", &[2.0, 1.0, 2.0, 2.0])
        .node("Resize x - s -> y")
        .mixes("Resize 'y' resizes the axis of the rows");
    image()
        .weights("s", &[4])
        .node("Resize x - s -> y")
        .undecided("Resize 'y' may resize the axis of the rows");
    // 3x3 windows without padding leave 6x6, so that 144 entries are one image's.
    image().node("Conv x w -> c").sizes("t", &[-1, 144]).node("Reshape c t -> y").proved();
    image()
        .node("Conv x w -> c")
        .sizes("t", &[-1, 72])
        .node("Reshape c t -> y")
        .mixes("output 'y' has 2 entries for each row");
    image().node("Conv x w -> c").sizes("t", &[-1, 100]).node("Reshape c t -> y").undecided("Reshape 'y'");
}

#[test]
fn recurrent_layers() {
    let layer = |build: Build| {
        build
            .weights("w", &[1, 16, 3])
            .weights("r", &[1, 16, 4])
            .with("LSTM t w r - - -> all last", [integer("hidden_size", 4)])
    };
    let turned = || x(&[5, 3]).with("Transpose x -> t", [integers("perm", &[1, 0, 2])]);
    layer(turned()).with("Squeeze last -> y", [integers("axes", &[0])]).proved();
    layer(turned()).with("Transpose all -> y", [integers("perm", &[2, 0, 1, 3])]).proved();
    layer(x(&[5, 3]).node("Identity x -> t")).output("last").mixes("LSTM 'all' runs over axis 0");
    let reversed = |batch, time| {
        x(&[5])
            .input("n", &[])
            .with("ReverseSequence x n -> y", [integer("batch_axis", batch), integer("time_axis", time)])
    };
    reversed(0, 1).proved();
    reversed(1, 0).mixes("ReverseSequence 'y' reverses axis 0");
}

#[test]
fn quantisation() {
    let given = || x(&[3]).weights("s", &[]).weights("z", &[]).weights("per", &[3]);
    given().node("QuantizeLinear x s z -> q").node("DequantizeLinear q s z -> y").proved();
    given().node("QuantizeLinear x per per -> y").proved();
    given()
        .with("QuantizeLinear x per per -> y", [integer("axis", 0)])
        .undecided("QuantizeLinear 'y' has scales that may differ");
    given()
        .node("DynamicQuantizeLinear x -> y a b")
        .undecided("DynamicQuantizeLinear 'y' takes one scale from all rows");
}

#[test]
fn random_operators() {
    x(&[3])
        .node("RandomNormalLike x -> r")
        .node("Add x r -> y")
        .is("random: RandomNormalLike 'r' gives random numbers");
    graph().input("x", &[3]).node("Dropout x -> y").proved();
    x(&[3]).weights("p", &[]).number("t", 1).node("Dropout x p t -> y").is("random: Dropout 'y' drops");
    x(&[3])
        .with("RandomNormal -> r", [integers("shape", &[1, 3])])
        .node("Add x r -> y")
        .is("random: RandomNormal");
}
