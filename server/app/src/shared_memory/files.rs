//! Files in memory: what a key may lead to, and how a part of one is read and written.
//!
//! Files are read and written at a position, and never mapped. A client may truncate its file whenever it likes, and
//! touching a mapped page behind the end of a file raises SIGBUS, which would end the server; `pread` comes back short
//! instead. What was read once does not change either while a model looks at it, whatever the client writes meanwhile.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Where POSIX shared memory objects are files on Linux.
const DIRECTORY: &str = "/dev/shm";
/// Longest name of a file.
const NAME_BYTES_MAX: usize = 255;

/// A part of a file that was there when it was opened.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    key: String,
    /// Where in the file it begins.
    offset: u64,
}

// === impl SharedFile ===

impl SharedFile {
    /// `bytes` of the file with the name `key`, from `offset` on.
    ///
    /// # Errors
    /// The key leads nowhere or out of /dev/shm, or the file is shorter than that.
    pub(super) fn open(key: &str, offset: u64, bytes: u64) -> Result<SharedFile, String> {
        let Some(file_name) = file_name(key) else {
            return Err(format!(
                "key '{key}' is no name of a file in {DIRECTORY}: expected 1 to {NAME_BYTES_MAX} bytes without '/', \
                 which may stand in front of them alone"
            ));
        };
        let file = open(file_name).map_err(|error| {
            format!(
                "cannot open {DIRECTORY}/{file_name} for reading and writing: {error}; expected a file, not a link, \
                 that belongs to the server's user"
            )
        })?;
        let metadata = file.metadata().map_err(|error| format!("cannot look at its file: {error}"))?;
        if !metadata.is_file() {
            return Err(format!("{DIRECTORY}/{file_name} is not a file"));
        }
        let length = metadata.len();
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            return Err(format!(
                "{bytes} bytes from offset {offset} on do not fit into {DIRECTORY}/{file_name}, which has {length}"
            ));
        }
        Ok(SharedFile { file, key: key.to_owned(), offset })
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Where in the file it begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Copies what is there from `offset` on, which is inside of what was opened, as in the others.
    ///
    /// # Errors
    /// The file was truncated, or cannot be read.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), String> {
        match self.file.read_exact_at(data, self.offset + offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.cut_short(offset + data.len() as u64))
            }
            Err(error) => Err(format!("its file cannot be read: {error}")),
        }
    }

    /// A write behind the end would make the file longer. A client that truncates its file just now finds it so, at
    /// most as long as it was when it was registered.
    ///
    /// # Errors
    /// The file was truncated.
    pub(super) fn check(&self, offset: u64, bytes: u64) -> Result<(), String> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() < self.offset + offset + bytes => {
                Err(self.cut_short(offset + bytes))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), String> {
        let written = self.file.write_all_at(data, self.offset + offset);
        written.map_err(|error| format!("its file cannot be written: {error}"))
    }

    /// `end` is counted like an offset.
    fn cut_short(&self, end: u64) -> String {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        format!(
            "its file (key '{}') was truncated after it was registered: it has {length} bytes, expected {} at least",
            self.key,
            self.offset + end
        )
    }
}

/// The name of the file in the directory: the key without the slash in front that POSIX asks for.
fn file_name(key: &str) -> Option<&str> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\0']);
    (is_name && name != "." && name != "..").then_some(name)
}

/// A name without a slash cannot lead out of the directory unless it is a link, which is not followed. A pipe does not
/// make the server wait.
fn open(file_name: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(Path::new(DIRECTORY).join(file_name))
}
