//! Threads in the place of processes, for tests.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use super::{Group, Ranks};

#[derive(Debug)]
struct Threads {
    rank: usize,
    said: Arc<[Mutex<Vec<u8>>]>,
    barrier: Arc<Barrier>,
}

impl Group for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.said.len()
    }

    fn host(&self) -> String {
        "here".into()
    }

    fn all_gather(&self, own: &[u8]) -> Vec<u8> {
        *self.said[self.rank].lock().unwrap() = own.to_vec();
        self.barrier.wait();
        let all = self.said.iter().map(|said| said.lock().unwrap().clone());
        let all: Vec<Vec<u8>> = all.collect();
        self.barrier.wait();
        assert!(all.iter().all(|said| said.len() == own.len()));
        all.concat()
    }

    fn all_to_all(&self, parts: &[u8]) -> Vec<u8> {
        let (all, part) = (self.all_gather(parts), parts.len() / self.size());
        let of_each = all.chunks(parts.len());
        let own = of_each.flat_map(|parts| &parts[self.rank * part..][..part]);
        own.copied().collect()
    }

    fn abort(&self, _status: u8) -> ! {
        panic!("aborted")
    }
}

/// What each of `size` ranks comes to.
pub(crate) fn on_threads<T: Send>(size: usize, act: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let said: Arc<[_]> = (0..size).map(|_| Mutex::default()).collect();
    let barrier = Arc::new(Barrier::new(size));
    let ranks = |rank| {
        let (said, barrier) = (said.clone(), barrier.clone());
        Ranks::of(Arc::new(Threads {
            rank,
            said,
            barrier,
        }))
    };
    thread::scope(|scope| {
        let act = &act;
        let running: Vec<_> = (0..size)
            .map(ranks)
            .map(|ranks| scope.spawn(move || act(ranks)))
            .collect();
        running
            .into_iter()
            .map(|running| running.join().unwrap())
            .collect()
    })
}
