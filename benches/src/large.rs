//! Models of 100 MB and more, made when they are needed, and a repository in which one version replaces another.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::model::Model;
use crate::onnx::Chain;

/// Seven layers with weights of 100 MB together, all of them in the file. Rows are as those of the small models.
pub const LARGE: Model = Model { name: "large", row: &[30] };

/// Five matrices of this many rows and columns have 100.4 MB.
const WIDTH: usize = 2240;
const SQUARE_LAYERS: usize = 5;
const OUTPUTS: usize = 2;
/// Numbers of versions have three digits for long, so that all answers are of one length.
const FIRST_VERSION: u64 = 101;

/// Two directories with the model, of which one is in the repository as its newest version.
///
/// Files come and go by rename, whole and with their old times, as an atomic deployment does it: nothing is
/// copied while something is measured.
pub struct Versions {
    /// Of the model.
    directory: PathBuf,
    /// Where the version that is not in the repository waits.
    spare: PathBuf,
    newest: u64,
}

// === impl Versions ===

impl Versions {
    /// Makes the model `name` with one version in `repository`, and `settings` as its `model.toml`; `scratch` is a
    /// directory in the same file system.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(repository: &Path, scratch: &Path, settings: &str) -> anyhow::Result<Versions> {
        let directory = repository.join(LARGE.name);
        let spare = scratch.join("spare");
        let first = directory.join(FIRST_VERSION.to_string());
        let file = onnx_file(SQUARE_LAYERS);
        for version in [&spare, &first] {
            fs::create_dir_all(version)?;
            let path = version.join("model.onnx");
            fs::write(&path, &file).with_context(|| format!("cannot write {}", path.display()))?;
            fs::write(version.join(".complete"), "")?;
        }
        fs::write(directory.join("model.toml"), settings)?;
        Ok(Versions { directory, spare, newest: FIRST_VERSION })
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Moves one more version into the repository. The one before it must be taken out before the next.
    ///
    /// # Errors
    /// The file system's.
    pub fn add(&mut self) -> anyhow::Result<()> {
        let version = self.directory.join((self.newest + 1).to_string());
        fs::rename(&self.spare, &version)
            .with_context(|| format!("cannot rename to {}", version.display()))?;
        self.newest += 1;
        Ok(())
    }

    /// Moves the version before the newest out of the repository.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_older(&mut self) -> anyhow::Result<()> {
        let version = self.directory.join((self.newest - 1).to_string());
        fs::rename(&version, &self.spare).with_context(|| format!("cannot rename {}", version.display()))
    }
}

/// Puts one version of a model like [`LARGE`] into `repository`, with so many layers of 20 MB, and `settings` as its
/// `model.toml`.
///
/// # Errors
/// A file cannot be written.
pub fn create(repository: &Path, square_layers: usize, settings: &str) -> anyhow::Result<()> {
    let directory = repository.join(LARGE.name);
    let version = directory.join("1");
    fs::create_dir_all(&version)?;
    fs::write(version.join("model.onnx"), onnx_file(square_layers))?;
    fs::write(directory.join("model.toml"), settings)?;
    Ok(())
}

/// `x` FP32 [batch, 30] -> `y` FP32 [batch, 2], through matrix products with ReLU between them.
fn onnx_file(square_layers: usize) -> Vec<u8> {
    let mut sizes = vec![LARGE.row[0]];
    sizes.extend(vec![WIDTH; square_layers + 1]);
    sizes.push(OUTPUTS);
    let mut chain = Chain::new(LARGE.name, LARGE.row);
    for (layer, size) in sizes.windows(2).enumerate() {
        let name = format!("weights_{layer}");
        chain.matrix(&name, size[0], size[1], weights(layer, size[0], size[1]));
        if layer > 0 {
            chain.activate();
        }
        chain.multiply(&name);
    }
    chain.into_file(&[OUTPUTS])
}

/// Made-up weights of a size that keeps the variance of what a layer is given. No two layers may be equal: a
/// runtime would keep one of them.
fn weights(layer: usize, rows: usize, columns: usize) -> impl Iterator<Item = f32> {
    let scale = (6.0 / rows as f32).sqrt();
    let mut random = layer as u32;
    (0..rows * columns).map(move |_| {
        // The generator of Numerical Recipes: quick, and good enough for weights.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale
    })
}
