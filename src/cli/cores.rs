//! No core dumps: the memory of this process holds secrets, keys and bodies.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In bytes, and less than any dump. A limit of 0 keeps the kernel from writing a file, but a program that is named in
/// `/proc/sys/kernel/core_pattern` would still be handed the dump; at 1 it is not started, either.
const CORE_BYTES_MAX: u64 = 1;

/// From here on, however this process ends, its memory is not written down; nobody can raise the limit again. Where a
/// sandbox refuses that, it has to have a limit of its own.
pub(super) fn forbid() {
    let most = Some(CORE_BYTES_MAX);
    let limit = Rlimit { current: most, maximum: most };
    let is_off = |limit: Rlimit| limit.current.is_some_and(|bytes| bytes <= CORE_BYTES_MAX);
    // A hard limit of 0 cannot be raised to 1, and need not be: somebody wanted no dumps.
    if setrlimit(Resource::Core, limit).is_err() && !is_off(getrlimit(Resource::Core)) {
        eprintln!(
            "hookward: this process may be dumped to a file when it crashes: set a core limit of 0 (LimitCORE=0)"
        );
    }
}
