//! The processes that `mpirun` or `srun` started together.
//!
//! One of them, rank 0, speaks; the others are heard of when something is wrong. Whether there are others is seen in the
//! launcher's environment, so that a program that is started by itself never touches MPI.

use std::collections::BTreeSet;
use std::env;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use burn_peft_train::Ranks;

/// The processes, once this one has joined them.
static JOINED: OnceLock<Ranks> = OnceLock::new();

/// A launcher that started processes together, by the variables that it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launched {
    launcher: &'static str,
    rank: usize,
    /// `None` where it does not say.
    size: Option<usize>,
}

/// The launchers, those first that others start in turn: the name, and the variables of rank and size.
const LAUNCHERS: [(&str, &str, &str); 4] = [
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun", "PMI_RANK", "PMI_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("the launcher", "PMIX_RANK", "PMIX_SIZE"),
];

impl Launched {
    /// What the environment says; `None` of a process by itself.
    fn find(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name| variable(name)?.trim().parse::<usize>().ok();
        let found = LAUNCHERS.iter().find_map(|&(launcher, rank, size)| {
            let (rank, size) = (number(rank)?, number(size));
            // Slurm numbers also what it did not start together.
            (size.is_some() || launcher != "srun").then_some(Self {
                launcher,
                rank,
                size,
            })
        });
        found.filter(|found| found.size != Some(1))
    }

    fn here() -> Option<Self> {
        Self::find(|name| env::var(name).ok())
    }
}

/// The processes; this one alone before it has joined others.
pub(crate) fn all() -> Ranks {
    JOINED.get().cloned().unwrap_or_default()
}

/// Whether this is the process that speaks.
pub(crate) fn is_first() -> bool {
    rank().is_none_or(|rank| rank == 0)
}

/// Joins the processes that were started together, if this one was not started by itself.
pub(crate) fn join() -> Result<()> {
    let Some(launched) = Launched::here() else {
        return Ok(());
    };
    let Some(ranks) = join_mpi() else {
        bail!(
            "{} started several processes, and this build has no MPI: build it with `cargo build --release --features mpi`",
            launched.launcher
        );
    };
    let size = ranks.size();
    JOINED.set(ranks).ok();
    match launched.size {
        Some(expected) if expected != size => bail!(
            "{launcher} started {expected} processes, and MPI has {size}: the program was built for another MPI than that \
             of {launcher}, or srun needs --mpi=pmix or --mpi=pmi2",
            launcher = launched.launcher
        ),
        _ => Ok(()),
    }
}

#[cfg(feature = "mpi")]
fn join_mpi() -> Option<Ranks> {
    Some(burn_peft_train::join_mpi())
}

#[cfg(not(feature = "mpi"))]
fn join_mpi() -> Option<Ranks> {
    None
}

/// Refuses a command that is one process, where there are several.
pub(crate) fn refuse(command: &str) -> Result<()> {
    match Launched::here() {
        None => Ok(()),
        Some(Launched { launcher, .. }) => bail!(
            "{command} is one process, and {launcher} started several; train, evaluate and predict are what can be shared"
        ),
    }
}

/// Among the processes of this machine, the number of this one and how many there are.
pub(crate) fn on_this_host() -> (usize, usize) {
    static FOUND: OnceLock<(usize, usize)> = OnceLock::new();
    match JOINED.get() {
        Some(ranks) => *FOUND.get_or_init(|| ranks.on_this_host()),
        None => (0, 1),
    }
}

/// The threads that this process should have of its machine's, and a line about all of them; `None` of a process alone.
/// All processes must ask.
pub(crate) fn threads() -> Option<(usize, String)> {
    let ranks = JOINED.get()?;
    let own = thread::available_parallelism().map_or(1, usize::from);
    // Processes that may run on the same cores share these; bound ones have cores of their own.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed:"));
    let place = (ranks.host(), cores.unwrap_or_default().to_owned());
    let places = ranks.gather(&place);
    let sharing = places.iter().filter(|other| **other == place).count();
    let threads = (own / sharing.max(1)).max(1);
    let each = ranks.gather(&threads);
    let hosts: BTreeSet<&Option<String>> = places.iter().map(|(host, _)| host).collect();
    let (least, most) = (each.iter().min()?, each.iter().max()?);
    let line = format!(
        "{} ranks on {}, {} each",
        ranks.size(),
        counted(hosts.len(), "machine"),
        match least == most {
            true => counted(*least, "thread"),
            false => format!("{least} to {most} threads"),
        }
    );
    Some((threads, line))
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Lets the one that speaks say first what is wrong on all of them: the others are ended then, and what they would say is
/// never read. A launcher takes longer for that before the processes have joined.
pub(crate) fn after_the_first() {
    let patience = if JOINED.get().is_some() { 500 } else { 3000 };
    if let Some(rank) = rank().filter(|rank| *rank > 0) {
        thread::sleep(Duration::from_millis(patience + 20 * rank.min(50) as u64));
    }
}

/// The rank, for messages of one that is not the first.
pub(crate) fn name() -> Option<String> {
    let rank = rank().filter(|rank| *rank > 0)?;
    Some(match JOINED.get().and_then(Ranks::host) {
        Some(host) => format!("rank {rank} on {host}"),
        None => format!("rank {rank}"),
    })
}

fn rank() -> Option<usize> {
    match JOINED.get() {
        Some(ranks) => Some(ranks.rank()),
        None => Launched::here().map(|launched| launched.rank),
    }
}

/// Ends the other processes, if there are any, and this one.
pub(crate) fn abort(status: u8) {
    if let Some(ranks) = JOINED.get() {
        ranks.abort(status);
    }
}

/// The end of a process that has done what it should.
pub(crate) fn finish() {
    if let Some(ranks) = JOINED.get() {
        ranks.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<(&'static str, usize, Option<usize>)> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = Launched::find(variable)?;
        Some((found.launcher, found.rank, found.size))
    }

    #[test]
    fn a_process_is_one_of_several_where_the_launcher_says_so() {
        assert_eq!(found(&[]), None);
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(found(&open_mpi), Some(("mpirun", 1, Some(2))));
        let one = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")];
        assert_eq!(found(&one), None);
        let srun = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "4")];
        assert_eq!(found(&srun), Some(("srun", 3, Some(4))));
        let in_a_batch_script = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")];
        assert_eq!(found(&in_a_batch_script), None);
        let mpirun_in_srun = [
            open_mpi[0],
            open_mpi[1],
            srun[0],
            ("SLURM_STEP_NUM_TASKS", "1"),
        ];
        assert_eq!(found(&mpirun_in_srun), Some(("mpirun", 1, Some(2))));
        assert_eq!(
            found(&[("PMIX_RANK", "0")]),
            Some(("the launcher", 0, None))
        );
    }
}
