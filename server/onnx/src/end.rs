//! Ends the process without taking the runtimes' libraries down.

use std::io::Write as _;

/// Ends the process at once with this exit code.
///
/// The usual end runs what libraries have registered for it, and ONNX Runtime's takes down what a thread that is
/// still inside it works with: the process would end by a segmentation fault. The system takes everything back
/// anyway.
pub fn end_process(code: u8) -> ! {
    // Nobody is there to hear that nobody reads any more.
    let _unread = std::io::stdout().flush();
    #[expect(unsafe_code, reason = "the standard library has no safe face")]
    // SAFETY: _exit takes a number, touches no memory of the process and does not return.
    unsafe {
        libc::_exit(code.into())
    }
}
