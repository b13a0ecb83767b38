//! Versions that are copied slowly: nothing of them is tried before they are whole.

use std::fs;
use std::io::Write as _;

use crate::files::Repository;
use crate::onnx;
use crate::server::Server;

/// Long enough that no file of this test settles by itself.
const NEVER: &str = "1h";

#[test]
fn a_slow_copy_is_loaded_when_it_says_that_it_is_complete() {
    let repository = Repository::new();
    repository.put("m", 1, &[("model.onnx", &onnx::adds(1.0)), (".complete", b"")]);
    let server = Server::start(&repository, NEVER);
    let directory = repository.version("m", 2);
    fs::create_dir(&directory).unwrap();
    let whole = onnx::adds(2.0);
    let mut file = fs::File::create(directory.join("model.onnx")).unwrap();
    for piece in whole.chunks(20) {
        let entry = server.wait_for(|server| server.entry("m", 2));
        assert_eq!(
            (entry.state.as_str(), entry.reason.as_str()),
            ("UNAVAILABLE", "its files are still being written")
        );
        assert_eq!(server.readiness(), serde_json::json!({"ready": true}), "nothing is wrong");
        assert_eq!(server.infer("m"), ("1".into(), 1.0));
        file.write_all(piece).unwrap();
    }
    fs::write(directory.join(".complete"), "").unwrap();
    server.wait_for(|server| (server.infer("m") == ("2".into(), 2.0)).then_some(()));
}

#[test]
fn a_copy_under_a_hidden_name_is_not_there() {
    let repository = Repository::new();
    repository.put("m", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let server = Server::start(&repository, "30ms");
    let hidden = repository.root().join("m/.2.part");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("model.onnx"), b"half of it").unwrap();
    // What comes after it is seen: so it was seen as well.
    repository.put("n", 1, &[("model.onnx", &onnx::adds(3.0))]);
    server.wait_for(|server| server.entry("n", 1).filter(|entry| entry.state == "READY"));
    let versions: Vec<String> = server.index().into_iter().map(|entry| entry.version).collect();
    assert_eq!(versions, ["1", "1"]);
    fs::write(hidden.join("model.onnx"), onnx::adds(2.0)).unwrap();
    fs::rename(hidden, repository.version("m", 2)).unwrap();
    server.wait_for(|server| (server.infer("m") == ("2".into(), 2.0)).then_some(()));
}
