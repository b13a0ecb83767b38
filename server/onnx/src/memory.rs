//! Gives memory that the runtimes have freed back to the system.

/// Blocks of this size are taken from the system one by one: weights, and the regions in which ONNX Runtime keeps
/// what a run needs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BLOCK_BYTES_MIN: i32 = 4 << 20;
/// What may stay free at the end of each of the C library's heaps, of which there are eight for each core.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_END_BYTES_MAX: i32 = 1 << 20;

/// Has the C library return large blocks to the system when they are freed. To be called before models are loaded.
///
/// By default it learns from the blocks that are freed, up to 32 MB, to keep such blocks in its heaps, and to leave
/// up to 64 MB free at the end of each, which [`release_free_memory`] does not reach: over 100 reloads of a model of
/// 100 MB, up to 150 MB stayed.
pub(crate) fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library has no safe face")]
    // SAFETY: both take a number and change how later calls allocate; the C library locks for itself.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BLOCK_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_END_BYTES_MAX);
    }
}

/// Returns free pages of the C library's allocator to the system.
///
/// ONNX Runtime allocates with glibc, which keeps what a load or a dropped session frees. Takes up to
/// about 0.1 s with a large heap, so it is for the thread that loads models.
pub fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the C library has no safe face")]
    // SAFETY: malloc_trim takes a number, locks the arenas itself, and frees no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
