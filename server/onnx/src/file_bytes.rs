//! The bytes of a model file, read and freed in steps that are short enough for a thread in the background.
//!
//! The operating system interrupts no system call to let a thread yield, and one that reads or frees 100 MB takes
//! as long as many requests. So the runtimes are given bytes that were read here, not the file's path.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

/// Contents of a file.
#[derive(Debug)]
pub(crate) struct FileBytes(Vec<u8>);

/// Takes some 20 us to copy or to free.
const STEP_BYTES: usize = 64 << 10;

// === impl FileBytes ===

impl FileBytes {
    pub(crate) fn read(path: &Path) -> io::Result<FileBytes> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(io::Error::other)?;
        while file.by_ref().take(STEP_BYTES as u64).read_to_end(&mut bytes)? > 0 {}
        Ok(FileBytes(bytes))
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> FileBytes {
        FileBytes(bytes)
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(target_os = "linux")]
impl Drop for FileBytes {
    /// Gives the pages back step by step, so that little is left to do for the allocator.
    fn drop(&mut self) {
        let bytes = self.0.as_mut_slice();
        if bytes.len() < 2 * STEP_BYTES {
            return;
        }
        // Steps are whole pages of any size that Linux has.
        let start = bytes.as_ptr().align_offset(STEP_BYTES);
        for step in bytes[start..].chunks_exact_mut(STEP_BYTES) {
            #[expect(unsafe_code, reason = "the standard library has no safe face")]
            // SAFETY: these pages are this vector's alone, and nobody reads them any more; were they read, they
            // would be zeros.
            let freed = unsafe { libc::madvise(step.as_mut_ptr().cast(), step.len(), libc::MADV_DONTNEED) };
            if freed != 0 {
                // Locked memory, for example: the allocator frees all of it at once.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, STEP_BYTES - 1, STEP_BYTES, 5 * STEP_BYTES + 7] {
            let content: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let bytes = FileBytes::read(&path).unwrap();
            assert!(bytes[..] == content, "{length} bytes");
        }
        assert!(FileBytes::read(&directory.path().join("other")).is_err());
    }

    #[test]
    fn memory_is_as_good_as_new_afterwards() {
        for length in [3 * STEP_BYTES, 40 * STEP_BYTES + 1] {
            drop(FileBytes::from(vec![1; length]));
            let zeros = vec![0_u8; length];
            assert!(zeros.iter().all(|byte| *byte == 0));
        }
    }
}
