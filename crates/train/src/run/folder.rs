//! The folder of a run.

use std::path::{Path, PathBuf};
use std::{fs, io};

use burn_peft_files::{ClaimedFolder, Error as FileError};
use burn_peft_format::{CARD_FILE, CONFIG_FILE, WEIGHTS_FILE};

use super::{RUN_FILE, scores::SCORES_FILE};
use crate::{Checkpoint, Error, Ranks, RunConfig, Stop};

/// Where a run writes, and the checkpoint that it goes on from.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) resume: Option<Checkpoint>,
    /// Of several ranks, the first has it.
    _claimed: Option<ClaimedFolder>,
}

impl Place {
    /// Claims the folder of a run. The first rank does, and the others read the checkpoint that it says. `damaged` is told
    /// what is wrong with newer ones.
    pub(super) fn find(
        config: &RunConfig,
        method: &str,
        resume: bool,
        ranks: &Ranks,
        stop: &Stop,
        damaged: &mut dyn FnMut(&Error),
    ) -> Result<Self, Error> {
        if !ranks.is_first() {
            let (dir, checkpoint): (PathBuf, Option<PathBuf>) = ranks.of_first(None);
            let resume = checkpoint.map(|path| Checkpoint::open(&path)).transpose()?;
            return Ok(Self {
                dir,
                resume,
                _claimed: None,
            });
        }
        let folder = claim(config.output.dir.as_deref(), method, resume)?;
        stop.claimed(&folder);
        let dir = folder.path().to_owned();
        let resume = resume.then(|| Checkpoint::latest(&dir, damaged));
        let resume = resume.transpose()?;
        let path = resume.as_ref().map(|checkpoint| checkpoint.path.clone());
        let (dir, _) = ranks.of_first(Some((dir, path)));
        Ok(Self {
            dir,
            resume,
            _claimed: Some(folder),
        })
    }
}

/// Claims the folder that was chosen. Where none was, a new run gets the first free of `runs/METHOD`,
/// `runs/METHOD-2`, …, and a run that goes on the newest of those.
fn claim(chosen: Option<&Path>, method: &str, resume: bool) -> Result<ClaimedFolder, Error> {
    let folder = match chosen {
        Some(dir) => ClaimedFolder::claim(dir)?,
        None if resume => {
            let newest = numbers_of(method).into_iter().max();
            ClaimedFolder::claim(&numbered(method, newest.unwrap_or(1)))?
        }
        None => {
            let mut number = 1;
            loop {
                match ClaimedFolder::claim_new(&numbered(method, number))? {
                    Some(folder) => break folder,
                    // Taken, perhaps by another run a moment ago.
                    None => number += 1,
                }
            }
        }
    };
    if !resume {
        Checkpoint::none_in(folder.path())?;
    }
    check_places(folder.path())?;
    Ok(folder)
}

/// The folder that [`claim`] would claim, checked as far as that is possible without making or changing anything.
pub(crate) fn look(chosen: Option<&Path>, method: &str, resume: bool) -> Result<PathBuf, Error> {
    let folder = match chosen {
        Some(dir) => dir.to_owned(),
        None => {
            let newest = numbers_of(method).into_iter().max();
            let number = if resume {
                newest.unwrap_or(1)
            } else {
                let taken = |number: &usize| numbered(method, *number).symlink_metadata().is_ok();
                (1..)
                    .find(|number| !taken(number))
                    .expect("there are enough numbers")
            };
            numbered(method, number)
        }
    };
    ClaimedFolder::check(&folder)?;
    if !resume {
        Checkpoint::none_in(&folder)?;
    }
    check_places(&folder)?;
    Ok(folder)
}

/// The name of a folder that was not chosen.
fn numbered(method: &str, number: usize) -> PathBuf {
    match number {
        1 => PathBuf::from(format!("runs/{method}")),
        _ => PathBuf::from(format!("runs/{method}-{number}")),
    }
}

/// The numbers of the folders in `runs` that are named after the method.
fn numbers_of(method: &str) -> Vec<usize> {
    let names = fs::read_dir("runs").into_iter().flatten().flatten();
    let number = |name: String| match name.strip_prefix(method)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok(),
    };
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(number).collect()
}

/// What stands in the way of the run's files is to be said before an hour is spent.
fn check_places(folder: &Path) -> Result<(), Error> {
    for name in [
        RUN_FILE,
        SCORES_FILE,
        "metrics.jsonl",
        "report.html",
        CARD_FILE,
        CONFIG_FILE,
        WEIGHTS_FILE,
    ] {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            let error = io::ErrorKind::IsADirectory.into();
            return Err(FileError::to("write", &path)(error).into());
        }
    }
    Ok(())
}
