//! A disk whose power was cut: what it may hold.
//!
//! What a finished sync covers is there. Of the rest each write may be there whole, not at all, or in some of its
//! sectors, in any combination. Names appear and vanish in order, as journaling file systems keep it, but as late as the next
//! sync of their directory.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::trace::{Step, Synced};

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A moment: so many steps were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) steps: usize,
}

/// Which part of what was not synced is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survival {
    /// Nothing of it.
    Synced,
    /// What this seed says.
    Random(u64),
    /// All of it: no cut.
    All,
}

/// The moments right before each sync has ended, and the end.
pub(super) fn cuts(steps: &[Step]) -> Vec<Cut> {
    let ends = steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Synced { .. })).map(|(at, _)| at);
    ends.chain([steps.len()]).map(|steps| Cut { steps }).collect()
}

/// The files after a cut, by name.
pub(super) fn after(steps: &[Step], cut: Cut, survival: &Survival) -> BTreeMap<String, Vec<u8>> {
    let steps = &steps[..cut.steps];
    let mut synced: HashMap<Synced, usize> = HashMap::new();
    for step in steps {
        if let Step::Synced { what, began } = step {
            let until = synced.entry(*what).or_default();
            *until = (*until).max(*began);
        }
    }
    let is_synced = |what, at| synced.get(&what).is_some_and(|until| at < *until);
    let mut luck = Luck::new(survival);
    // From here on no name is as it was last.
    let names_until = {
        let from = synced.get(&Synced::Names).copied().unwrap_or(0);
        luck.between(from, steps.len())
    };

    let mut files: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Write { file, at: place, bytes } => {
                let content = files.entry(*file).or_default();
                let kept = if is_synced(Synced::File(*file), at) { Kept::Whole } else { luck.write() };
                write(content, *place, bytes, kept, &mut luck);
            }
            Step::Resize { file, length } if is_synced(Synced::File(*file), at) || luck.resize() => {
                files.entry(*file).or_default().resize(*length, 0);
            }
            Step::Create { file, name } if at < names_until => drop(names.insert(name.clone(), *file)),
            Step::Remove { name } if at < names_until => drop(names.remove(name)),
            _ => {}
        }
    }
    names.into_iter().map(|(name, file)| (name, files.remove(&file).unwrap_or_default())).collect()
}

/// Puts the files into an empty directory.
pub(super) fn lay_out(files: &BTreeMap<String, Vec<u8>>, directory: &Path) {
    for (name, content) in files {
        fs::write(directory.join(name), content).expect("written");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    Torn,
    Lost,
}

/// Writes what was kept, in pieces that lie within one sector of the disk each.
fn write(content: &mut Vec<u8>, place: usize, bytes: &[u8], kept: Kept, luck: &mut Luck) {
    let mut from = 0;
    while from < bytes.len() {
        let room = SECTOR_BYTES - (place + from) % SECTOR_BYTES;
        let to = bytes.len().min(from + room);
        if kept == Kept::Whole || kept == Kept::Torn && luck.coin() {
            if content.len() < place + to {
                content.resize(place + to, 0);
            }
            content[place + from..place + to].copy_from_slice(&bytes[from..to]);
        }
        from = to;
    }
}

/// Decides what is there of what need not be.
enum Luck {
    Never,
    Always,
    /// How many of ten writes survive, and of what.
    Sometimes {
        random: Box<StdRng>,
        whole: u32,
    },
}

impl Luck {
    fn new(survival: &Survival) -> Self {
        match survival {
            Survival::Synced => Self::Never,
            Survival::All => Self::Always,
            Survival::Random(seed) => {
                let mut random = StdRng::seed_from_u64(*seed);
                let whole = [1, 5, 9, 10][random.random_range(0..4)];
                Self::Sometimes { random: Box::new(random), whole }
            }
        }
    }

    fn write(&mut self) -> Kept {
        match self {
            Self::Never => Kept::Lost,
            Self::Always => Kept::Whole,
            Self::Sometimes { random, whole } => {
                if random.random_ratio(*whole, 10) {
                    Kept::Whole
                } else if random.random_ratio(1, 3) {
                    Kept::Torn
                } else {
                    Kept::Lost
                }
            }
        }
    }

    fn resize(&mut self) -> bool {
        self.write() == Kept::Whole
    }

    fn coin(&mut self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Sometimes { random, .. } => random.random_ratio(1, 2),
        }
    }

    fn between(&mut self, from: usize, to: usize) -> usize {
        match self {
            Self::Never => from,
            Self::Always => to,
            Self::Sometimes { random, .. } => random.random_range(from..=to),
        }
    }
}

#[test]
fn a_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
    let write = |at, byte: u8| Step::Write { file: 0, at, bytes: vec![byte; 2 * SECTOR_BYTES] };
    let steps = [
        Step::Create { file: 0, name: "a".to_owned() },
        write(0, 1),
        Step::Synced { what: Synced::Names, began: 1 },
        Step::Synced { what: Synced::File(0), began: 2 },
        write(2 * SECTOR_BYTES, 2),
        Step::Synced { what: Synced::File(0), began: 4 },
        Step::Remove { name: "a".to_owned() },
    ];
    assert_eq!(cuts(&steps), [2, 3, 5, 7].map(|steps| Cut { steps }));
    let at = |steps_made, survival| after(&steps, Cut { steps: steps_made }, &survival).remove("a");
    assert_eq!(at(2, Survival::Synced), None, "the name is not there yet");
    assert_eq!(at(3, Survival::Synced), Some(vec![]));
    assert_eq!(at(5, Survival::Synced), Some(vec![1; 1024]));
    assert_eq!(at(6, Survival::Synced), Some(vec![1; 1024]), "this sync began before the second write");
    assert_eq!(at(7, Survival::All), None);
    let mut seen: Vec<_> =
        (0..200).filter_map(|seed| at(6, Survival::Random(seed))).map(|now| now[1024..].to_vec()).collect();
    seen.sort();
    seen.dedup();
    let whole = vec![2; 1024];
    let second = [vec![0; 512], vec![2; 512]].concat();
    assert_eq!(seen, [vec![], second, vec![2; 512], whole]);
}
