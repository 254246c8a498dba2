//! The processes that train together, and what they tell each other.
//!
//! [`Ranks`] is what the rest of the crate knows: which process this is, of how many, and a few exchanges. What carries them
//! is a [`Group`]; MPI is one (`mpi.rs`), and a process alone has none and exchanges nothing.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(test)]
pub(crate) mod threads;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "mpi")]
pub use self::mpi::join_mpi;
use crate::Error;

/// What carries bytes between processes. Each exchange is one that all take part in, in the same order; a process that
/// cannot go on [aborts](Self::abort), and whoever waits for it ends with it.
pub trait Group: Debug + Send + Sync {
    /// The number of this process, counted from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// The name of the machine that this process runs on.
    fn host(&self) -> String;

    /// The bytes of all processes, one behind the other. All give the same number.
    fn all_gather(&self, own: &[u8]) -> Vec<u8>;

    /// `parts` holds a part for each process, all of one length: what all processes have for this one, one behind the other.
    fn all_to_all(&self, parts: &[u8]) -> Vec<u8>;

    /// Ends all processes.
    fn abort(&self, status: u8) -> !;

    /// The last call of a process that ends as it should.
    fn finish(&self) {}
}

/// The processes of a run, as one of them sees them. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    group: Option<Arc<dyn Group>>,
    /// Nanoseconds spent on the gradients of steps.
    reducing: Arc<AtomicU64>,
}

impl Ranks {
    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self::default()
    }

    /// Those of a group.
    pub fn of(group: Arc<dyn Group>) -> Self {
        Self {
            group: Some(group),
            ..Self::default()
        }
    }

    /// The number of this process, counted from 0.
    pub fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rank())
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size())
    }

    /// Whether this is the process that writes files and speaks.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other process.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this process does the work with that number: it is dealt out one after the other.
    pub(crate) fn has(&self, work: usize) -> bool {
        work % self.size() == self.rank()
    }

    /// What all processes have, by rank.
    ///
    /// # Panics
    /// If `T` cannot be encoded, or the processes gave different types.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Vec<T> {
        let own = rmp_serde::to_vec_named(own).expect("plain values can be encoded");
        let all = match &self.group {
            None => vec![own],
            Some(group) => gather_bytes(group.as_ref(), own),
        };
        let value = |bytes: &Vec<u8>| rmp_serde::from_slice(bytes).expect("what a rank encoded");
        all.iter().map(value).collect()
    }

    /// The results of all work that [was dealt out](Self::has), in its order; `own` are this process's.
    pub(crate) fn each<T: Serialize + DeserializeOwned>(&self, own: Vec<T>) -> Vec<T> {
        if self.is_alone() {
            return own;
        }
        let mut all: Vec<_> = self.gather(&own).into_iter().map(Vec::into_iter).collect();
        let mut found = Vec::new();
        // The first process has one more than another, or as many.
        for rank in (0..all.len()).cycle() {
            match all[rank].next() {
                Some(result) => found.push(result),
                None => break,
            }
        }
        found
    }

    /// What the first process has.
    ///
    /// # Panics
    /// As [`gather`](Self::gather), and if the first process has nothing.
    pub fn of_first<T: Serialize + DeserializeOwned>(&self, own: Option<T>) -> T {
        let first = match self.is_alone() {
            true => own,
            false => self.gather(&own).swap_remove(0),
        };
        first.expect("the first rank has what it is asked for")
    }

    /// Whether it is so for any process.
    pub fn any(&self, own: bool) -> bool {
        match &self.group {
            Some(group) if group.size() > 1 => group.all_gather(&[own.into()]).contains(&1),
            _ => own,
        }
    }

    /// Waits for all.
    pub fn wait(&self) {
        self.any(false);
    }

    /// The name of the machine, where there are other processes.
    pub fn host(&self) -> Option<String> {
        self.group.as_ref().map(|group| group.host())
    }

    /// Among the processes of this machine, the number of this one and how many there are.
    pub fn on_this_host(&self) -> (usize, usize) {
        let Some(group) = &self.group else {
            return (0, 1);
        };
        let hosts = self.gather(&group.host());
        let here = |of: &[String]| {
            of.iter()
                .filter(|host| **host == hosts[self.rank()])
                .count()
        };
        (here(&hosts[..self.rank()]), here(&hosts))
    }

    /// Refuses to begin where the processes have not the same. `own` has names and values, the same names on all of them. Of
    /// values of several lines, the lines that differ are said.
    ///
    /// # Errors
    /// [`Error::RanksDiffer`], on all of them.
    pub fn check_same(&self, own: &[(&str, String)]) -> Result<(), Error> {
        let Some(group) = self.group.as_ref().filter(|_| !self.is_alone()) else {
            return Ok(());
        };
        let values: Vec<String> = own.iter().map(|(_, value)| value.clone()).collect();
        let all = self.gather(&(group.host(), values));
        let (_, first) = &all[0];
        for (rank, (host, values)) in all.iter().enumerate() {
            let mut pairs = own.iter().zip(first.iter().zip(values));
            if let Some(((what, _), (first, found))) = pairs.find(|(_, (a, b))| a != b) {
                let only = |text: &str, other: &str| {
                    let mut lines = text.lines();
                    let line = lines.find(|line| !other.lines().any(|of_other| of_other == *line));
                    line.unwrap_or("nothing").to_owned()
                };
                return Err(Error::RanksDiffer {
                    rank,
                    host: host.clone(),
                    what: (*what).to_owned(),
                    first: only(first, found),
                    found: only(found, first),
                });
            }
        }
        Ok(())
    }

    /// Ends all processes, where there are others.
    pub fn abort(&self, status: u8) {
        if let Some(group) = &self.group {
            group.abort(status);
        }
    }

    /// The last call of a process that ends as it should.
    pub fn finish(&self) {
        if let Some(group) = &self.group {
            group.finish();
        }
    }

    /// A step took so long for its gradients' way among the processes.
    pub(crate) fn reduced(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.reducing.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Seconds that all steps took for it, with what this process waited for others.
    pub(crate) fn reducing_seconds(&self) -> f64 {
        Duration::from_nanos(self.reducing.load(Ordering::Relaxed)).as_secs_f64()
    }

    pub(crate) fn group(&self) -> Option<&dyn Group> {
        self.group.as_deref().filter(|group| group.size() > 1)
    }
}

/// The bytes of each process, which may be of any number.
fn gather_bytes(group: &dyn Group, own: Vec<u8>) -> Vec<Vec<u8>> {
    /// MPI counts in 32 bits.
    const MOST: usize = 64 << 20;
    let lengths = group.all_gather(&(own.len() as u64).to_le_bytes());
    let (lengths, _) = lengths.as_chunks::<8>();
    let lengths: Vec<usize> = lengths
        .iter()
        .map(|length| u64::from_le_bytes(*length) as usize)
        .collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut padded = own;
    padded.resize(longest, 0);
    let mut all: Vec<Vec<u8>> = vec![Vec::with_capacity(longest); lengths.len()];
    for piece in padded.chunks(MOST) {
        let found = group.all_gather(piece);
        for (all, found) in all.iter_mut().zip(found.chunks(piece.len())) {
            all.extend(found);
        }
    }
    for (all, length) in all.iter_mut().zip(lengths) {
        all.truncate(length);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::threads::on_threads;
    use super::*;

    #[test]
    fn a_process_alone_has_only_itself() {
        let alone = Ranks::alone();
        assert_eq!(
            (alone.rank(), alone.size(), alone.on_this_host()),
            (0, 1, (0, 1))
        );
        assert_eq!(alone.gather(&7), [7]);
        assert_eq!(alone.of_first(Some("a".to_owned())), "a");
        assert!(alone.any(true) && !alone.any(false));
        alone.check_same(&[("the base", "1".into())]).unwrap();
    }

    #[test]
    fn values_of_any_size_come_in_the_order_of_the_ranks() {
        let all = on_threads(3, |ranks| ranks.gather(&vec![0.1_f64; ranks.rank()]));
        let expected: Vec<Vec<f64>> = (0..3).map(|rank| vec![0.1; rank]).collect();
        assert_eq!(all, [expected.clone(), expected.clone(), expected]);
    }

    #[test]
    fn results_come_in_the_order_of_the_work() {
        for work in [0, 1, 3, 7] {
            let all = on_threads(3, |ranks| {
                let own = (0..work).filter(|number| ranks.has(*number));
                ranks.each(own.collect())
            });
            assert_eq!(all, vec![(0..work).collect::<Vec<usize>>(); 3]);
        }
    }

    #[test]
    fn one_that_stops_stops_all() {
        assert_eq!(
            on_threads(2, |ranks| ranks.any(ranks.rank() == 1)),
            [true; 2]
        );
        assert_eq!(on_threads(2, |ranks| ranks.any(false)), [false; 2]);
    }

    #[test]
    fn all_say_which_rank_differs_in_what() {
        let said = on_threads(3, |ranks| {
            let rows = ["a\nb", "a\nb", "a\nc"][ranks.rank()];
            let own = [("the base", "1".to_owned()), ("the rows", rows.to_owned())];
            ranks.check_same(&own).unwrap_err().to_string()
        });
        let expected = "rank 2 (on here) differs from rank 0 in the rows: c, not b";
        assert_eq!(said, [expected; 3]);
    }
}
