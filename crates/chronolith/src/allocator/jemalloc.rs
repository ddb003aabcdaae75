//! jemalloc with few arenas: what one thread frees another one uses, whichever had it first.
#![allow(unsafe_code)]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc when it starts. Four arenas are enough for a write path that hardly allocates; a thread of its own gives back what was
/// free for some seconds.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: &[u8; 80] =
    b"narenas:4,background_thread:true,dirty_decay_ms:3000,muzzy_decay_ms:0,thp:never\0";

/// The background thread does it.
pub(crate) fn on_idle() {}
