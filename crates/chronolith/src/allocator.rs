//! The process's allocator.
//!
//! What is freed must go back to the system when a server has become quiet: a cut is done, thousands of tenants were flushed.
//! Binaries that are shipped have jemalloc (`--features jemalloc`), others mimalloc, which is built in seconds.

#[cfg(feature = "jemalloc")]
#[path = "allocator/jemalloc.rs"]
mod chosen;
#[cfg(not(feature = "jemalloc"))]
#[path = "allocator/mimalloc.rs"]
mod chosen;

pub(crate) use chosen::on_idle;

/// Keeps the kernel from backing the heap with huge pages, which mimalloc asks for.
///
/// With them each thread's half-empty size classes take 2 MiB at a touch: at 10,000 series 93 MB instead of 26, at
/// 100,000 series 200 instead of 99, and samples per CPU-second do not fall without them (2.0 against 1.8 million).
pub(crate) fn configure() {
    // Where this is refused (an old kernel, a seccomp filter), more memory is all that it costs.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
