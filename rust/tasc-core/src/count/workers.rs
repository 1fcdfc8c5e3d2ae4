//! Partitions sorted by several threads, their n-grams taken in order by one.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memmap2::MmapMut;

use super::chunk::{Chunk, Partition, Window};
use super::groups::{Grouper, Sink};
use crate::pool;
use crate::{Error, Result, TokenId};

/// Windows of a partition, unless those of one symbol are more: as many as a core keeps near.
const PARTITION: usize = 1 << 14;

/// N-grams handed over at once.
const BATCH_BYTES: usize = 1 << 15;

/// Batches of a partition that wait to be taken.
const WAITING: usize = 2;

/// Partitions in work or waiting, for each thread.
const AHEAD: usize = 2;

/// Most bytes of n-grams that one thread keeps waiting, or is filling.
pub(crate) const BYTES_PER_WORKER: usize = (AHEAD * (WAITING + 1) + 1) * 2 * BATCH_BYTES + STACK;

/// Stack that a thread uses, with room for what its heap does not give back.
const STACK: usize = 1 << 17;

/// How long to wait for n-grams before asking whether to stop.
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

/// Collects batches and sends them; an error says that nobody takes them any more.
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
/// `progress` is told the share of windows done; its error ends it.
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
    let share = |windows: usize| windows as f64 / chunk.len() as f64;
    let slices = slices(&partitions, windows);
    if threads > 1 {
        return in_order(chunk, slices, threads, sink, |after| progress(share(after)));
    }
    let mut grouper = Grouper::new(chunk);
    for (windows, before) in slices {
        chunk.sort(windows);
        grouper.emit(windows, before, sink)?;
        progress(share(before + windows.len()))?;
    }
    Ok(())
}

/// Each thread fills in the windows of neighbouring partitions, about as many as the others.
fn fill(
    chunk: &Chunk<'_>,
    partitions: &[Partition],
    mut windows: &mut [Window],
    threads: usize,
    check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let most = windows.len().div_ceil(threads);
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
    pool::all(shares, threads, |(share, own), check| chunk.fill(share, own, check), check).map(drop)
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

/// Several threads sort; the n-grams are taken here, partition by partition. Threads go a few partitions ahead.
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
        for _ in 0..threads {
            let grouper = Grouper::new(chunk); // here: a thread's own heap would keep what it once had
            scope.spawn(|| work(chunk, grouper, &queue));
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

/// What waits for a thread: a partition, and where its n-grams go.
type Task<'a> = (Slice<'a>, SyncSender<Batch>);

/// What a thread does: partitions, until there are none, or nobody takes their n-grams.
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
