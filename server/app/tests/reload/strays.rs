//! Files that are not a model's: what systems, editors and tools leave beside it reloads nothing.

use std::fs;

use crate::files::Repository;
use crate::onnx;
use crate::server::Server;

const STRAYS: [&str; 10] = [
    "1/.DS_Store",
    "1/.nfs000000000123",
    "1/README.md",
    "1/.model.onnx.swp",
    "1/model.onnx~",
    "1/weights/.directory",
    "1/.ipynb_checkpoints/model.onnx",
    "README",
    ".model.toml.swp",
    "model.toml.bak",
];

/// The loads of `a` that succeeded.
fn loads(server: &Server) -> String {
    let (_, metrics) = server.text("/metrics");
    let is_count =
        |line: &&str| line.starts_with("gristmill_model_loads_total") && line.contains("model=\"a\"");
    metrics.lines().filter(is_count).map(|line| format!("{line}\n")).collect()
}

/// Brings a model, and waits until it serves: the repository was looked at meanwhile.
fn look(repository: &Repository, server: &Server, model: &str) {
    repository.put(model, 1, &[("model.onnx", &onnx::adds(2.0))]);
    server.wait_for(|server| server.entry(model, 1).filter(|entry| entry.state == "READY").map(drop));
}

#[test]
fn they_reload_nothing() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0)), ("w.bin", b"w")]);
    let server = Server::start(&repository, "30ms");
    let at_first = loads(&server);
    assert!(at_first.ends_with(" 1\n"), "{at_first}");

    let directory = repository.root().join("a");
    for stray in STRAYS {
        let path = directory.join(stray);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "left behind").unwrap();
    }
    look(&repository, &server, "came");
    for stray in STRAYS {
        fs::remove_file(directory.join(stray)).unwrap();
    }
    look(&repository, &server, "went");
    assert_eq!(loads(&server), at_first);

    // The model's own file does.
    fs::write(directory.join("1/w.bin"), "other weights").unwrap();
    server.wait_for(|server| (loads(server) != at_first).then_some(()));
}
