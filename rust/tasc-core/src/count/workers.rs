//! Sorts partitions on several threads; one thread receives their n-grams in order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memmap2::MmapMut;

use super::chunk::{Chunk, Partition, Window};
use super::groups::{Grouper, Sink};
use crate::pool;
use crate::{Error, Result, TokenId};

/// Windows of a partition, unless one symbol has more: they fit a core's cache.
const PARTITION: usize = 1 << 14;

/// Bytes of n-grams that are sent together.
const BATCH_BYTES: usize = 1 << 15;

/// Batches of a partition that wait to be received.
const WAITING: usize = 2;

/// Partitions that are being sorted or wait, for each thread.
const AHEAD: usize = 2;

/// Upper bound of the bytes of n-grams of one thread.
pub(crate) const BYTES_PER_WORKER: usize = (AHEAD * (WAITING + 1) + 1) * 2 * BATCH_BYTES + STACK;

/// Stack that a thread uses, with room for what its heap does not give back.
const STACK: usize = 1 << 17;

/// How long to wait for n-grams before `progress` is called.
const PATIENCE: Duration = Duration::from_millis(50);

/// N-grams of several lengths.
#[derive(Default)]
struct Batch {
    ids: Vec<TokenId>,
    /// Length, count, documents.
    entries: Vec<(u32, u64, u64)>,
}

impl Batch {
    fn give(&self, sink: &mut impl Sink) -> Result<()> {
        let mut rest = self.ids.as_slice();
        for &(length, count, documents) in &self.entries {
            let (ids, behind) = rest.split_at(length as usize);
            sink.push(ids, count, documents)?;
            rest = behind;
        }
        Ok(())
    }
}

/// Collects batches and sends them; an error says that the receiver is gone.
struct Sending<'a> {
    batch: Batch,
    to: &'a SyncSender<Batch>,
}

impl Sink for Sending<'_> {
    fn push(&mut self, ids: &[TokenId], count: u64, documents: u64) -> Result<()> {
        self.batch.ids.extend_from_slice(ids);
        self.batch.entries.push((ids.len() as u32, count, documents));
        if size_of_val(&*self.batch.entries) + size_of_val(&*self.batch.ids) >= BATCH_BYTES {
            self.send()
        } else {
            Ok(())
        }
    }
}

impl Sending<'_> {
    fn send(&mut self) -> Result<()> {
        self.to.send(std::mem::take(&mut self.batch)).map_err(|_| Error::Stopped)
    }
}

/// A partition to sort: its windows, and how many are before them.
type Slice<'a> = (&'a mut [Window], usize);

/// Sorts the partitions of a chunk and gives `sink` their n-grams, those of each length in ascending order.
/// `progress` is called with the share of windows done; its error ends the work.
pub(crate) fn group(
    chunk: &Chunk<'_>,
    threads: usize,
    sink: &mut impl Sink,
    mut progress: impl FnMut(f64) -> Result<()>,
) -> Result<()> {
    let partitions = chunk.partitions(PARTITION);
    let bytes = chunk.len() * size_of::<Window>();
    // not from the allocator, which may keep what is given back, so that merging would come on top of it
    let mut memory = MmapMut::map_anon(bytes.max(1)).map_err(|source| Error::Io { path: "<memory>".into(), source })?;
    let windows: &mut [Window] = bytemuck::cast_slice_mut(&mut memory[..bytes]);
    fill(chunk, &partitions, windows, threads, || progress(0.0))?;
    let mut progress = |windows: usize| progress(windows as f64 / chunk.len() as f64);
    let slices = slices(&partitions, windows);
    if threads > 1 {
        in_order(chunk, slices, threads, sink, progress)
    } else {
        alone(chunk, slices, sink, &mut progress)
    }
}

/// Sorts on this thread.
fn alone<'a>(
    chunk: &Chunk<'_>,
    slices: impl Iterator<Item = Slice<'a>>,
    sink: &mut impl Sink,
    progress: &mut impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut grouper = Grouper::new(chunk);
    for (windows, before) in slices {
        chunk.sort(windows);
        grouper.emit(windows, before, sink)?;
        progress(before + windows.len())?;
    }
    Ok(())
}

/// Fills in the windows. Each thread gets neighbouring partitions with about as many windows as the others'.
fn fill(
    chunk: &Chunk<'_>,
    partitions: &[Partition],
    mut windows: &mut [Window],
    threads: usize,
    check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let most = windows.len().div_ceil(threads.max(1));
    let mut shares = Vec::new();
    let mut partitions = partitions;
    while !partitions.is_empty() {
        let mut sum = 0;
        let fits = |p: &&Partition| {
            sum += p.windows;
            sum <= most
        };
        let (share, behind) = partitions.split_at(partitions.iter().take_while(fits).count().max(1));
        let size = share.iter().map(|p| p.windows).sum();
        let (own, rest) = std::mem::take(&mut windows).split_at_mut(size);
        shares.push((share, own));
        (partitions, windows) = (behind, rest);
    }
    pool::all(threads, shares, |(share, own), check| chunk.fill(share, own, check), check).map(drop)
}

/// The windows of each partition.
fn slices<'a>(partitions: &'a [Partition], mut windows: &'a mut [Window]) -> impl Iterator<Item = Slice<'a>> {
    let mut before = 0;
    partitions.iter().map(move |partition| {
        let (own, rest) = std::mem::take(&mut windows).split_at_mut(partition.windows);
        windows = rest;
        before += own.len();
        (own, before - partition.windows)
    })
}

/// Sorts on threads that go a few partitions ahead, and gives `sink` the n-grams partition by partition.
fn in_order<'a>(
    chunk: &Chunk<'_>,
    mut slices: impl Iterator<Item = Slice<'a>>,
    threads: usize,
    sink: &mut impl Sink,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let (tasks, queue) = channel();
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        let started = pool::spawn(scope, threads, || {
            let grouper = Grouper::new(chunk); // here: a thread's own heap would keep what it once had
            let queue = &queue;
            move || work(chunk, grouper, queue)
        });
        if started == 0 {
            return alone(chunk, slices, sink, &mut progress);
        }
        let tasks = tasks; // gone when this ends, whatever it ends with: the threads end then
        let mut waiting = VecDeque::new();
        let mut before = 0;
        loop {
            while waiting.len() < AHEAD * threads {
                let Some(slice) = slices.next() else { break };
                let (sender, receiver) = sync_channel(WAITING);
                waiting.push_back((receiver, slice.1 + slice.0.len()));
                tasks.send((slice, sender)).map_err(|_| Error::Stopped)?;
            }
            let Some((batches, after)) = waiting.pop_front() else { return Ok(()) };
            take(&batches, sink, || progress(before))?;
            progress(after)?;
            before = after;
        }
    })
}

/// Gives `sink` the batches of a partition.
fn take(batches: &Receiver<Batch>, sink: &mut impl Sink, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match batches.recv_timeout(PATIENCE) {
            Ok(batch) => batch.give(sink)?,
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A partition that waits for a thread, and the channel for its n-grams.
type Task<'a> = (Slice<'a>, SyncSender<Batch>);

/// Sorts partitions until there are none left, or until the receiver is gone.
fn work(chunk: &Chunk<'_>, mut grouper: Grouper<'_>, queue: &Mutex<Receiver<Task<'_>>>) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(((windows, before), to)) = task else { return };
        chunk.sort(windows);
        let mut sending = Sending { batch: Batch::default(), to: &to };
        if grouper.emit(windows, before, &mut sending).and_then(|()| sending.send()).is_err() {
            return;
        }
    }
}
