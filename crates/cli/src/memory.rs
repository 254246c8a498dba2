//! The machine's memory and disk, and what the process took of them.

use std::path::Path;

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

/// All that the process may have, in bytes: the machine's, or less where a control group or `ulimit -v` limits it.
pub(crate) fn total() -> u64 {
    machine().min(address_space())
}

/// What the process may map, in bytes.
fn address_space() -> u64 {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit};
        getrlimit(Resource::RLIMIT_AS).map_or(u64::MAX, |(soft, _)| soft)
    }
    #[cfg(not(unix))]
    u64::MAX
}

/// What of it nobody uses now, in bytes.
pub(crate) fn free() -> u64 {
    let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let system =
        sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(memory));
    let limit = system.cgroup_limits().map(|limits| limits.free_memory);
    limit.map_or(system.available_memory(), |limit| {
        limit.min(system.available_memory())
    })
}

/// Bytes that are free where `path` is or would be made; `None` where the system does not say.
pub(crate) fn free_disk(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let there = path.ancestors().find(|path| path.exists());
        let there = there.unwrap_or(Path::new("."));
        let found = nix::sys::statvfs::statvfs(there).ok()?;
        #[cfg_attr(
            all(target_os = "linux", target_pointer_width = "64"),
            expect(
                clippy::useless_conversion,
                reason = "the types differ between systems"
            )
        )]
        u64::from(found.blocks_available()).checked_mul(found.fragment_size().into())
    }
    #[cfg(not(unix))]
    None
}

fn machine() -> u64 {
    let memory = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let system =
        sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(memory));
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    limit.map_or(system.total_memory(), |limit| {
        limit.min(system.total_memory())
    })
}
