//! Models of many operators, made when they are needed: runs last as long as there are operators and rows.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::model::Model;
use crate::onnx::Chain;

/// A chain of products with matrices of 256 rows and columns.
#[derive(Clone, Copy, Debug)]
pub struct Deep {
    pub model: Model,
    /// How many. One takes about 0.5 ms for 512 rows on one thread, and 5 us for one row.
    pub products: usize,
}

/// Rows are short, so that a request of many is small.
const ROW: &[usize] = &[4];
const WIDTH: usize = 256;

/// Runs of many rows take seconds.
pub const DEEP: Deep = Deep { model: Model { name: "deep", row: ROW }, products: 8000 };
/// Runs of some rows take some tens of milliseconds.
pub const HEAVY: Deep = Deep { model: Model { name: "heavy", row: ROW }, products: 1000 };

/// One row, which is a matrix of 256 rows, takes about 0.25 ms for each product.
pub const fn tall(products: usize) -> Deep {
    Deep { model: Model { name: "heavy", row: &[256, 4] }, products }
}

/// One row, which is a matrix of 512 rows, takes about two seconds.
pub const SLOW: Deep = Deep { model: Model { name: "slow", row: &[512, 4] }, products: 4000 };

// === impl Deep ===

impl Deep {
    /// Puts the model into a repository as version 1, with `settings` as its `model.toml`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(&self, repository: &Path, settings: &str) -> anyhow::Result<()> {
        let directory = repository.join(self.model.name);
        let version = directory.join("1");
        fs::create_dir_all(&version)?;
        let path = version.join("model.onnx");
        fs::write(&path, self.onnx_file()).with_context(|| format!("cannot write {}", path.display()))?;
        fs::write(version.join(".complete"), "")?;
        Ok(fs::write(directory.join("model.toml"), settings)?)
    }

    /// Spreads a row over [`WIDTH`] values, turns these by one place again and again, and takes the first ones.
    fn onnx_file(&self) -> Vec<u8> {
        let columns = ROW[0];
        let mut chain = Chain::new(self.model.name, self.model.row);
        let place = |width: usize| move |index: usize| (index / width, index % width);
        let same = |(row, column): (usize, usize)| f32::from(row == column);
        let next = |(row, column): (usize, usize)| f32::from((row + 1) % WIDTH == column);
        chain.matrix("spread", columns, WIDTH, (0..columns * WIDTH).map(place(WIDTH)).map(same));
        chain.matrix("turn", WIDTH, WIDTH, (0..WIDTH * WIDTH).map(place(WIDTH)).map(next));
        chain.matrix("gather", WIDTH, columns, (0..WIDTH * columns).map(place(columns)).map(same));
        chain.multiply("spread");
        for _ in 0..self.products {
            chain.multiply("turn");
        }
        chain.multiply("gather");
        chain.into_file(self.model.row)
    }
}
