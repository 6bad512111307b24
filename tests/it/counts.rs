//! How many rounds a test runs: few everywhere, all with `HOOKWARD_FULL=1`, which `tests/full` sets.

/// `here`, or `full` if all rounds are asked for. `.ci/run` finds each call in the source and prints what it leaves
/// out, so write the three arguments as literals on one line: `reduced("kill rounds", 5, 1_000)`.
pub fn reduced(_what: &str, here: u32, full: u32) -> u32 {
    if std::env::var_os("HOOKWARD_FULL").is_some_and(|value| value == "1") { full } else { here }
}
