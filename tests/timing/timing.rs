//! Whether the time of a verification tells anything of a secret: `cargo bench --bench timing`.
//!
//! A stranger can send whatever it likes and measure how long the refusal takes. So everything that is refused because
//! of a secret must cost the same: another key, another body, the first or the last byte of the MAC wrong. And of two
//! secrets it must not show which one matched. That is held in two ways:
//!
//! * **Instructions**, under valgrind: equal to the instruction. Exact, but valgrind's processor knows fewer
//!   instructions than this one (no SHA extensions), and instructions are not time.
//! * **Time**, on this processor: Welch's t-test over measurements in random order, without the slowest of them. A leak
//!   moves t away from zero in every batch, a noisy machine moves it to either side.
//!
//! What is accepted costs more than what is refused: the proof is written down, and the signed content is hashed for
//! its key. The answer tells that anyhow. So outcomes are compared within two groups, refused and accepted.
//!
//! Neither would be worth anything if it could not fail: `naive` compares byte by byte up to the first that differs,
//! and both must find it.

mod cases;
mod instructions;
mod times;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Result, ensure};

use cases::{Case, Class, Trial};

/// The first argument of the run under valgrind.
const COUNTED: &str = "--counted";

fn main() -> Result<ExitCode> {
    let cases = cases::all()?;
    for case in &cases {
        case.check()?;
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != COUNTED).skip(1);
    if let Some(number) = arguments.next() {
        instructions::work(&cases, &number);
        return Ok(ExitCode::SUCCESS);
    }
    let counts = instructions::count(&cases)?;
    println!("| proof | refused | accepted | largest t of a pair |");
    println!("|---|--:|--:|--:|");
    let mut complaints = Vec::new();
    for (case, counts) in cases.iter().zip(&counts) {
        let uneven: Vec<bool> = Class::GROUPS.iter().map(|group| !is_even(counts, group)).collect();
        let worst = times::worst_pair(case);
        let shown = |group: &[Class]| {
            let counted = group.iter().filter_map(|class| counts.get(class));
            let (least, most) = (counted.clone().min(), counted.max());
            match (least, most) {
                (Some(least), Some(most)) if least == most => least.to_string(),
                (Some(least), Some(most)) => format!("{least} to {most}"),
                _ => "none".to_owned(),
            }
        };
        let [refused, accepted] = Class::GROUPS.map(shown);
        println!("| {} | {refused} | {accepted} | {:.1} ({}) |", case.name, worst.t, worst.pair);
        let (counted, timed) = (uneven.contains(&true), worst.t > times::LEAKS_FROM);
        if case.is_naive {
            // The hardest to find: where among some bytes the first wrong one is.
            let t = times::pair(case, Class::FirstByte, Class::LastByte).unwrap_or_default();
            println!("| naive, first or last byte | | | {t:.1} |");
            ensure!(uneven[0], "the instructions of a naive comparison look even: nothing is measured");
            ensure!(timed && t > times::LEAKS_FROM, "the time of a naive comparison looks even, t = {t:.1}");
        } else if counted {
            complaints.push(format!("{}: instructions differ: {counts:?}", case.name));
        } else if timed {
            complaints.push(format!("{}: the time of {} differs: t = {:.1}", case.name, worst.pair, worst.t));
        }
    }
    println!("\ninstructions of one verification; t above {} is a leak; `naive` must be one", times::LEAKS_FROM);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether all that was counted in this group is the same.
fn is_even(counts: &BTreeMap<Class, u64>, group: &[Class]) -> bool {
    let mut counted = group.iter().filter_map(|class| counts.get(class));
    let first = counted.next();
    counted.all(|count| Some(count) == first)
}

/// What is measured: one request, from its head to the verdict. Its name is how valgrind finds it.
#[inline(never)]
fn measured_verification(trial: &Trial) -> bool {
    trial.is_accepted()
}
