//! Shapes: transposed, flattened, computed from other shapes.

use super::builder::{Build, integer, integers, x};

#[test]
fn reshapes_that_keep_rows_whole() {
    let reshape = |sizes: &[i64], target: &[i64]| x(sizes).sizes("t", target).node("Reshape x t -> y");
    reshape(&[4, 6], &[0, 24]).proved();
    reshape(&[4, 6], &[0, -1]).proved();
    reshape(&[-1, 6], &[0, -1]).proved();
    reshape(&[4, 6], &[-1, 24]).proved();
    reshape(&[4, 6], &[-1, 12]).mixes("output 'y' has 2 entries for each row");
    reshape(&[4, 6], &[-1, 48]).undecided("Reshape 'y' may cut the entries of a row in other places");
    reshape(&[4, 6], &[2, -1]).undecided("Reshape 'y'");
    reshape(&[4, 6], &[1, 24]).mixes("Reshape 'y' gives the same shape whatever the number of rows");
    reshape(&[4, 6], &[1, -1]).mixes("output 'y' has the rows on axis 1");
    reshape(&[4, 6], &[-1]).mixes("output 'y' has 24 entries for each row");
    reshape(&[1], &[-1]).proved();
    reshape(&[4], &[4, -1]).undecided("Reshape 'y' moves entries of rows");
    x(&[4, 6]).node("Flatten x -> y").proved();
    x(&[4, 6]).with("Flatten x -> y", [integer("axis", 2)]).mixes("output 'y' has 4 entries for each row");
    x(&[4, 6]).with("Flatten x -> y", [integer("axis", 0)]).mixes("output 'y' has the rows on axis 1");
}

#[test]
fn axes_that_come_and_go() {
    x(&[1, 3]).with("Squeeze x -> y", [integers("axes", &[1])]).proved();
    x(&[1, 3]).node("Squeeze x -> y").mixes("Squeeze 'y' drops every axis of one entry");
    x(&[1, 3]).with("Squeeze x -> y", [integers("axes", &[0])]).mixes("Squeeze 'y' drops axis 0");
    x(&[3]).with("Unsqueeze x -> y", [integers("axes", &[1])]).proved();
    x(&[3]).with("Unsqueeze x -> y", [integers("axes", &[0])]).mixes("output 'y' has the rows on axis 1");
    x(&[3]).node("Transpose x -> y").mixes("output 'y' has the rows on axis 1");
    x(&[3, 4]).with("Transpose x -> y", [integers("perm", &[0, 2, 1])]).proved();
}

/// `s`: the shape of `x`; `n` and `t`: its first two sizes, as vectors.
fn shapes(sizes: &[i64]) -> Build {
    x(sizes)
        .node("Shape x -> s")
        .sizes("zero", &[0])
        .sizes("one", &[1])
        .node("Gather s zero -> n")
        .node("Gather s one -> t")
        .sizes("minus", &[-1])
        .sizes("heads", &[8])
        .sizes("width", &[64])
}

/// As transformers write attention: rows and times apart, heads of their own, and together again.
#[test]
fn heads_of_attention() {
    shapes(&[-1, 512])
        .with("Concat n t heads width -> split", [integer("axis", 0)])
        .node("Reshape x split -> four")
        .with("Transpose four -> q", [integers("perm", &[0, 2, 1, 3])])
        .with("Transpose four -> k", [integers("perm", &[0, 2, 3, 1])])
        .node("MatMul q k -> scores")
        .node("Softmax scores -> p")
        .node("MatMul p q -> mixed")
        .with("Transpose mixed -> back", [integers("perm", &[0, 2, 1, 3])])
        .node("Mul heads width -> hidden")
        .with("Concat n t hidden -> whole", [integer("axis", 0)])
        .node("Reshape back whole -> y")
        .proved();
}

/// As older exporters write it: time first, rows and heads as one axis.
#[test]
fn rows_and_heads_as_one_axis() {
    let attention = |last: &str| {
        shapes(&[-1, 512])
            .with("Transpose x -> tnh", [integers("perm", &[1, 0, 2])])
            .node("Mul n heads -> nh")
            .with("Concat t nh width -> split", [integer("axis", 0)])
            .node("Reshape tnh split -> q")
            .with("Transpose q -> q1", [integers("perm", &[1, 0, 2])])
            .with("Transpose q -> k1", [integers("perm", &[1, 2, 0])])
            .node("MatMul q1 k1 -> scores")
            .node("Softmax scores -> p")
            .node("MatMul p q1 -> m")
            .with("Transpose m -> back", [integers("perm", &[1, 0, 2])])
            .sizes("hidden", &[512])
            .with("Concat t n hidden -> whole", [integer("axis", 0)])
            .node("Reshape back whole -> out")
            .with("Transpose out -> y", [integers("perm", &[1, 0, 2])])
            .with("Softmax scores -> over", [integer("axis", 0)])
            .output(last)
    };
    attention("y").proved();
    attention("over").mixes("Softmax 'over' sums exponentials over axis 0");
    attention("p").mixes("output 'p' has 8 entries for each row");
}

#[test]
fn tensors_made_from_shapes() {
    let zeros = |build: Build| build.with("Concat n t -> shape", [integer("axis", 0)]);
    zeros(shapes(&[-1])).node("ConstantOfShape shape -> z").node("Add x z -> y").proved();
    shapes(&[-1]).node("ConstantOfShape t -> z").node("Add x z -> y").proved();
    shapes(&[3]).weights("w", &[1, 3]).node("Expand w s -> y").proved();
    shapes(&[3]).weights("w", &[4, 1, 1]).node("Expand w s -> y").mixes("output 'y' has the rows on axis 1");
    shapes(&[3])
        .with("Concat n n -> nn", [integer("axis", 0)])
        .node("ConstantOfShape nn -> y")
        .undecided("ConstantOfShape 'y'");
    shapes(&[3])
        .weights("w", &[1, 3])
        .sizes("once", &[1])
        .with("Concat n once -> r", [integer("axis", 0)])
        .node("Tile w r -> y")
        .proved();
    shapes(&[3]).sizes("r", &[2, 1]).node("Tile x r -> y").mixes("Tile 'y' repeats axis 0");
    // What exporters write for `expand(-1, …)`.
    shapes(&[3])
        .weights("w", &[1, 1, 3])
        .with("Concat n minus minus -> given", [integer("axis", 0)])
        .sizes("ones", &[1, 1, 1])
        .node("Equal given minus -> open")
        .node("Where open ones given -> target")
        .node("Expand w target -> y")
        .proved();
    shapes(&[3])
        .number("start", 0)
        .number("step", 1)
        .sizes("axes", &[0])
        .node("Squeeze n axes -> end")
        .node("Range start end step -> y")
        .undecided("Range 'y' numbers the rows");
    shapes(&[3])
        .node("Range zero x one -> y")
        .mixes("Range 'y' takes its bounds from the values of the rows");
}
