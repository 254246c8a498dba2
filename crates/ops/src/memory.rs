//! Memory for the numbers of a model and for everything else.
//!
//! A step hands back more than a gigabyte of tensors and asks for it again. Where the allocator returns it to the
//! system, every page is cleared and mapped anew (a tenth of a step on Linux); and in pages of 4 KiB, the
//! way through a weight's columns misses the processor's table of pages at nearly every row. So tensors are in large pages
//! of one heap that is kept.
//!
//! Threads that tokenise take and hand back many small blocks, and would wait for each other at that one heap (6 times
//! as long for a million rows on two cores). So small blocks come from mimalloc, which has a heap for each thread.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Small blocks from mimalloc and others from the system's allocator, with the advice to map large ones in large pages
/// (Linux). For a program to name as its `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

/// The size from which a block comes from the system's allocator. mimalloc keeps larger ones in pages of their own.
const SMALL: usize = 64 << 10;

/// Smaller blocks have no two large pages that are whole.
const LARGE: usize = 4 << 20;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; every call goes to one of two allocators with the same arguments, a \
              block always to the one that it is from, as its size says; the advice touches neither contents nor \
              ownership"
)]
// SAFETY: see the reason.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < SMALL {
            // SAFETY: the caller's promises are those that both allocators ask for, here and below.
            return unsafe { MiMalloc.alloc(layout) };
        }
        // SAFETY: as above.
        let block = unsafe { System.alloc(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < SMALL {
            // SAFETY: as above.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as above.
        let block = unsafe { System.alloc_zeroed(layout) };
        advise(block, layout.size());
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (layout.size() < SMALL, size < SMALL) {
            // SAFETY: as above.
            (true, true) => unsafe { MiMalloc.realloc(block, layout, size) },
            (false, false) => {
                // SAFETY: as above.
                let block = unsafe { System.realloc(block, layout, size) };
                advise(block, size);
                block
            }
            // SAFETY: as above.
            _ => unsafe { self.move_to_the_other(block, layout, size) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match layout.size() < SMALL {
            // SAFETY: as above.
            true => unsafe { MiMalloc.dealloc(block, layout) },
            // SAFETY: as above.
            false => unsafe { System.dealloc(block, layout) },
        }
    }
}

impl Allocator {
    /// Reallocates a block whose new size is the other allocator's.
    ///
    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    #[expect(
        unsafe_code,
        reason = "a new block, filled with as much of the old one as both have"
    )]
    unsafe fn move_to_the_other(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller of `realloc` promises that `size`, rounded up to the alignment, is no overflow, and not zero.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: two blocks, each of at least so many bytes; the old one is the caller's to give up.
            unsafe {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
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
        // One heap for the tensors of all threads: what one of them hands back another takes (five steps of BitFit with f32
        // weights: 1.8 GB in place of 3.0).
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size about the borders: blocks are the caller's to write, zeroed ones zero, and moved ones whole, to either
    /// side of a border.
    #[test]
    fn blocks_of_all_sizes_hold_what_is_written() {
        let borders = [SMALL, LARGE].map(|size| [size - 1, size, size + 1]);
        let sizes = borders.as_flattened().iter().copied();
        for size in sizes.chain([1, 3 * LARGE + 12345]) {
            for target in [2 * size + 7, size.div_ceil(2), SMALL - 1, SMALL] {
                let layout = Layout::from_size_align(size, 64).expect("a layout");
                let moved = Layout::from_size_align(target, 64).expect("a layout");
                #[expect(
                    unsafe_code,
                    reason = "the calls of an allocator, as its trait asks for them"
                )]
                // SAFETY: not of size zero; each block is used up to its size, and freed once with its layout.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    let bytes = std::slice::from_raw_parts_mut(block, size);
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    let number = |index: usize| (index % 251) as u8;
                    (0..size).for_each(|index| bytes[index] = number(index));
                    let block = Allocator.realloc(block, layout, target);
                    assert_eq!(block.addr() % 64, 0);
                    let bytes = std::slice::from_raw_parts_mut(block, target);
                    assert!((0..size.min(target)).all(|index| bytes[index] == number(index)));
                    bytes.fill(1);
                    Allocator.dealloc(block, moved);
                }
            }
        }
    }
}
