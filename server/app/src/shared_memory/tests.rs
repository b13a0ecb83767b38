//! What a client may register, and that nothing it does to its file afterwards harms the server.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::companions::Companions;
use gristmill_engine::request::{ModelInfo, Response, Timing};
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};
use tempfile::{NamedTempFile, TempDir};

use super::regions::{REGION_BYTES_MAX, REGIONS_MAX};
use super::*;

const FLAG: &str = "--grpc-message-bytes-max";

/// A file with the bytes 0, 1, 2, ... , and its key.
fn file(length: u8) -> (NamedTempFile, String) {
    let file = NamedTempFile::new_in("/dev/shm").unwrap();
    fs::write(file.path(), (0..length).collect::<Vec<u8>>()).unwrap();
    let key = key(file.path());
    (file, key)
}

fn key(path: &Path) -> String {
    format!("/{}", path.file_name().unwrap().to_str().unwrap())
}

fn refusal(memory: &SharedMemory, key: &str, offset: u64, bytes: u64) -> String {
    memory.register_file("r", key, offset, bytes).unwrap_err().to_string()
}

fn place(region: &str, offset: u64, byte_size: u64) -> Place {
    Place { region: Some(region.into()), byte_size: Some(byte_size), offset: Some(offset) }
}

/// An answer with these bytes.
fn response(data: &'static [u8]) -> Response {
    let shape = Some([Dim::Fixed(data.len())].as_slice().into());
    let output =
        TensorSpec { name: "y".into(), dtype: DType::Uint8, shape, optional: false, labels: Vec::new() };
    let signature = Signature {
        inputs: Vec::new(),
        outputs: vec![output],
        batch: BatchAxis::None { reason: "one answer".into() },
    };
    let model = ModelInfo {
        name: "m".into(),
        version: 1,
        signature,
        platform: "fake".into(),
        batch_rows_max: 1,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        companions: Companions::default(),
        notes: Vec::new(),
    };
    let tensor = Tensor::new(DType::Uint8, [data.len()].as_slice(), data.into()).unwrap();
    Response {
        model: Arc::new(model),
        degraded_from: None,
        routed: None,
        rows: 1,
        outputs: [(0, tensor)].into_iter().collect(),
        timing: Timing::default(),
        batches: Vec::new(),
        answer_limit: None,
    }
}

#[test]
fn keys_lead_nowhere_else() {
    let memory = SharedMemory::new(true, None);
    let long = "k".repeat(256);
    for key in ["", "/", ".", "..", "/..", "../etc/hostname", "/dev/shm/x", "//x", "a/b", "a\0b", &long] {
        let why = refusal(&memory, key, 0, 1);
        assert!(why.contains("is no name of a file in /dev/shm"), "{key:?}: {why}");
    }
    let (target, _) = file(8);
    let directory = TempDir::new_in("/dev/shm").unwrap();
    let links = [target.path(), Path::new("/etc/hostname"), directory.path()];
    for (index, target) in links.into_iter().enumerate() {
        let link = directory.path().with_extension(index.to_string());
        symlink(target, &link).unwrap();
        let why = refusal(&memory, &key(&link), 0, 1);
        fs::remove_file(&link).unwrap();
        assert!(why.contains("cannot open") && why.contains("not a link"), "{}: {why}", target.display());
    }
    assert!(refusal(&memory, &key(directory.path()), 0, 1).contains("cannot open"), "a directory");
    assert!(refusal(&memory, "/gristmill-nothing-of-this-name", 0, 1).contains("cannot open"));
    assert_eq!(memory.files("").unwrap(), []);
}

#[test]
fn a_region_is_inside_its_file() {
    let memory = SharedMemory::new(true, None);
    let (_file, key) = file(8);
    let inside = |offset, bytes| match memory.register_file("r", &key, offset, bytes) {
        Ok(()) => {
            memory.unregister(Kind::File, "r");
            true
        }
        Err(_) => false,
    };
    assert_eq!([inside(0, 8), inside(7, 1), inside(0, 9), inside(8, 1)], [true, true, false, false]);
    assert_eq!([inside(0, 0), inside(u64::MAX, 1), inside(1, REGION_BYTES_MAX + 1)], [false; 3]);
    assert_eq!(
        refusal(&memory, &key, 4, 5),
        format!(
            "shared memory region 'r': 5 bytes from offset 4 on do not fit into /dev/shm{key}, which has 8"
        )
    );
    assert_eq!(
        refusal(&memory, &key, 0, 0),
        "shared memory region 'r': byte_size is 0: expected 1 to 17179869184"
    );
}

#[test]
fn names_are_registered_once_and_not_without_end() {
    let memory = SharedMemory::new(true, None);
    let (_file, key) = file(8);
    memory.register_file("r", &key, 2, 4).unwrap();
    let fault = memory.register_file("r", &key, 0, 1).unwrap_err();
    assert_eq!(fault.codes().0, tonic::Code::AlreadyExists);
    let status = RegionStatus { name: "r".into(), key: key.clone(), offset: 2, bytes: 4 };
    assert_eq!(memory.files("r").unwrap(), [status]);
    assert_eq!(memory.files("s").unwrap_err().codes().0, tonic::Code::NotFound);
    for index in 1..REGIONS_MAX {
        memory.register_file(&index.to_string(), &key, 0, 8).unwrap();
    }
    let fault = memory.register_file("s", &key, 0, 8).unwrap_err();
    assert_eq!(fault.codes().0, tonic::Code::ResourceExhausted, "{fault}");
    memory.unregister(Kind::File, "nothing");
    assert_eq!(memory.files("").unwrap().len(), REGIONS_MAX);
    memory.unregister(Kind::File, "");
    assert_eq!(memory.files("").unwrap(), []);
    assert!(memory.register_file("", &key, 0, 1).is_err(), "a name is needed");
}

#[test]
fn parts_are_inside_their_region() {
    let memory = SharedMemory::new(true, None);
    let (_file, key) = file(8);
    memory.register_file("r", &key, 2, 4).unwrap();
    let read = |place| Reach::new(Some(&memory), 6, FLAG).read("input 'x'", place);
    assert_eq!(&read(place("r", 0, 4)).unwrap()[..], [2, 3, 4, 5]);
    assert_eq!(&read(place("r", 3, 1)).unwrap()[..], [5]);
    assert_eq!(&read(place("r", 4, 0)).unwrap()[..], [0_u8; 0]);
    let outside = |place| read(place).unwrap_err().to_string();
    assert_eq!(
        outside(place("r", 1, 4)),
        "input 'x': 4 bytes from offset 1 on are not inside shared memory region 'r', which has 4"
    );
    assert!(outside(place("r", u64::MAX, 1)).contains("not inside"));
    assert!(outside(place("s", 0, 1)).contains("no shared memory region 's' is registered"));
    assert!(
        outside(Place { region: None, ..place("r", 0, 1) }).contains("'shared_memory_region' is missing")
    );
    let without_size = Place { byte_size: None, ..place("r", 0, 1) };
    assert!(outside(without_size).contains("'shared_memory_byte_size' is missing"));

    // One region, named by several inputs.
    let mut reach = Reach::new(Some(&memory), 6, FLAG);
    reach.read("input 'x'", place("r", 0, 4)).unwrap();
    assert_eq!(
        reach.read("input 'z'", place("r", 0, 3)).unwrap_err(),
        gristmill_engine::error::InferError::TooLarge(
            "input 'z' has 3 bytes in shared memory, where the inputs of one request may have 6 together: send \
             fewer rows in a request, or raise --grpc-message-bytes-max"
                .into()
        )
    );
}

/// Were the file mapped, each of these would end the process with SIGBUS.
#[test]
fn a_file_may_be_truncated() {
    let memory = SharedMemory::new(true, None);
    let (file, key) = file(8);
    memory.register_file("r", &key, 0, 8).unwrap();
    let mut reach = Reach::new(Some(&memory), 100, FLAG);
    let part = reach.find("output 'y'", place("r", 0, 8)).unwrap();
    File::options().write(true).open(file.path()).unwrap().set_len(3).unwrap();
    assert_eq!(
        reach.read("input 'x'", place("r", 0, 8)).unwrap_err().to_string(),
        format!(
            "input 'x': shared memory region 'r': its file (key '{key}') was truncated after it was registered: it has 3 \
             bytes, expected 8 at least"
        )
    );
    let placed = [PlacedOutput { output: 0, part }];
    let why = write_outputs(&response(b"four"), &placed).unwrap_err().to_string();
    assert!(why.contains("was truncated") && why.contains("has 3 bytes, expected 4"), "{why}");
    write_outputs(&response(b"abc"), &placed).unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"abc");
}

#[test]
fn outputs_are_written_where_they_fit() {
    let memory = SharedMemory::new(true, None);
    let (file, key) = file(8);
    memory.register_file("r", &key, 1, 6).unwrap();
    let find = |offset, bytes| {
        let part = Reach::new(Some(&memory), 0, FLAG).find("output 'y'", place("r", offset, bytes)).unwrap();
        PlacedOutput { output: 0, part }
    };
    let (wide, narrow) = (find(1, 4), find(0, 3));
    // Requests that have begun keep their regions.
    memory.unregister(Kind::File, "r");
    assert_eq!(
        write_outputs(&response(b"wxyz"), &[wide.clone(), narrow]).unwrap_err().to_string(),
        "output 'y': it has 4 bytes, its part of shared memory region 'r' has 3: give it more \
         (shared_memory_byte_size), or ask for fewer rows"
    );
    assert_eq!(fs::read(file.path()).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7], "nothing is written");
    write_outputs(&response(b"wxyz"), &[wide]).unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"\x00\x01wxyz\x06\x07");
}
