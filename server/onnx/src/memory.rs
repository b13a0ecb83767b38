//! Gives memory that the runtimes have freed back to the system.

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
