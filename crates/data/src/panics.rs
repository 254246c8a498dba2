//! Panics of libraries as errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many calls of [`caught`] are running. While there is one, panics are not printed: a library may panic on a
/// thread of its own, and its caller gets the message.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static HOOK: Once = Once::new();

/// Runs `work` and returns the message of a panic as an error.
///
/// It is for libraries that panic on bad files. What the work has changed must not be used after a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if RUNNING.load(Ordering::SeqCst) == 0 {
                print(panic);
            }
        }));
    });
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let result = catch_unwind(AssertUnwindSafe(work));
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    result.map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    // What follows is a hint how to see the stack.
    let line = text.unwrap_or_default().lines().next().unwrap_or_default();
    format!("the library panicked: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_first_line() {
        let result = caught(|| -> u32 { panic!("index {} of 3\nnote", 7) });
        assert_eq!(result, Err("the library panicked: index 7 of 3".to_owned()));
        assert_eq!(caught(|| 1), Ok(1));
    }
}
