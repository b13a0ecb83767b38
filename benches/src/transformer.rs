//! A transformer encoder, made when it is needed: as large as a small sentence encoder, with made-up weights.

use std::fs;
use std::path::Path;

use anyhow::Context;
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::model_infer_request::InferInputTensor;

use crate::onnx::{Attribute, Network};

/// Token ids, INT64 `x`, in; what the first token came to, FP32 `y`, out.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    pub name: &'static str,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    /// In a row.
    pub tokens: usize,
    pub vocabulary: usize,
}

/// The layers of MiniLM-L6-H384 (Wang and others, 2020), 10.6 million weights, and a small vocabulary.
pub const MINI_LM: Transformer =
    Transformer { name: "transformer", layers: 6, width: 384, heads: 12, tokens: 32, vocabulary: 1000 };

/// A graph as it grows.
struct Encoder {
    of: Transformer,
    network: Network,
    constants: u64,
}

// === impl Transformer ===

impl Transformer {
    /// Puts the model into a repository as version 1.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(&self, repository: &Path) -> anyhow::Result<()> {
        let version = repository.join(self.name).join("1");
        fs::create_dir_all(&version)?;
        let path = version.join("model.onnx");
        fs::write(&path, self.onnx_file()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(fs::write(version.join(".complete"), "")?)
    }

    /// A request for one row.
    pub fn request(&self) -> ModelInferRequest {
        let ids = (0..self.tokens).map(|token| (token * 37 % self.vocabulary) as i64);
        ModelInferRequest {
            model_name: self.name.into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: "INT64".into(),
                shape: vec![1, self.tokens as i64],
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![ids.flat_map(i64::to_le_bytes).collect::<Vec<u8>>().into()],
            ..ModelInferRequest::default()
        }
    }

    fn onnx_file(self) -> Vec<u8> {
        let mut encoder = Encoder { of: self, network: Network::new(self.name), constants: 0 };
        encoder.network.integer_input("x", &[self.tokens]);
        let words = encoder.weights(&[self.vocabulary, self.width], 1);
        let positions = encoder.weights(&[self.tokens, self.width], 1);
        let embedded = encoder.network.node("Gather", &[&words, "x"], &[]);
        let placed = encoder.network.node("Add", &[&embedded, &positions], &[]);
        let mut value = encoder.normalized(&placed);
        for _ in 0..self.layers {
            let attended = encoder.attention(&value);
            let sum = encoder.network.node("Add", &[&value, &attended], &[]);
            let middle = encoder.normalized(&sum);
            let fed = encoder.feed_forward(&middle);
            let sum = encoder.network.node("Add", &[&middle, &fed], &[]);
            value = encoder.normalized(&sum);
        }
        let first = encoder.integers(&[], &[0]);
        encoder.network.node("Gather", &[&value, &first], &[Attribute::integer("axis", 1)]);
        encoder.network.into_file(&[self.width])
    }
}

// === impl Encoder ===

impl Encoder {
    fn attention(&mut self, value: &str) -> String {
        let Transformer { width, heads, tokens, .. } = self.of;
        let per_head = width / heads;
        // 0 stands for as many rows as there are.
        let apart = self.integers(&[4], &[0, tokens as i64, heads as i64, per_head as i64]);
        let together = self.integers(&[3], &[0, tokens as i64, width as i64]);
        let mut split = |turned: &[i64]| {
            let product = self.linear(value, width, width);
            let split = self.network.node("Reshape", &[&product, &apart], &[]);
            self.network.node("Transpose", &[&split], &[Attribute::integers("perm", turned)])
        };
        let (queries, keys, values) = (split(&[0, 2, 1, 3]), split(&[0, 2, 3, 1]), split(&[0, 2, 1, 3]));
        let scores = self.network.node("MatMul", &[&queries, &keys], &[]);
        let scale = self.number(1.0 / (per_head as f32).sqrt());
        let scaled = self.network.node("Mul", &[&scores, &scale], &[]);
        let shares = self.network.node("Softmax", &[&scaled], &[Attribute::integer("axis", -1)]);
        let mixed = self.network.node("MatMul", &[&shares, &values], &[]);
        let turned = self.network.node("Transpose", &[&mixed], &[Attribute::integers("perm", &[0, 2, 1, 3])]);
        let joined = self.network.node("Reshape", &[&turned, &together], &[]);
        self.linear(&joined, width, width)
    }

    /// Two layers with GELU (Hendrycks and Gimpel, 2016) between them, four times as wide inside.
    fn feed_forward(&mut self, value: &str) -> String {
        let width = self.of.width;
        let inner = self.linear(value, width, 4 * width);
        let (root, one, half) = (self.number(std::f32::consts::SQRT_2), self.number(1.0), self.number(0.5));
        let divided = self.network.node("Div", &[&inner, &root], &[]);
        let erf = self.network.node("Erf", &[&divided], &[]);
        let raised = self.network.node("Add", &[&erf, &one], &[]);
        let product = self.network.node("Mul", &[&inner, &raised], &[]);
        let activated = self.network.node("Mul", &[&product, &half], &[]);
        self.linear(&activated, 4 * width, width)
    }

    fn linear(&mut self, value: &str, from: usize, to: usize) -> String {
        let (matrix, bias) = (self.weights(&[from, to], from), self.weights(&[to], from));
        let product = self.network.node("MatMul", &[value, &matrix], &[]);
        self.network.node("Add", &[&product, &bias], &[])
    }

    fn normalized(&mut self, value: &str) -> String {
        let width = self.of.width;
        let (scale, shift) = (self.name(), self.name());
        self.network.floats(&scale, &[width], std::iter::repeat_n(1.0, width));
        self.network.floats(&shift, &[width], std::iter::repeat_n(0.0, width));
        self.network.node("LayerNormalization", &[value, &scale, &shift], &[])
    }

    /// Numbers that look like chance, small enough that sums of `addends` of them stay near 1.
    fn weights(&mut self, dims: &[usize], addends: usize) -> String {
        let name = self.name();
        let range = 1.0 / (addends as f32).sqrt();
        let first = self.constants << 32;
        let count = dims.iter().product::<usize>() as u64;
        let weight = |index: u64| {
            // Knuth's multiplier for 64 bits; the upper half is mixed well enough.
            let mixed = (first + index + 1).wrapping_mul(6_364_136_223_846_793_005);
            ((mixed >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0) * range
        };
        self.network.floats(&name, dims, (0..count).map(weight));
        name
    }

    fn number(&mut self, value: f32) -> String {
        let name = self.name();
        self.network.floats(&name, &[], std::iter::once(value));
        name
    }

    fn integers(&mut self, dims: &[usize], values: &[i64]) -> String {
        let name = self.name();
        self.network.integers(&name, dims, values);
        name
    }

    fn name(&mut self) -> String {
        self.constants += 1;
        format!("constant_{}", self.constants)
    }
}
