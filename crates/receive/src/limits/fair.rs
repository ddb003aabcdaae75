//! A number of units (bytes, threads) that the requests of all tenants share fairly.
//!
//! ```text
//! tenant a  ■■■■■■■ (waits)  ┐
//! tenant b  ■                ├─ one tenant after the other, a share of units each ── units in use
//! tenant c  ■■               ┘
//! ```
//!
//! Who finds units free and nobody waiting takes them at once. Else each tenant has a queue of its own, first come first
//! served, and the tenants take turns (deficit round robin: a turn is worth a quantum of units, so that large requests
//! count for what they are). So a tenant that floods waits behind itself: another one's request is the next but the few
//! that are being worked on. A tenant holds at most its part of the whole at a time (but always one request), so that one
//! that sends slowly cannot hold everything; and a queue has a bound, beyond which its tenant is told to come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chronolith_model::TenantId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A turn is worth this part of the whole: small against it, and few turns for the largest request.
const QUANTUM_PART: u64 = 64;

/// Why units were not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueRefusal {
    /// So many of the tenant's requests wait already.
    Full(usize),
    /// The time was up.
    TimedOut,
}

/// Units that tenants share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FairQueue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    units: u64,
    free: u64,
    /// The most that one tenant holds at a time.
    tenant_units_max: u64,
    /// The most requests of one tenant that wait.
    waiting_max: usize,
    tenants: HashMap<TenantId, Tenant>,
    /// Tenants with waiting requests, in the order of their turns.
    turns: VecDeque<TenantId>,
    waiting: usize,
}

/// A tenant that holds units or waits for them.
#[derive(Debug, Default)]
struct Tenant {
    held: u64,
    deficit: u64,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    units: u64,
    give: oneshot::Sender<FairShare>,
}

/// Units of a tenant, given back when dropped.
#[derive(Debug)]
pub struct FairShare {
    /// `None` once given back.
    of: Option<FairQueue>,
    tenant: TenantId,
    units: u64,
}

impl FairQueue {
    /// A queue of `units`, of which one tenant holds `tenant_units_max` at the most while up to `waiting_max` of its
    /// requests wait.
    pub fn new(units: u64, tenant_units_max: u64, waiting_max: usize) -> Self {
        let units = units.max(1);
        FairQueue(Arc::new(Mutex::new(State {
            units,
            free: units,
            tenant_units_max: tenant_units_max.clamp(1, units),
            waiting_max,
            tenants: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
        })))
    }

    /// Waits for a share, at most `patience`. Who asks for more than the whole gets the whole.
    pub async fn acquire(
        &self,
        tenant: &TenantId,
        units: u64,
        patience: Duration,
    ) -> Result<FairShare, QueueRefusal> {
        let given = {
            let mut state = self.0.lock();
            let units = units.clamp(1, state.units);
            if state.waiting == 0 && state.has_room(tenant, units) {
                state.take(tenant, units);
                return Ok(self.share(tenant, units));
            }
            let given = state.enqueue(tenant, units)?;
            // Whoever waits may wait for units of his own.
            self.give(&mut state);
            given
        };
        match tokio::time::timeout(patience, given).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => {
                // What could not be given to this one may fit the next.
                self.give(&mut self.0.lock());
                Err(QueueRefusal::TimedOut)
            }
        }
    }

    /// From now on there are this many units. Shares that are out stay out.
    pub fn resize(&self, units: u64, tenant_units_max: u64) {
        let mut state = self.0.lock();
        let units = units.max(1);
        let out = state.units - state.free;
        state.units = units.max(out);
        state.free = state.units - out;
        state.tenant_units_max = tenant_units_max.clamp(1, state.units);
        self.give(&mut state);
    }

    /// Units that are out.
    pub fn used(&self) -> u64 {
        let state = self.0.lock();
        state.units - state.free
    }

    /// All units.
    pub fn units(&self) -> u64 {
        self.0.lock().units
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    fn share(&self, tenant: &TenantId, units: u64) -> FairShare {
        FairShare { of: Some(self.clone()), tenant: tenant.clone(), units }
    }

    /// Gives what is free to those whose turn it is.
    fn give(&self, state: &mut State) {
        while let Some((tenant, waiter)) = state.next() {
            state.take(&tenant, waiter.units);
            if let Err(mut share) = waiter.give.send(self.share(&tenant, waiter.units)) {
                // Gone meanwhile. Its share must not come back by itself: the lock is held.
                share.of = None;
                state.put_back(&tenant, waiter.units);
            }
        }
    }
}

impl State {
    /// True when the units are free and the tenant may have them.
    fn has_room(&self, tenant: &TenantId, units: u64) -> bool {
        let held = self.tenants.get(tenant).map_or(0, |t| t.held);
        units <= self.free && (held == 0 || held + units <= self.tenant_units_max)
    }

    fn take(&mut self, tenant: &TenantId, units: u64) {
        self.free -= units;
        match self.tenants.get_mut(tenant) {
            Some(known) => known.held += units,
            None => {
                self.tenants.insert(tenant.clone(), Tenant { held: units, ..Tenant::default() });
            }
        }
    }

    fn put_back(&mut self, tenant: &TenantId, units: u64) {
        self.free += units;
        if let Some(known) = self.tenants.get_mut(tenant) {
            known.held -= units;
            if known.held == 0 && known.queue.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    fn enqueue(
        &mut self,
        tenant: &TenantId,
        units: u64,
    ) -> Result<oneshot::Receiver<FairShare>, QueueRefusal> {
        let known = self.tenants.entry_ref(tenant).or_default();
        if known.queue.len() >= self.waiting_max {
            let before = known.queue.len();
            known.queue.retain(|waiter| !waiter.give.is_closed());
            self.waiting -= before - known.queue.len();
            if known.queue.len() >= self.waiting_max {
                return Err(QueueRefusal::Full(self.waiting_max));
            }
        }
        if known.queue.is_empty() && !self.turns.contains(tenant) {
            self.turns.push_back(tenant.clone());
        }
        let (give, given) = oneshot::channel();
        known.queue.push_back(Waiter { units, give });
        self.waiting += 1;
        Ok(given)
    }

    /// Who is next, taken out of its queue; `None` when nobody can have units now.
    fn next(&mut self) -> Option<(TenantId, Waiter)> {
        let quantum = (self.units / QUANTUM_PART).max(1);
        let mut passed_over = 0;
        while passed_over < self.turns.len() {
            let tenant = self.turns.front()?.clone();
            let known = self.tenants.get_mut(&tenant).expect("who has a turn waits");
            while known.queue.front().is_some_and(|waiter| waiter.give.is_closed()) {
                known.queue.pop_front();
                self.waiting -= 1;
            }
            let Some(first) = known.queue.front() else {
                known.deficit = 0;
                self.turns.pop_front();
                if known.held == 0 {
                    self.tenants.remove(&tenant);
                }
                continue;
            };
            let units = first.units;
            if known.held > 0 && known.held + units > self.tenant_units_max {
                self.turns.rotate_left(1);
                passed_over += 1;
                continue;
            }
            if units > known.deficit {
                known.deficit += quantum;
            }
            if units > known.deficit {
                self.turns.rotate_left(1);
                passed_over = 0;
                continue;
            }
            if units > self.free {
                return None; // It is its turn: what comes free next is for it.
            }
            known.deficit -= units;
            let waiter = known.queue.pop_front()?;
            self.waiting -= 1;
            if known.queue.is_empty() {
                known.deficit = 0;
                self.turns.pop_front();
            } else if known.deficit < known.queue.front().map_or(0, |w| w.units) {
                self.turns.rotate_left(1);
            }
            return Some((tenant, waiter));
        }
        None
    }
}

impl Drop for FairShare {
    fn drop(&mut self) {
        if let Some(queue) = self.of.take() {
            let mut state = queue.0.lock();
            state.put_back(&self.tenant, self.units);
            queue.give(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// Starts to wait, and is in the queue when this returns.
    async fn wait(
        queue: &FairQueue,
        name: &str,
        units: u64,
    ) -> tokio::task::JoinHandle<Result<FairShare, QueueRefusal>> {
        let before = queue.waiting();
        let (queue, tenant) = (queue.clone(), tenant(name));
        let waits = queue.clone();
        let task = tokio::spawn(async move { queue.acquire(&tenant, units, LONG).await });
        while waits.waiting() == before && !task.is_finished() {
            tokio::task::yield_now().await;
        }
        task
    }

    /// As [`wait`], and gives back at once what it gets. (A task that ended holds its result until it is asked for it.)
    async fn pass(queue: &FairQueue, name: &str, units: u64) -> tokio::task::JoinHandle<()> {
        let before = queue.waiting();
        let (own, tenant) = (queue.clone(), tenant(name));
        let task = tokio::spawn(async move { drop(own.acquire(&tenant, units, LONG).await.unwrap()) });
        while queue.waiting() == before && !task.is_finished() {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn a_tenant_that_floods_waits_behind_itself() {
        let queue = FairQueue::new(2, 2, 100);
        let running = queue.acquire(&tenant("flood"), 2, LONG).await.unwrap();
        let mut flood = Vec::new();
        for _ in 0..50 {
            flood.push(pass(&queue, "flood", 1).await);
        }
        let (quiet, other) = (wait(&queue, "quiet", 1).await, wait(&queue, "other", 2).await);
        drop(running);
        drop(quiet.await.unwrap().unwrap());
        assert!(queue.waiting() > 40, "it came last and waited for few: {} still wait", queue.waiting());
        drop(other.await.unwrap().unwrap());
        assert!(queue.waiting() > 30, "it wants everything, and waited for few: {}", queue.waiting());
        for task in flood {
            task.await.unwrap();
        }
        assert_eq!((queue.used(), queue.waiting()), (0, 0));
        assert!(queue.0.lock().tenants.is_empty(), "nothing is kept of tenants that are done");
    }

    #[tokio::test]
    async fn large_requests_count_for_what_they_are() {
        let queue = FairQueue::new(64, 64, 100);
        let all = queue.acquire(&tenant("x"), 64, LONG).await.unwrap();
        let mut tasks = Vec::new();
        for _ in 0..4 {
            tasks.push(pass(&queue, "large", 32).await);
        }
        for _ in 0..40 {
            tasks.push(pass(&queue, "small", 1).await);
        }
        drop(all);
        // What was given so far: a large request costs 32 turns, and the small tenant had one request in each of them.
        assert_eq!((queue.used(), queue.waiting()), (64, 3 + 8));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((queue.used(), queue.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn nobody_holds_everything() {
        let queue = FairQueue::new(10, 5, 2);
        let hog = queue.acquire(&tenant("hog"), 5, LONG).await.unwrap();
        let more = wait(&queue, "hog", 1).await;
        assert_eq!(queue.waiting(), 1, "its part is used up");
        let other = queue.acquire(&tenant("other"), 5, LONG).await.unwrap();
        let second = wait(&queue, "hog", 1).await;
        assert_eq!(queue.acquire(&tenant("hog"), 1, LONG).await.unwrap_err(), QueueRefusal::Full(2));
        assert_eq!(
            queue.acquire(&tenant("other"), 1, Duration::from_millis(5)).await.unwrap_err(),
            QueueRefusal::TimedOut
        );
        drop((hog, other));
        for task in [more, second] {
            task.await.unwrap().unwrap();
        }
        let whole = queue.acquire(&tenant("one"), u64::MAX, LONG).await.unwrap();
        assert_eq!(queue.used(), 10, "a single request may be larger than a tenant's part");
        drop(whole);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let queue = FairQueue::new(4, 4, 10);
        let held = queue.acquire(&tenant("a"), 3, LONG).await.unwrap();
        let large = wait(&queue, "b", 4).await;
        let small = wait(&queue, "c", 1).await;
        large.abort();
        assert!(large.await.is_err());
        // Its turn went with it; the next look gives the small one what is free.
        let (d, late) = (tenant("d"), Duration::from_millis(1));
        let _ = queue.acquire(&d, 4, late).await.unwrap_err();
        small.await.unwrap().unwrap();
        drop(held);
        assert_eq!((queue.used(), queue.waiting()), (0, 0));
        queue.resize(2, 1);
        let one = queue.acquire(&d, 9, LONG).await.unwrap();
        assert_eq!((queue.units(), queue.used()), (2, 2));
        queue.resize(1, 1);
        assert_eq!(queue.units(), 2, "what is out is out");
        drop(one);
        queue.resize(1, 1);
        assert_eq!(queue.units(), 1);
    }
}
