//! Instructions, counted by valgrind: this program runs under it once more for each class. What was counted is written
//! down and begins anew as the measured function is entered, and as the function is entered that stands behind it.
//!
//! Libraries compare faster or slower depending on where bytes lie in memory. So each class has a process of its own,
//! which allocates the same as the others, in the same order: the bytes of all classes lie at the same addresses.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{COUNTED, Case, Class, measured_verification};

/// Verifications after which the allocator's lists are as they will be from then on.
const WARM: usize = 4;

/// What is done under valgrind, for the class of this number.
pub fn work(cases: &[Case], number: &str) {
    let class = Class::all().find(|class| class.number() == number);
    for case in cases {
        // One that has no such class does something else instead, which is not looked at.
        let trial = class.and_then(|class| case.trials.get(&class)).or_else(|| case.trials.get(&Class::LastByte));
        let Some(trial) = trial else { continue };
        // The trials themselves lie one behind the other.
        let copy = trial.copy();
        for _ in 0..WARM {
            black_box(black_box(&copy).is_accepted());
        }
        black_box(measured_verification(black_box(&copy)));
        verification_is_over();
    }
}

/// Where valgrind writes down what it counted. Its name is how valgrind finds it.
#[inline(never)]
fn verification_is_over() {
    black_box(());
}

/// Instructions of one verification of each class, for each case.
pub fn count(cases: &[Case]) -> Result<Vec<BTreeMap<Class, u64>>> {
    let mut counts = vec![BTreeMap::new(); cases.len()];
    for class in Class::all() {
        let directory = tempfile::tempdir()?;
        let dumps = directory.path().join("counts");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", dumps.display()))
            .args(["--dump-before=*measured_verification*", "--dump-before=*verification_is_over*"])
            .arg(std::env::current_exe()?)
            .args([COUNTED, &class.number()])
            .stdin(Stdio::null())
            .output()
            .context("valgrind is needed")?;
        ensure!(output.status.success(), "under valgrind: {}", String::from_utf8_lossy(&output.stderr));
        for (i, case) in cases.iter().enumerate() {
            // Every other dump is of what came in between.
            let total = total_of(&dumps.with_extension((2 * i + 2).to_string()))?;
            if case.trials.contains_key(&class) {
                counts[i].insert(class, total);
            }
        }
    }
    Ok(counts)
}

fn total_of(dump: &Path) -> Result<u64> {
    let text = fs::read_to_string(dump).with_context(|| format!("failed to read {}", dump.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.context("a dump has a total")
}
