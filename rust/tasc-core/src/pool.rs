//! Threads for one call. They are gone when the call returns, so that a process can fork between calls.
//!
//! Where the system starts fewer threads than asked for (a limit of processes, too little memory), these do the work; where it
//! starts none, the caller's thread does it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, Scope};
use std::time::Duration;

use crate::{Error, Result};

/// How long to wait for results before `check` is called.
const PATIENCE: Duration = Duration::from_millis(50);

/// Most threads that are started by default.
const MAX_THREADS: usize = 16;

/// Returns the default number of threads: one per core that this process may use, at most 16.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_THREADS)
}

/// Starts up to `threads` threads; each does the work that one call of `work` returns. Returns how many were started.
pub(crate) fn spawn<'scope, W: FnOnce() + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    threads: usize,
    mut work: impl FnMut() -> W,
) -> usize {
    (0..threads).take_while(|_| Builder::new().spawn_scoped(scope, work()).is_ok()).count()
}

/// Applies `work` to every item on up to `threads` threads, this one among them; results are in the order of the items.
/// A panic of `work` is propagated.
///
/// # Complexity
/// The work divided by the threads, and some ten microseconds for each of them.
pub fn map<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let some = || {
        let taken = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        taken.map_while(|at| items.get(at).map(|item| (at, work(item)))).collect::<Vec<_>>()
    };
    let mut made = std::thread::scope(|scope| {
        let start = |_| Builder::new().spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads).map_while(start).collect();
        let mut made = some();
        for other in others {
            made.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        made
    });
    made.sort_unstable_by_key(|m| m.0);
    made.into_iter().map(|m| m.1).collect()
}

/// Does all tasks on up to `threads` threads and returns the results in their order. The work calls its second argument
/// now and then: its error ends the task. So does an error of `check`, which is called on this thread, or of another task.
///
/// # Errors
/// The first error of a task, or of `check`.
pub(crate) fn all<T: Send, R: Send>(
    threads: usize,
    tasks: Vec<T>,
    work: impl Fn(T, &mut dyn FnMut() -> Result<()>) -> Result<R> + Sync,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Vec<R>> {
    let (threads, count) = (threads.min(tasks.len()), tasks.len());
    if threads <= 1 {
        return tasks.into_iter().map(|task| work(task, &mut check)).collect();
    }
    let stop = AtomicBool::new(false);
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        let started = spawn(scope, threads, || {
            let (sender, next, work, stop) = (sender.clone(), &next, &work, &stop);
            move || {
                while let Some((place, task)) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
                    let mut check = || if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
                    let _ = sender.send((place, work(task, &mut check)));
                }
            }
        });
        if started == 0 {
            return std::iter::from_fn(next).map(|(_, task)| work(task, &mut check)).collect();
        }
        drop(sender);
        let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let mut done = || {
            loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok((place, result)) => results[place] = Some(result?),
                    Err(RecvTimeoutError::Timeout) => check()?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        };
        let ended = done();
        stop.store(true, Ordering::Relaxed);
        ended.map(|()| results.into_iter().flatten().collect())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_for_any_number_of_threads() {
        for threads in 1..5 {
            let squares = all(threads, (0..100u64).collect(), |n, _| Ok(n * n), || Ok(())).unwrap();
            assert!(squares.into_iter().eq((0..100).map(|n| n * n)));
        }
    }

    #[test]
    fn items_are_mapped_in_order_on_any_number_of_threads() {
        let items: Vec<u64> = (0..100).collect();
        for threads in [0, 1, 2, 7, 200] {
            let here = std::thread::current().id();
            let made = map(&items, threads, |n| (n * n, std::thread::current().id() == here));
            assert!(made.iter().map(|m| m.0).eq(items.iter().map(|n| n * n)));
            assert!(threads > 1 || made.iter().all(|m| m.1));
            assert!(map(&items[..0], threads, |n| *n).is_empty());
        }
        let caught = std::panic::catch_unwind(|| map(&items, 3, |n| assert!(*n != 50)));
        assert!(caught.is_err());
    }

    #[test]
    fn an_error_ends_all_tasks() {
        for threads in 1..5 {
            let work = |n: u64, check: &mut dyn FnMut() -> Result<()>| match n {
                7 => Err(Error::EmptyCorpus),
                _ => check(),
            };
            assert!(matches!(all(threads, (0..100).collect(), work, || Ok(())), Err(Error::EmptyCorpus)));
            let endless = |_, check: &mut dyn FnMut() -> Result<()>| {
                loop {
                    check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let stopped: Result<Vec<()>> = all(threads, vec![0; 4], endless, || Err(Error::Stopped));
            assert!(matches!(stopped, Err(Error::Stopped)));
        }
    }
}
