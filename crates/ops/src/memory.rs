//! Memory for the numbers of a model: large pages, and none given back between two steps.
//!
//! A step hands back more than a gigabyte and asks for it again. Where the allocator returns it to the
//! system, every page is cleared and mapped anew (a tenth of a step on Linux); and in pages of 4 KiB, the
//! way through a weight's columns misses the processor's table of pages at nearly every row.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with the advice to map large blocks in large pages (Linux; elsewhere it is the
/// system's). For a program to name as its `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct LargePages;

/// Smaller blocks have no two large pages that are whole.
const LARGE: usize = 4 << 20;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; every call goes to the system's with the same arguments, and \
              the advice touches neither contents nor ownership"
)]
// SAFETY: see the reason.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for, here and below.
        let block = unsafe { System.alloc(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.alloc_zeroed(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { System.realloc(block, layout, size) };
        advise(block, size);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Asks for large pages where they fit whole into a block. What is not mapped yet will be mapped so; a
/// system that has none, or was told not to, says no, and nothing is lost.
fn advise(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        if size < LARGE || block.is_null() {
            return;
        }
        let start = block.addr().next_multiple_of(PAGE) - block.addr();
        let len = (size - start) / PAGE * PAGE;
        #[expect(
            unsafe_code,
            reason = "a call of the system; the range lies inside a block that was just allocated, and this \
                      advice changes no contents"
        )]
        // SAFETY: see the reason.
        unsafe {
            libc::madvise(block.add(start).cast(), len, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, size, LARGE);
}

/// Tells the system's allocator to keep what is handed back to it, for the next step to take (glibc;
/// elsewhere it does nothing). To be called before the first large allocation.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "calls of the C library that take two numbers")]
    // SAFETY: see the reason.
    unsafe {
        // Blocks below this size come from the heap, and -1 keeps the heap whole however much of it lies idle.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        // One heap for all threads: what one of them hands back another takes.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size about the border: blocks are the caller's to write, zeroed ones zero, and moved ones whole.
    #[test]
    fn blocks_of_all_sizes_hold_what_is_written() {
        for size in [1, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 12345] {
            let layout = Layout::from_size_align(size, 64).expect("a layout");
            let bigger = 2 * size + 7;
            #[expect(
                unsafe_code,
                reason = "the calls of an allocator, as its trait asks for them"
            )]
            // SAFETY: not of size zero; each block is used up to its size, and freed once with its layout.
            unsafe {
                let block = LargePages.alloc_zeroed(layout);
                let bytes = std::slice::from_raw_parts_mut(block, size);
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes[size - 1] = 7;
                let block = LargePages.realloc(block, layout, bigger);
                let bytes = std::slice::from_raw_parts_mut(block, size);
                assert!(bytes[size - 1] == 7 && bytes[..size - 1].iter().all(|byte| *byte == 0));
                let layout = Layout::from_size_align(bigger, 64).expect("a layout");
                LargePages.dealloc(block, layout);
            }
        }
    }
}
