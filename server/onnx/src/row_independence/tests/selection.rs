//! Operators that pick, join, cut, pad and write.

use super::builder::{integer, integers, x};

#[test]
fn joins_and_cuts() {
    let axis = |axis| [integer("axis", axis)];
    x(&[3]).input("z", &[2]).with("Concat x z -> y", axis(1)).proved();
    x(&[3]).input("z", &[3]).with("Concat x z -> y", axis(0)).mixes("Concat 'y' joins along axis 0");
    x(&[3]).weights("w", &[1, 3]).with("Concat w x -> y", axis(-2)).mixes("Concat 'y' joins along axis 0");
    x(&[3])
        .weights("w", &[1, 3])
        .with("Concat w x -> y", axis(1))
        .mixes("Concat 'y' joins rows with a tensor that is the same");
    x(&[4]).with("Split x -> y z", axis(1)).proved();
    x(&[4]).with("Split x -> y z", axis(0)).mixes("Split 'y' splits axis 0");
    let slice = |start: i64, end: i64, axis: i64| {
        x(&[4]).sizes("s", &[start]).sizes("e", &[end]).sizes("a", &[axis]).node("Slice x s e a -> y")
    };
    slice(1, 3, 1).proved();
    slice(0, i64::MAX, 0).proved();
    slice(0, 1_000_000_000, 0).proved();
    slice(1, i64::MAX, 0).mixes("Slice 'y' cuts axis 0");
    slice(0, 1, -2).mixes("Slice 'y' cuts axis 0");
    let pad = |pads: &[i64]| x(&[4]).sizes("p", pads).node("Pad x p -> y");
    pad(&[0, 1, 0, 2]).proved();
    pad(&[0, 1, 1, 2]).mixes("Pad 'y' pads axis 0");
}

#[test]
fn picks() {
    let axis = |axis| [integer("axis", axis)];
    x(&[5]).weights("w", &[100, 8]).node("Gather w x -> y").proved();
    x(&[5]).number("i", 0).with("Gather x i -> y", axis(1)).proved();
    x(&[5]).sizes("i", &[0, 1]).with("Gather x i -> y", axis(0)).mixes("Gather 'y' picks from axis 0");
    x(&[5])
        .input("i", &[])
        .with("Gather x i -> y", axis(1))
        .mixes("Gather 'y' picks entries of all rows for each row");
    x(&[5]).input("i", &[2]).with("GatherElements x i -> y", axis(1)).proved();
    x(&[5])
        .input("i", &[5])
        .with("GatherElements x i -> y", axis(0))
        .mixes("GatherElements 'y' picks from axis 0");
    x(&[5])
        .weights("w", &[9, 5])
        .with("GatherElements w x -> y", axis(1))
        .mixes("GatherElements 'y' picks entries by the rows' places");
    x(&[5]).weights("w", &[9, 5]).with("GatherElements w x -> y", axis(0)).proved();
    x(&[5]).input("i", &[2, 1]).with("GatherND x i -> y", [integer("batch_dims", 1)]).proved();
    x(&[5])
        .input("i", &[2, 1])
        .node("GatherND x i -> y")
        .mixes("GatherND 'y' picks entries by the rows' places");
    x(&[2]).weights("w", &[9, 9]).node("GatherND w x -> y").proved();
    x(&[5]).weights("d", &[]).weights("v", &[2]).node("OneHot x d v -> y").proved();
    x(&[5])
        .weights("v", &[2])
        .node("OneHot x x v -> y")
        .mixes("OneHot 'y' takes its depth from the values of the rows");
}

#[test]
fn writes_and_places() {
    let write = |axis| {
        x(&[5]).input("i", &[2]).input("u", &[2]).with("ScatterElements x i u -> y", [integer("axis", axis)])
    };
    write(1).proved();
    write(0).mixes("ScatterElements 'y' writes along axis 0");
    x(&[5])
        .weights("i", &[2, 1])
        .weights("u", &[2, 5])
        .node("ScatterND x i u -> y")
        .undecided("ScatterND 'y'");
    x(&[4, 4]).node("Trilu x -> y").proved();
    x(&[4]).node("Trilu x -> y").mixes("Trilu 'y' takes the axis of the rows for one of a matrix");
    x(&[4]).node("EyeLike x -> y").mixes("EyeLike 'y' numbers the rows");
}

#[test]
fn sizes_that_values_give() {
    let mixes = "gives as many entries as the values of all rows say";
    x(&[5]).node("NonZero x -> y").mixes(&format!("NonZero 'y' {mixes}"));
    x(&[5]).node("Unique x -> y").mixes(&format!("Unique 'y' {mixes}"));
    x(&[5])
        .input("c", &[])
        .with("Compress x c -> y", [integer("axis", 0)])
        .mixes("Compress 'y' takes its condition");
    x(&[5]).weights("c", &[5]).with("Compress x c -> y", [integer("axis", 1)]).proved();
    x(&[]).node("StringSplit x -> y n").mixes("StringSplit 'y' pads every row to the longest of its batch");
    x(&[5]).node("Reshape x x -> y").mixes("Reshape 'y' takes its shape from the values of the rows");
    // Of constants it is one, and says nothing of rows.
    x(&[5])
        .weights("w", &[5])
        .node("NonZero w -> i")
        .node("Shape i -> s")
        .with("ReduceSum s -> n", [integers("axes", &[0]), integer("keepdims", 0)])
        .node("Add x n -> y")
        .proved();
}
