//! MPI, by rsmpi.

use std::fmt;
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mpi::Threading;
use mpi::environment::{self, Universe};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use super::{Group, Ranks};

/// Joins the processes that `mpirun` or `srun` started together. A second call, or one after the end, gives this process
/// alone.
pub fn join_mpi() -> Ranks {
    // Steps are computed on one thread, and evaluations on another, but never at the same time.
    let Some((universe, _)) = environment::initialize_with_threading(Threading::Serialized) else {
        return Ranks::alone();
    };
    let world = universe.world();
    let count = |number: i32| usize::try_from(number).expect("MPI counts from 0");
    let (rank, size) = (count(world.rank()), count(world.size()));
    let universe = Mutex::new(Some(universe));
    Ranks::of(Arc::new(Mpi {
        universe,
        rank,
        size,
    }))
}

struct Mpi {
    /// Until the end. Whoever calls MPI holds it: no two threads may do so at a time.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpi({} of {})", self.rank, self.size)
    }
}

impl Mpi {
    fn lock(&self) -> MutexGuard<'_, Option<Universe>> {
        self.universe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(
        &self,
        len: usize,
        exchange: impl FnOnce(&SimpleCommunicator, &mut [u8]),
    ) -> Vec<u8> {
        let universe = self.lock();
        let universe = universe.as_ref().expect("nobody exchanges after the end");
        let mut found = vec![0; len];
        exchange(&universe.world(), &mut found);
        found
    }
}

impl Group for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn host(&self) -> String {
        environment::processor_name().unwrap_or_default()
    }

    fn all_gather(&self, own: &[u8]) -> Vec<u8> {
        self.exchange(own.len() * self.size, |world, found| {
            world.all_gather_into(own, found);
        })
    }

    fn all_to_all(&self, parts: &[u8]) -> Vec<u8> {
        self.exchange(parts.len(), |world, found| {
            world.all_to_all_into(parts, found);
        })
    }

    fn abort(&self, status: u8) -> ! {
        match self.universe.try_lock() {
            Ok(universe) if universe.is_some() => SimpleCommunicator::world().abort(status.into()),
            // Where another thread is in an exchange, the launcher ends the others when this process does.
            _ => exit(status.into()),
        }
    }

    fn finish(&self) {
        drop(self.lock().take());
    }
}
