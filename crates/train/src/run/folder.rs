//! The folder of a run.

use std::path::{Path, PathBuf};

use burn_peft_files::ClaimedFolder;

use crate::{Checkpoint, Error};

/// Claims the folder that was chosen. Where none was, a new run gets the first free of `runs/METHOD`,
/// `runs/METHOD-2`, …, and a run that goes on the newest of those.
pub(super) fn claim(
    chosen: Option<&Path>,
    method: &str,
    resume: bool,
) -> Result<ClaimedFolder, Error> {
    let numbered = |number: usize| match number {
        1 => PathBuf::from(format!("runs/{method}")),
        _ => PathBuf::from(format!("runs/{method}-{number}")),
    };
    let folder = match chosen {
        Some(dir) => ClaimedFolder::claim(dir)?,
        None if resume => {
            let taken = (1..).take_while(|number| numbered(*number).exists());
            ClaimedFolder::claim(&numbered(taken.last().unwrap_or(1)))?
        }
        None => {
            let mut number = 1;
            loop {
                match ClaimedFolder::claim_new(&numbered(number))? {
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
    Ok(folder)
}
