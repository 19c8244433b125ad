//! Fork and join in a few microseconds: persistent threads that spin briefly between jobs, then park.
//!
//! Tasks are handed out one by one, so threads may take any of them; callers split their work the same way whatever
//! the number of threads, which keeps results independent of it. The caller works too, and waits only for threads
//! that have entered the job: one that is still waking up finds the job closed and goes back to sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::JoinHandle;

use crate::{Error, Result};

/// Rounds of `spin_loop` (40-140 cycles each) before a waiting thread parks: about 50 microseconds.
const SPINS: u32 = 1500;
/// Rounds before the joining caller starts to yield its core.
const JOIN_SPINS: u32 = 3000;

const OPEN: u64 = 1 << 31;
const EPOCH: u64 = 1 << 32;

#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize, usize) + Sync),
    tasks: usize,
}

struct Shared {
    /// High half: number of the job. Then one bit: open to enter. Rest: threads inside.
    state: AtomicU64,
    /// Written while no thread is inside, read by threads that are.
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the thread that holds `&mut Pool`, while the state says that nobody is inside, and
// read only by threads that entered afterwards; the state's release and acquire order the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only while the closure it points to is alive (see `Pool::run`).
unsafe impl Send for Shared {}

/// Threads that run the tasks of one job at a time.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller being one of them.
    pub(super) fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { run: &|_, _| {}, tasks: 0 }),
            next: AtomicUsize::new(0),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(threads - 1) };
        for thread in 1..threads {
            let shared = pool.shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("lim-cpu-{thread}"))
                .spawn(move || shared.work(thread))
                .map_err(|e| Error::Device {
                    device: "cpu".into(),
                    reason: format!("starting a thread: {e}"),
                })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller included.
    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(i, thread)` for every `i < tasks`; `thread < self.threads()` names scratch. Panics when a task does.
    pub(super) fn run(&mut self, tasks: usize, task: impl Fn(usize, usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|i| task(i, 0));
            return;
        }
        let shared = &*self.shared;
        let run: *const (dyn Fn(usize, usize) + Sync + '_) = &task;
        // SAFETY: only the lifetime changes. Threads use the pointer only inside the job, and this function does not
        // return before the job is closed and empty.
        let run: *const (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(run) };
        // SAFETY: the job is closed and empty, and `&mut self` excludes another caller.
        unsafe { *shared.job.get() = Job { run, tasks } };
        shared.next.store(0, Relaxed);
        let epoch = (shared.state.load(Relaxed) & !(EPOCH - 1)).wrapping_add(EPOCH);
        shared.state.store(epoch | OPEN, SeqCst);
        for (worker, asleep) in self.workers.iter().zip(&shared.asleep) {
            if asleep.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        shared.tasks(Job { run, tasks }, 0);
        shared.state.fetch_and(!OPEN, SeqCst);
        let mut spins = 0;
        while shared.state.load(Acquire) != epoch {
            spins += 1;
            if spins < JOIN_SPINS { spin_loop() } else { std::thread::yield_now() }
        }
        let panic = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches every panic of its tasks, so there is nothing to hear from it.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn tasks(&self, job: Job, thread: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Relaxed);
                if i >= job.tasks {
                    break;
                }
                // SAFETY: this thread is inside the job, so the closure is alive.
                unsafe { (*job.run)(i, thread) }
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(job.tasks, Relaxed);
            *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
        }
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(state) = self.wait(seen, thread) {
            seen = state / EPOCH;
            let mut state = state;
            while state / EPOCH == seen && state & OPEN != 0 {
                match self.state.compare_exchange_weak(state, state + 1, Acquire, Acquire) {
                    Ok(_) => {
                        // SAFETY: inside, so the job is complete and stays until this thread leaves.
                        self.tasks(unsafe { *self.job.get() }, thread);
                        self.state.fetch_sub(1, Release);
                        break;
                    }
                    Err(now) => state = now,
                }
            }
        }
    }

    /// The state once its epoch is not `seen`; `None` to stop.
    fn wait(&self, seen: u64, thread: usize) -> Option<u64> {
        let mut spins = 0;
        loop {
            if self.stop.load(SeqCst) {
                return None;
            }
            let state = self.state.load(SeqCst);
            if state / EPOCH != seen {
                return Some(state);
            }
            if spins < SPINS {
                spins += 1;
                spin_loop();
                continue;
            }
            let asleep = &self.asleep[thread - 1];
            asleep.store(true, SeqCst);
            if self.state.load(SeqCst) / EPOCH == seen && !self.stop.load(SeqCst) {
                std::thread::park();
            }
            asleep.store(false, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for round in 0..300 {
                let hits: Vec<AtomicUsize> = (0..round).map(|_| AtomicUsize::new(0)).collect();
                pool.run(round, |i, thread| {
                    assert!(thread < threads);
                    hits[i].fetch_add(1, Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Relaxed) == 1), "{threads} threads, {round} tasks");
            }
        }
    }

    #[test]
    fn parked_threads_wake_up() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(3));
            let inside = AtomicUsize::new(0);
            // Each task waits for the others: it ends only when three threads take part.
            pool.run(3, |_, _| {
                inside.fetch_add(1, SeqCst);
                while inside.load(SeqCst) < 3 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, |i, _| assert!(i != 37, "task 37"));
            }));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(10, |i, _| {
                sum.fetch_add(i, Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }
}
