//! What the process took of the machine's memory.

/// The largest resident size so far, in bytes; `None` where the system does not say.
pub(crate) fn peak_resident() -> Option<u64> {
    #[cfg(unix)]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        let largest = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
        // Apple's systems count bytes, the others units of 1024.
        let unit = if cfg!(target_vendor = "apple") {
            1
        } else {
            1024
        };
        u64::try_from(largest).ok().map(|largest| largest * unit)
    }
    #[cfg(not(unix))]
    None
}
