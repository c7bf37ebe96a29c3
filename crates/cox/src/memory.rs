//! The allocator: jemalloc gives memory back after a burst, where glibc keeps it.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc at its start. Few arenas and a short decay keep an idle cluster small; the background thread is
/// not started here, because shims must stay single-threaded.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 59] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache:true\0";

/// Lets a thread of jemalloc's own give unused memory back. Call it only in processes that have threads anyway.
pub fn return_in_background() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "unused memory is returned by the allocating threads themselves");
    }
}
