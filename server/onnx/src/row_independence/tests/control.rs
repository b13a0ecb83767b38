//! Branches, loops, scans and functions.

use super::builder::{Build, body, graph, integer, integers, node, x};
use crate::graph::Attribute;

/// A loop of three steps over a state that is `x` first.
fn repeated(inside: Build) -> Build {
    x(&[3]).number("three", 3).number("always", 1).with("Loop three always x -> y", [body("body", inside)])
}

fn step() -> Build {
    graph().formal("i").formal("c").formal("v").output("go").output("w")
}

#[test]
fn loops() {
    repeated(step().node("Identity c -> go").node("Tanh v -> w")).proved();
    repeated(
        step()
            .node("Identity c -> go")
            .with("ReduceMax v -> m", [integers("axes", &[0])])
            .node("Sub v m -> w"),
    )
    .mixes("ReduceMax 'm' looks for the extreme over axis 0");
    // Until all rows are done.
    repeated(
        step().node("Tanh v -> w").with("ReduceMax v -> m", [integer("keepdims", 0)]).node("Cast m -> go"),
    )
    .mixes("ReduceMax 'm' looks for the extreme over all axes");
    repeated(step().node("Tanh v -> w").node("Identity v -> go"))
        .mixes("Loop 'y' goes on for all rows until");
    x(&[3])
        .input("n", &[])
        .number("go", 1)
        .with("Loop n go x -> y", [body("body", step().node("Identity c -> go").node("Tanh v -> w"))])
        .mixes("Loop 'y' takes its number of steps from the values of the rows");
    // A state that swaps its axes is rows on axis 0 in every other step.
    repeated(step().node("Identity c -> go").node("Transpose v -> w"))
        .undecided("Loop 'y' gives rows in some cases");
    // Around the body: rows of a tensor outside, and what each step gives, on a new axis.
    x(&[3])
        .number("three", 3)
        .number("always", 1)
        .with(
            "Loop three always x -> last all",
            [body(
                "body",
                step().output("o").node("Identity c -> go").node("Add v x -> w").node("Exp w -> o"),
            )],
        )
        .with("Transpose all -> y", [integers("perm", &[1, 0, 2])])
        .proved();
}

#[test]
fn branches() {
    let branch = |name: &str, line: &str| body(name, graph().node(line).output("z"));
    let choose = |build: Build| {
        build.with("If c -> y", [branch("then_branch", "Exp x -> z"), branch("else_branch", "Neg x -> z")])
    };
    choose(x(&[3]).weights("c", &[])).proved();
    choose(x(&[3]).input("c", &[])).mixes("If 'y' decides for all rows by the values of some");
    let mixing = |build: Build| {
        build.with(
            "If c -> y",
            [branch("then_branch", "Exp x -> z"), branch("else_branch", "ReduceL2 x -> z")],
        )
    };
    mixing(x(&[3]).weights("c", &[])).mixes("ReduceL2 'z' sums over all axes");
    mixing(x(&[3]).number("c", 1)).proved();
    choose(x(&[3]).number("i", 0).node("Shape x -> s").node("Gather s i -> c"))
        .undecided("If 'y' decides by the number of rows");
}

#[test]
fn scans() {
    let scan = |build: Build, line: &str| {
        let inside = graph()
            .formal("h")
            .formal("e")
            .node("Add h e -> g")
            .node("Identity g -> o")
            .output("g")
            .output("o");
        build.with(line, [body("body", inside), integer("num_scan_inputs", 1)])
    };
    let turned = || x(&[5, 3]).input("h0", &[3]).with("Transpose x -> t", [integers("perm", &[1, 0, 2])]);
    scan(turned(), "Scan h0 t -> y all").proved();
    scan(turned(), "Scan h0 t -> last all")
        .with("Transpose all -> y", [integers("perm", &[1, 0, 2])])
        .proved();
    scan(turned(), "Scan h0 x -> y all").mixes("Scan 'y' goes through the rows one after another");
}

#[test]
fn functions() {
    let axes = Attribute { name: "axes".into(), reference: "over".into(), ..Attribute::default() };
    let mean = || vec![node("ReduceMean a -> m", [axes.clone()]), node("Sub a m -> b", [])];
    let centred = |axis: i64| {
        x(&[3]).function("Centre", "a", "b", mean()).with("own:Centre x -> y", [integers("over", &[axis])])
    };
    centred(1).proved();
    centred(0).mixes("ReduceMean 'm' averages over axis 0");
    // One that uses itself ends.
    x(&[3])
        .function("Again", "a", "b", vec![node("own:Again a -> b", [])])
        .node("own:Again x -> y")
        .undecided("Again 'b' is in a body or function that is used too often");
}
