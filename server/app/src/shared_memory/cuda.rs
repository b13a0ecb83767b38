//! Memory of NVIDIA's GPUs that another process has allocated: opened through the driver, and copied from and to.
//!
//! The driver's library is opened by name when the server starts, so that one program serves with and without GPUs. What
//! is declared here is as in `cuda.h`; a handle is what the runtime's `cudaIpcGetMemHandle` gives, which is the driver's.

#![expect(unsafe_code, reason = "a C library is called; no crate calls just this much of it")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use libloading::Library;

/// The driver's library, by the name that programs link to.
const LIBRARY: &str = "libcuda.so.1";
/// Bytes of a handle (`CU_IPC_HANDLE_SIZE`).
const HANDLE_BYTES: usize = 64;
/// Lets a device read another one's memory (`CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`), the only flag that there is.
const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;

type Status = c_int;
type DevicePointer = u64;
type Context = *mut c_void;

/// `CUipcMemHandle`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Handle([u8; HANDLE_BYTES]);

/// The functions of the driver that are called. They are valid as long as the library is open.
struct Functions {
    error_text: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    retain_context: unsafe extern "C" fn(*mut Context, c_int) -> Status,
    push_context: unsafe extern "C" fn(Context) -> Status,
    pop_context: unsafe extern "C" fn(*mut Context) -> Status,
    open: unsafe extern "C" fn(*mut DevicePointer, Handle, c_uint) -> Status,
    close: unsafe extern "C" fn(DevicePointer) -> Status,
    allocation: unsafe extern "C" fn(*mut DevicePointer, *mut usize, DevicePointer) -> Status,
    to_host: unsafe extern "C" fn(*mut c_void, DevicePointer, usize) -> Status,
    to_device: unsafe extern "C" fn(DevicePointer, *const c_void, usize) -> Status,
    _library: Library,
}

/// NVIDIA's driver.
pub struct Driver(Arc<Inner>);

struct Inner {
    functions: Functions,
    /// By device; those that the runtime of ONNX Runtime uses too. They are never given back: the process ends with them.
    contexts: Mutex<BTreeMap<c_int, Primary>>,
}

/// A device's primary context.
#[derive(Clone, Copy)]
struct Primary(Context);

// SAFETY: a context may be current in any thread, also in several at the same time (CUDA Driver API, "Context
// Management"); it is only ever handed back to the driver.
unsafe impl Send for Primary {}

/// An allocation of another process, until this is dropped.
pub(super) struct DeviceMemory {
    driver: Arc<Inner>,
    context: Primary,
    device: c_int,
    start: DevicePointer,
}

// SAFETY: as of the context; copies by several threads do not disturb each other.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for DeviceMemory {}

// === impl Driver ===

impl Driver {
    /// # Errors
    /// There is no driver, it lacks a function, or it finds no GPU.
    pub fn load() -> Result<Driver, String> {
        let no_library = |error| format!("cannot open {LIBRARY}, which comes with NVIDIA's driver: {error}");
        // SAFETY: what the driver does when it is opened is what every program that links to it trusts in.
        let library = unsafe { Library::new(LIBRARY) }.map_err(no_library)?;
        let functions = Functions::find(library)?;
        Ok(Driver(Arc::new(Inner { functions, contexts: Mutex::default() })))
    }

    /// The allocation that `handle` means, of `bytes` at least.
    ///
    /// # Errors
    /// The text says why the driver does not open it, or what it lacks.
    pub(super) fn open(&self, handle: &[u8], device: i64, bytes: u64) -> Result<DeviceMemory, String> {
        let Driver(inner) = self;
        let Ok(handle) = <[u8; HANDLE_BYTES]>::try_from(handle) else {
            return Err(format!(
                "its handle has {} bytes: expected the {HANDLE_BYTES} of cudaIpcGetMemHandle",
                handle.len()
            ));
        };
        let no_device = || format!("device_id is {device}: expected a GPU's number from 0 on");
        let device = c_int::try_from(device).ok().filter(|&device| device >= 0).ok_or_else(no_device)?;
        let context = inner.context(device)?;
        let functions = &inner.functions;
        let (start, length) = inner.within(context, || {
            let mut start = 0;
            // SAFETY: the place is writable, and the handle is whole.
            let opened = unsafe { (functions.open)(&raw mut start, Handle(handle), LAZY_ENABLE_PEER_ACCESS) };
            functions.done("opening the handle", opened)?;
            let mut length = 0;
            // SAFETY: the base is not wanted, the length's place is writable, and the pointer is the driver's.
            let found = unsafe { (functions.allocation)(std::ptr::null_mut(), &raw mut length, start) };
            functions.done("finding its size", found).map(|()| (start, length))
        })?;
        // From here on it is closed when it is dropped.
        let memory = DeviceMemory { driver: Arc::clone(inner), context, device, start };
        match bytes > length as u64 {
            true => Err(format!("{bytes} bytes do not fit into its allocation, which has {length}")),
            false => Ok(memory),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LIBRARY)
    }
}

// === impl Functions ===

impl Functions {
    fn find(library: Library) -> Result<Functions, String> {
        fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
            // SAFETY: each name has the type in `cuda.h` that the caller expects.
            let found = unsafe { library.get::<F>(name) };
            found.map(|function| *function).map_err(|error| format!("{LIBRARY} has no {name}: {error}"))
        }
        let start: unsafe extern "C" fn(c_uint) -> Status = function(&library, "cuInit")?;
        let functions = Functions {
            error_text: function(&library, "cuGetErrorString")?,
            device: function(&library, "cuDeviceGet")?,
            retain_context: function(&library, "cuDevicePrimaryCtxRetain")?,
            push_context: function(&library, "cuCtxPushCurrent_v2")?,
            pop_context: function(&library, "cuCtxPopCurrent_v2")?,
            open: function(&library, "cuIpcOpenMemHandle_v2")?,
            close: function(&library, "cuIpcCloseMemHandle")?,
            allocation: function(&library, "cuMemGetAddressRange_v2")?,
            to_host: function(&library, "cuMemcpyDtoH_v2")?,
            to_device: function(&library, "cuMemcpyHtoD_v2")?,
            _library: library,
        };
        // SAFETY: there are no flags; that is the first call, as it must be.
        let started = unsafe { start(0) };
        functions.done("starting CUDA", started).map(|()| functions)
    }

    fn done(&self, what: &str, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the place is writable.
        unsafe { (self.error_text)(status, &raw mut text) };
        let text = match text.is_null() {
            true => "unknown".into(),
            // SAFETY: such texts end with zero, and are there as long as the library is.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy(),
        };
        Err(format!("{what} fails: {text} (CUDA error {status})"))
    }
}

// === impl Inner ===

impl Inner {
    fn context(&self, device: c_int) -> Result<Primary, String> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = contexts.get(&device) {
            return Ok(*context);
        }
        let functions = &self.functions;
        let mut handle = 0;
        // SAFETY: the place is writable.
        let found = unsafe { (functions.device)(&raw mut handle, device) };
        functions.done(&format!("finding GPU {device}"), found)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the place is writable, and the driver has just given the device.
        let retained = unsafe { (functions.retain_context)(&raw mut context, handle) };
        functions.done(&format!("using GPU {device}"), retained)?;
        contexts.insert(device, Primary(context));
        Ok(Primary(context))
    }

    /// What `work` gives, with the context current in this thread meanwhile.
    fn within<T>(
        &self,
        Primary(context): Primary,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        // SAFETY: the context is retained for good.
        let pushed = unsafe { (self.functions.push_context)(context) };
        self.functions.done("using the GPU", pushed)?;
        let result = work();
        let mut popped = std::ptr::null_mut();
        // SAFETY: the place is writable, and one was pushed.
        let done = unsafe { (self.functions.pop_context)(&raw mut popped) };
        let done = self.functions.done("leaving the GPU", done);
        result.and_then(|result| done.map(|()| result))
    }
}

// === impl DeviceMemory ===

impl DeviceMemory {
    /// As CUDA counts them.
    pub(super) fn device(&self) -> i64 {
        self.device.into()
    }

    /// Copies what is there from `offset` on, which is inside of what was opened.
    ///
    /// # Errors
    /// The driver cannot copy it.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), String> {
        let functions = &self.driver.functions;
        self.driver.within(self.context, || {
            // SAFETY: the target has that many bytes, and so has the allocation from there on. It returns when they are
            // copied.
            let copied =
                unsafe { (functions.to_host)(data.as_mut_ptr().cast(), self.start + offset, data.len()) };
            functions.done("copying from the GPU", copied)
        })
    }

    /// # Errors
    /// The driver cannot copy it.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<(), String> {
        let functions = &self.driver.functions;
        self.driver.within(self.context, || {
            // SAFETY: the source has that many bytes, and the allocation has room for them from there on.
            let copied =
                unsafe { (functions.to_device)(self.start + offset, data.as_ptr().cast(), data.len()) };
            functions.done("copying to the GPU", copied)
        })
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let functions = &self.driver.functions;
        let closed = self.driver.within(self.context, || {
            // SAFETY: it was opened once, and nobody uses it any more.
            functions.done("closing the handle", unsafe { (functions.close)(self.start) })
        });
        if let Err(why) = closed {
            tracing::warn!("CUDA shared memory on GPU {}: {why}", self.device);
        }
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} on GPU {}", self.start, self.device)
    }
}
