//! Work that may need a deep stack.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// Room for everything that a template of the longest length can nest, and for values nested as deep as the fuel
/// of a rendering reaches. It is address space: only what is used takes memory.
const STACK_BYTES: usize = 512 << 20;

thread_local! {
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` where it has a deep stack: on a thread of its own, unless the current one is such a thread.
///
/// The template engine parses, compiles and drops nested expressions and values recursively, and a thread that runs
/// out of stack ends the process.
///
/// # Errors
/// There is no address space for the thread.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    if IS_DEEP.get() {
        return Ok(work());
    }
    scope(|scope| {
        let thread = Builder::new().stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, || {
            IS_DEEP.set(true);
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_calls_stay_on_the_deep_thread() {
        let name = || std::thread::current().id();
        let (outer, inner) =
            on_deep_stack(|| (name(), on_deep_stack(name).expect("it is deep"))).expect("a thread");
        assert_eq!(outer, inner);
        assert_ne!(outer, name());
    }
}
