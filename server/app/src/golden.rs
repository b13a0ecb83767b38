//! Reads golden inputs, requests whose right answers are known: `golden.json` or `golden.npz` beside a model.
//!
//! The files lie in a version's directory, or in the model's for all versions; where there are
//! several, their cases all count. The two formats say the same.
//!
//! `golden.json` is one case, or a list of them under `cases`:
//!
//! ```json
//! {
//!   "inputs": {"x": [[1.0, 2.0], [3.0, 4.0]]},
//!   "outputs": {"y": [[0.5], [0.7]]},
//!   "tolerance": 1e-5
//! }
//! {
//!   "tolerance": {"absolute": 0.0, "relative": 1e-3},
//!   "cases": [{"name": "winter", "inputs": {}, "outputs": {}, "tolerance": 1e-4}]
//! }
//! ```
//!
//! Tensors are nested lists of numbers (`NaN`, `Infinity` and `-Infinity` included), of texts or of
//! truth values, in the tensor's shape. A tolerance is a number, which stands for both bounds, or an
//! object with `absolute`, `relative` or both; what is left out is 1e-5. One beside `cases` is for those
//! that have none.
//!
//! `golden.npz` is an archive of numpy's `savez` or `savez_compressed` with arrays named
//! `inputs/<input>`, `outputs/<output>` and `tolerance`, or `tolerance/absolute` and
//! `tolerance/relative`, which hold one number; of several cases each has its name in front:
//! `winter/inputs/<input>`. In Python: `np.savez(path, **{"inputs/x": x, "outputs/y": y})`.

mod draft;
mod json;
mod npy;
mod npz;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use gristmill_engine::golden::{Golden, GoldenCase};

pub use self::json::parse as parse_json;
pub use self::npz::parse as parse_npz;

const JSON_FILE: &str = "golden.json";
const NPZ_FILE: &str = "golden.npz";

/// Largest golden file that is read, in bytes; for an archive, of all its arrays together when
/// unpacked. A file of samples that is larger makes every load slow.
const BYTES_MAX: u64 = 256 << 20;

/// The golden inputs of the version in `version_directory`, those for all versions of the model (in the
/// directory above) included; `None` where there are none.
///
/// # Errors
/// A file cannot be read or does not say what it should: the text names the file, the tensor or array,
/// what was expected and what came.
pub(crate) fn read(version_directory: &Path) -> Result<Option<Golden>, String> {
    let mut cases = read_directory(version_directory, "")?;
    // The parent by name: a version may be a symbolic link, whose `..` is another directory.
    if let Some(model_directory) = version_directory.parent() {
        cases.extend(read_directory(model_directory, "../")?);
    }
    Ok((!cases.is_empty()).then_some(Golden { cases }))
}

/// The cases of the golden files in `directory` alone, whose names begin with `prefix`.
///
/// # Errors
/// As of [`read`].
pub(crate) fn read_directory(directory: &Path, prefix: &str) -> Result<Vec<GoldenCase>, String> {
    let mut cases = Vec::new();
    for (name, parse) in [(JSON_FILE, parse_json as Parse), (NPZ_FILE, parse_npz)] {
        let path = directory.join(name);
        if let Some(bytes) = read_file(&path)? {
            let label = format!("{prefix}{name}");
            cases.extend(parse(&bytes, &label).map_err(|why| format!("{}: {why}", path.display()))?);
        }
    }
    Ok(cases)
}

type Parse = fn(&[u8], &str) -> Result<Vec<GoldenCase>, String>;

/// The file's contents; `None` where there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!(
            "{} is larger than {BYTES_MAX} bytes, the most for golden inputs: keep fewer rows",
            path.display()
        ));
    }
    Ok(Some(bytes))
}
