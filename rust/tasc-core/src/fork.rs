//! Forks while other threads work. A child has one thread; a lock that another one held at the fork would stay locked, and
//! what it guards could be half changed. So whoever holds locks of a drafter *works*, and a process forks while nobody does.
//!
//! ```
//! use tasc_core::fork;
//! let pause = fork::pause(); // before `fork`; other threads that begin to work wait
//! drop(pause); // after it, in the parent and in the child
//! let _work = fork::work();
//! ```

use std::cell::Cell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

static WORKING: RwLock<()> = RwLock::new(());

thread_local! {
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// The thread works until this is dropped.
#[must_use]
pub struct Work(Option<RwLockReadGuard<'static, ()>>);

impl Drop for Work {
    fn drop(&mut self) {
        if self.0.is_some() {
            WORKS.set(false);
        }
    }
}

/// Begins to work, which waits for the end of a pause. It may be called again by a thread that works already.
///
/// A thread that works must not wait for one that may be about to fork, so it calls no code of a user. Nor may a thread
/// wait here that holds what the forking thread may need.
///
/// # Complexity
/// Two atomic operations.
pub fn work() -> Work {
    let works = WORKS.replace(true);
    Work((!works).then(|| WORKING.read().unwrap_or_else(PoisonError::into_inner)))
}

/// As [`work`]; `None` instead of waiting.
pub fn try_work() -> Option<Work> {
    let guard = match WORKING.try_read() {
        _ if WORKS.get() => None,
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => return None,
    };
    WORKS.set(true);
    Some(Work(guard))
}

/// Other threads do not work until this is dropped.
#[must_use]
pub struct Pause(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>);

impl Drop for Pause {
    fn drop(&mut self) {
        WORKS.set(false);
    }
}

/// Waits until no thread works. None begins to before the result is dropped, but for this one. For threads that do not work.
pub fn pause() -> Pause {
    let pause = WORKING.write().unwrap_or_else(PoisonError::into_inner);
    WORKS.set(true);
    Pause(pause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pause_waits_for_work_and_work_for_a_pause() {
        let (sender, receiver) = channel();
        let (outer, inner) = (work(), work());
        let thread = std::thread::spawn(move || {
            let pause = pause();
            let (_work, _more) = (work(), try_work().unwrap());
            sender.send("paused").unwrap();
            std::thread::sleep(Duration::from_millis(20));
            sender.send("goes on").unwrap();
            drop(pause);
        });
        drop(inner);
        assert_eq!(receiver.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
        assert!(try_work().is_some());
        drop(outer);
        assert_eq!(receiver.recv(), Ok("paused"));
        assert!(try_work().is_none());
        let _work = work();
        assert_eq!(receiver.try_recv(), Ok("goes on"));
        thread.join().unwrap();
    }
}
