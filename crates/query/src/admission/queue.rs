//! The queue in front of the engine: so many queries run at once, so many wait, and those that wait take turns by
//! client, so that one client's burst does not keep the others waiting.
//!
//! A place is a [`Permit`]. It travels in the channel that a waiter listens on, so that a waiter that goes away at the
//! very moment gives the place on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Why a query was not let in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many queries: {running} run (--query.max-concurrent) and {waiting} wait (--query.max-queue)")]
pub struct QueueFull {
    running: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    place: oneshot::Sender<Permit>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: usize,
    next_id: u64,
    /// Those that wait, by client; no list is empty.
    clients: HashMap<Arc<str>, VecDeque<Waiter>>,
    /// Whose turn it is next; each client with waiters once.
    turns: VecDeque<Arc<str>>,
}

impl State {
    /// Takes the next waiter out.
    fn next(&mut self) -> Option<Waiter> {
        let client = self.turns.pop_front()?;
        let list = self.clients.get_mut(&client)?;
        let waiter = list.pop_front();
        if list.is_empty() {
            self.clients.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.waiting -= usize::from(waiter.is_some());
        waiter
    }

    fn remove(&mut self, client: &Arc<str>, id: u64) {
        let Some(list) = self.clients.get_mut(client) else { return };
        let before = list.len();
        list.retain(|w| w.id != id);
        self.waiting -= before - list.len();
        if list.is_empty() {
            self.clients.remove(client);
            self.turns.retain(|c| c != client);
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct FairQueue {
    running_max: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

impl FairQueue {
    /// A queue of which `running_max` (at least one) run and `waiting_max` wait.
    pub(crate) fn new(running_max: usize, waiting_max: usize) -> Arc<Self> {
        Arc::new(FairQueue { running_max: running_max.max(1), waiting_max, state: Mutex::default() })
    }

    /// Queries that run at once.
    pub(crate) fn running_max(&self) -> usize {
        self.running_max
    }

    /// Queries that wait at once.
    pub(crate) fn waiting_max(&self) -> usize {
        self.waiting_max
    }

    /// Queries that run and that wait.
    pub(crate) fn levels(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running, state.waiting)
    }

    /// Waits for a place. Dropping the future leaves the queue.
    pub(crate) async fn enter(self: &Arc<Self>, client: &str) -> Result<Permit, QueueFull> {
        let (place, mut waiting) = {
            let mut state = self.state.lock();
            if state.running < self.running_max {
                state.running += 1;
                return Ok(Permit(Arc::clone(self)));
            }
            if state.waiting >= self.waiting_max {
                return Err(QueueFull { running: state.running, waiting: state.waiting });
            }
            let (sender, receiver) = oneshot::channel();
            let (client, id): (Arc<str>, u64) = (client.into(), state.next_id);
            state.next_id += 1;
            state.waiting += 1;
            let list = state.clients.entry(Arc::clone(&client)).or_default();
            let first = list.is_empty();
            list.push_back(Waiter { id, place: sender });
            if first {
                state.turns.push_back(Arc::clone(&client));
            }
            (receiver, Waiting { queue: self, client, id, over: false })
        };
        let permit = place.await.expect("the sender is used before it is dropped, unless this future was");
        waiting.over = true;
        Ok(permit)
    }

    /// Gives free places to those whose turn it is.
    fn give_places(self: &Arc<Self>) {
        loop {
            let waiter = {
                let mut state = self.state.lock();
                if state.running >= self.running_max {
                    return;
                }
                let Some(waiter) = state.next() else { return };
                state.running += 1;
                waiter
            };
            // Where the waiter went away, the place comes back here and is dropped, which gives it on.
            drop(waiter.place.send(Permit(Arc::clone(self))));
        }
    }
}

/// A waiter's place in the queue, left when it goes away.
struct Waiting<'q> {
    queue: &'q FairQueue,
    client: Arc<str>,
    id: u64,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.queue.state.lock().remove(&self.client, self.id);
        }
    }
}

/// A place among the running queries, given on when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<FairQueue>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.give_places();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Waits until so many are in the queue.
    async fn until_waiting(queue: &FairQueue, n: usize) {
        while queue.levels().1 != n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn clients_take_turns_and_the_queue_is_bounded() {
        let queue = FairQueue::new(1, 5);
        let running = queue.enter("greedy").await.unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (n, client) in ["greedy", "greedy", "greedy", "modest", "other"].into_iter().enumerate() {
            let (entered, served) = (Arc::clone(&queue), Arc::clone(&served));
            tasks.spawn(async move {
                let _permit = entered.enter(client).await.expect("there is room");
                served.lock().push(client);
            });
            until_waiting(&queue, n + 1).await;
        }
        let refused = queue.enter("late").await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "too many queries: 1 run (--query.max-concurrent) and 5 wait (--query.max-queue)"
        );
        drop(running);
        while tasks.join_next().await.is_some() {}
        assert_eq!(*served.lock(), ["greedy", "modest", "other", "greedy", "greedy"]);
        assert_eq!(queue.levels(), (0, 0));
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_queue_and_loses_no_place() {
        let queue = FairQueue::new(2, 10);
        let first = queue.enter("a").await.unwrap();
        let second = queue.enter("a").await.unwrap();
        let gone = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.enter("b").await.map(drop) }
        });
        until_waiting(&queue, 1).await;
        gone.abort();
        until_waiting(&queue, 0).await;
        // A place that is on its way to someone who does not listen any more.
        let mut waiting = Box::pin(queue.enter("c"));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert_eq!(queue.levels(), (2, 0), "the place was handed over");
        drop(waiting);
        assert_eq!(queue.levels(), (1, 0), "and comes back");
        drop(second);
        assert_eq!(queue.levels(), (0, 0));
    }
}
