//! The allocator: jemalloc gives memory back after a burst, where glibc keeps it. And the program's own pages, most of
//! which only bursts need.

use std::ffi::{c_int, c_void};

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Read by jemalloc at its start. Few arenas, a short decay and little that threads keep for themselves (as it comes,
/// a third of what a node of a hundred pods holds) make an idle cluster small; the background thread is not started
/// here, because shims must stay single-threaded.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 90] =
    b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache_max:2048,tcache_nslots_small_max:64\0";

/// Lets a thread of jemalloc's own give unused memory back. Call it only in processes that have threads anyway.
pub fn return_in_background() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "unused memory is returned by the allocating threads themselves");
    }
}

/// Lets go of the code and constants that are mapped: after a start, or many pods at once, two thirds of them are not
/// needed again. What is used further is in the page cache still, and mapped again as it is touched. To be called when a
/// burst of work is over.
pub fn forget_burst() {
    // SAFETY: the callback keeps to what the loader promises about its arguments.
    unsafe { libc::dl_iterate_phdr(Some(unmap_constant), std::ptr::null_mut()) };
}

/// The loader names the program itself first, which is all there is to do: what is not 0 ends it.
unsafe extern "C" fn unmap_constant(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands in an object that lives through the call, and so many headers with it.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.unsigned_abs();
    let constant =
        |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(constant) {
        let start = (base + header.p_vaddr).next_multiple_of(page);
        let end = (base + header.p_vaddr + header.p_memsz) / page * page;
        // SAFETY: whole pages of a segment that nobody writes to: they read from the file what they read before.
        let failed = unsafe {
            libc::madvise(start as *mut c_void, end.saturating_sub(start) as usize, libc::MADV_DONTNEED)
        };
        if failed != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "code that a burst used stays mapped");
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of the program's file that are mapped.
    fn mapped() -> u64 {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("is there");
        let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("has one");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    #[test]
    fn a_program_goes_on_with_less_after_it_forgot_a_burst() {
        let before = mapped();
        forget_burst();
        assert!(mapped() < before, "{before} kB before");
    }
}
