//! Threads of our own: as many as asked for, gone when the call returns (so that a fork is safe).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::{Error, Result};

/// How long to wait for work to be done before asking whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Does all tasks, at most `threads` at a time, and returns the results in their order. The work calls its second
/// argument now and then: its error ends the task. So does an error of `check`, which is called here, or of another task.
///
/// # Errors
/// The first error of a task, or of `check`.
pub(crate) fn all<T: Send, R: Send>(
    tasks: Vec<T>,
    threads: usize,
    work: impl Fn(T, &mut dyn FnMut() -> Result<()>) -> Result<R> + Sync,
    mut check: impl FnMut() -> Result<()>,
) -> Result<Vec<R>> {
    if threads <= 1 || tasks.len() <= 1 {
        return tasks.into_iter().map(|task| work(task, &mut check)).collect();
    }
    let count = tasks.len();
    let stop = AtomicBool::new(false);
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            let (sender, work, queue, stop) = (sender.clone(), &work, &queue, &stop);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, task)) = next.filter(|_| !stop.load(Ordering::Relaxed)) else { return };
                    let mut check = || if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
                    let _ = sender.send((place, work(task, &mut check)));
                }
            });
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
            let squares = all((0..100u64).collect(), threads, |n, _| Ok(n * n), || Ok(())).unwrap();
            assert!(squares.into_iter().eq((0..100).map(|n| n * n)));
        }
    }

    #[test]
    fn an_error_ends_all_tasks() {
        for threads in 1..5 {
            let work = |n: u64, check: &mut dyn FnMut() -> Result<()>| match n {
                7 => Err(Error::EmptyCorpus),
                _ => check(),
            };
            assert!(matches!(all((0..100).collect(), threads, work, || Ok(())), Err(Error::EmptyCorpus)));
            let endless = |_, check: &mut dyn FnMut() -> Result<()>| {
                loop {
                    check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let stopped: Result<Vec<()>> = all(vec![0; 4], threads, endless, || Err(Error::Stopped));
            assert!(matches!(stopped, Err(Error::Stopped)));
        }
    }
}
