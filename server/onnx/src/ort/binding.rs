//! Runs through an I/O binding, for execution providers with memory of their own: outputs are brought to the host by the runtime.

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::slice;

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{RunOptions, Session};
use ort::sys::{OrtIoBinding, OrtValue};

use super::values::{Input, Value, check};

/// A binding of one session's inputs and outputs, used again for every run.
pub(crate) struct Binding {
    pointer: NonNull<OrtIoBinding>,
    host: MemoryInfo<'static>,
}

#[expect(unsafe_code, reason = "a pointer says nothing about threads")]
// SAFETY: the binding is a plain object of the C interface, reached through `&mut self` only; nothing in it
// belongs to the thread that made it.
unsafe impl Send for Binding {}

#[expect(unsafe_code, reason = "calls of ONNX Runtime's C interface")]
impl Binding {
    /// `session` must outlive the binding: both belong to one instance.
    ///
    /// # Errors
    /// What the runtime reports.
    pub(crate) fn new(session: &Session) -> Result<Binding, ort::Error> {
        let mut pointer = ptr::null_mut();
        // SAFETY: the session is alive; making a binding changes nothing in it.
        check(unsafe { (ort::api().CreateIoBinding)(session.ptr().cast_mut(), &mut pointer) })?;
        let pointer = NonNull::new(pointer).ok_or_else(|| ort::Error::new("CreateIoBinding made nothing"))?;
        Ok(Binding { pointer, host: MemoryInfo::default() })
    }

    /// Binds, runs, and takes the outputs, in the order of `output_names`.
    ///
    /// # Errors
    /// What the runtime reports.
    pub(crate) fn run<'a, 'b: 'a>(
        &mut self,
        session: &Session,
        options: &RunOptions,
        inputs: impl Iterator<Item = (&'a CStr, &'a Input<'b>)>,
        output_names: &[CString],
    ) -> Result<Vec<Option<Value>>, ort::Error> {
        let result = self.bind_and_run(session, options, inputs, output_names);
        // SAFETY: the binding is alive. What it still holds points into this batch, and outputs that
        // stayed bound would be written over by the next run while callers read them.
        unsafe {
            (ort::api().ClearBoundInputs)(self.pointer.as_ptr());
            (ort::api().ClearBoundOutputs)(self.pointer.as_ptr());
        }
        result
    }

    fn bind_and_run<'a, 'b: 'a>(
        &mut self,
        session: &Session,
        options: &RunOptions,
        inputs: impl Iterator<Item = (&'a CStr, &'a Input<'b>)>,
        output_names: &[CString],
    ) -> Result<Vec<Option<Value>>, ort::Error> {
        let api = ort::api();
        let binding = self.pointer.as_ptr();
        for (name, input) in inputs {
            // SAFETY: name and value are alive until the binding is cleared.
            check(unsafe { (api.BindInput)(binding, name.as_ptr(), input.pointer()) })?;
        }
        for name in output_names {
            // SAFETY: as above; the runtime copies the memory's description.
            check(unsafe { (api.BindOutputToDevice)(binding, name.as_ptr(), self.host.ptr()) })?;
        }
        // SAFETY: this thread alone has the binding; sessions of providers with memory of their own are not shared.
        check(unsafe { (api.RunWithBinding)(session.ptr().cast_mut(), options.ptr(), binding) })?;
        self.outputs()
    }

    fn outputs(&self) -> Result<Vec<Option<Value>>, ort::Error> {
        let allocator = Allocator::default();
        let mut values: *mut *mut OrtValue = ptr::null_mut();
        let mut count = 0;
        // SAFETY: the array of values comes from the default allocator and is given back to it once;
        // each value in it is ours to release.
        unsafe {
            check((ort::api().GetBoundOutputValues)(
                self.pointer.as_ptr(),
                allocator.ptr().cast_mut(),
                &mut values,
                &mut count,
            ))?;
            if count == 0 || values.is_null() {
                return Ok(Vec::new());
            }
            let outputs =
                slice::from_raw_parts(values, count).iter().map(|&value| Value::own(value)).collect();
            check((ort::api().AllocatorFree)(allocator.ptr().cast_mut(), values.cast()))?;
            Ok(outputs)
        }
    }
}

impl Drop for Binding {
    #[expect(unsafe_code, reason = "a call of ONNX Runtime's C interface")]
    fn drop(&mut self) {
        // SAFETY: the binding is owned here and released once, before its session (`OrtInstance` drops
        // its fields in order, and the session keeps what the binding needs until then).
        unsafe { (ort::api().ReleaseIoBinding)(self.pointer.as_ptr()) }
    }
}
