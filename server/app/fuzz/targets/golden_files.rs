//! Any bytes as golden inputs. The first byte picks the form: `golden.json`, `golden.npz`, or one array inside such an
//! archive, whose checksums no change of bytes would get past. What is read is sound and has something to compare.
#![no_main]

use std::io::{Cursor, Write as _};

use gristmill::golden::{parse_json, parse_npz};
use gristmill_fuzz::check_inputs;
use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// `numpy.float32(1)`.
const ONE: &[u8] =
    b"\x93NUMPY\x01\x00\x38\x00{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n\0\0\x80\x3f";

fuzz_target!(|data: &[u8]| {
    let Some((&pick, file)) = data.split_first() else { return };
    let read = match pick % 3 {
        0 => parse_json(file, "golden.json"),
        1 => parse_npz(file, "golden.npz"),
        _ => parse_npz(&archive(file), "golden.npz"),
    };
    match read {
        Ok(cases) => {
            assert!(!cases.is_empty(), "a file has a case");
            for case in cases {
                check_inputs(&case.inputs);
                check_inputs(&case.outputs);
                assert!(!case.name.is_empty() && !case.outputs.is_empty());
            }
        }
        Err(why) => assert!(!why.is_empty(), "a fault has a text"),
    }
});

fn archive(array: &[u8]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in [("inputs/x.npy", array), ("outputs/y.npy", ONE)] {
        writer.start_file(name, stored).expect("the name is one");
        writer.write_all(content).expect("memory can be written to");
    }
    writer.finish().expect("memory can be written to").into_inner()
}
