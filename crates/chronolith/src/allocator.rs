//! The process's allocator: mimalloc, which under the write path's many short-lived buffers needs less memory and time than
//! the system's.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps the kernel from backing the heap with huge pages, which mimalloc asks for.
///
/// With them each thread's half-empty size classes take 2 MiB at a touch: at 10,000 series 93 MB instead of 26, at
/// 100,000 series 200 instead of 99, and samples per CPU-second do not fall without them (2.0 against 1.8 million).
pub(crate) fn configure() {
    // Where this is refused (an old kernel, a seccomp filter), more memory is all that it costs.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
