//! Which files beside a model's are not its own: a change of theirs loads nothing anew.

use std::path::Path;

/// What systems, editors and tools leave in a directory, and documents about a model. Names are compared in lower case.
const NAMES: [&str; 7] =
    ["thumbs.db", "desktop.ini", "lost+found", "__macosx", "__pycache__", "@eadir", "4913"];
/// Before the first dot.
const STEMS: [&str; 8] =
    ["readme", "license", "licence", "notice", "changelog", "authors", "contributing", "citation"];
/// Backups, files that are still being written, and documents.
const ENDS: [&str; 16] = [
    "~", ".swp", ".swo", ".swx", ".bak", ".orig", ".rej", ".tmp", ".temp", ".part", ".partial", ".lock",
    ".pyc", ".md", ".rst", ".ipynb",
];

/// Whether what has this name, a file or a directory, is not the model's. Hidden ones never are.
pub fn is_stray(name: &Path) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    let stem = name.split('.').next().unwrap_or_default();
    let is_backup = name.starts_with('#') && name.ends_with('#');
    name.starts_with('.')
        || is_backup
        || NAMES.contains(&name.as_str())
        || STEMS.contains(&stem)
        || ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_leave_is_told_from_what_a_model_has() {
        for stray in [
            ".DS_Store",
            "._model.onnx",
            ".nfs000000000123",
            ".model.onnx.swp",
            ".git",
            "model.onnx~",
            "#model.onnx#",
            ".#model.onnx",
            "4913",
            "README",
            "README.txt",
            "readme.md",
            "Thumbs.db",
            "model.onnx.part",
            "model.toml.bak",
            "__pycache__",
        ] {
            assert!(is_stray(Path::new(stray)), "{stray}");
        }
        for own in
            ["model.onnx", "weights.bin", "weights", "labels.txt", "SHA256SUMS", "golden", "vocab.json", "1"]
        {
            assert!(!is_stray(Path::new(own)), "{own}");
        }
    }
}
