//! The operators of `ai.onnx.ml`.

use super::builder::{Build, integers, x};

#[test]
fn models_of_tables() {
    for operator in ["TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"] {
        x(&[4]).node(&format!("ai.onnx.ml:{operator} x -> y p")).output("y").output("p").proved();
        x(&[])
            .node(&format!("ai.onnx.ml:{operator} x -> y p"))
            .mixes(&format!("{operator} 'y' takes a vector of rows"));
    }
    for operator in
        ["TreeEnsembleRegressor", "Scaler", "Imputer", "Normalizer", "LabelEncoder", "TreeEnsemble"]
    {
        x(&[4]).node(&format!("ai.onnx.ml:{operator} x -> y")).proved();
    }
    x(&[4])
        .node("Transpose x -> t")
        .node("ai.onnx.ml:Normalizer t -> n")
        .node("Transpose n -> y")
        .mixes("Normalizer 'n' takes axis 1");
    x(&[2]).input("z", &[3]).node("ai.onnx.ml:FeatureVectorizer x z -> y").proved();
    x(&[2]).node("TfIdfVectorizer x -> y").proved();
    x(&[]).node("TfIdfVectorizer x -> y").mixes("TfIdfVectorizer 'y' takes a vector of rows");
}

/// As scikit-learn's converter looks up labels.
#[test]
fn labels_of_the_best_class() {
    let best = |build: Build| {
        build
            .weights("classes", &[3])
            .with("ArgMax x -> i", [super::builder::integer("axis", 1)])
            .node("ai.onnx.ml:ArrayFeatureExtractor classes i -> l")
            .sizes("t", &[-1])
            .node("Reshape l t -> y")
    };
    best(x(&[3])).proved();
    x(&[3]).sizes("i", &[0]).node("ai.onnx.ml:ArrayFeatureExtractor x i -> y").proved();
    x(&[])
        .sizes("i", &[0])
        .node("ai.onnx.ml:ArrayFeatureExtractor x i -> y")
        .mixes("ArrayFeatureExtractor 'y' picks from axis 0");
    x(&[3])
        .input("i", &[])
        .node("ai.onnx.ml:ArrayFeatureExtractor x i -> y")
        .mixes("ArrayFeatureExtractor 'y' picks entries of all rows");
}

#[test]
fn unknown_operators() {
    x(&[4])
        .node("example.com:Conjure x -> y")
        .undecided("Conjure 'y' is an operator of the domain example.com that is not known here");
    x(&[4]).node("Conjure x -> y").undecided("Conjure 'y' is an operator that is not known here");
    // What a later operator provably mixes is not softened by an earlier doubt elsewhere.
    x(&[4])
        .node("Conjure x -> a")
        .with("ReduceSum x -> b", [integers("axes", &[0])])
        .node("Add b a -> y")
        .mixes("ReduceSum 'b' sums over axis 0");
    x(&[4]).version(6).node("Add x x -> y").undecided("Add 'y' is of a version of ONNX before 7");
}
