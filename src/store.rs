//! The executions that can be asked for: those that run, and finished ones until their retention ends or newer
//! results need the room. Idempotency keys live as long as the executions they name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::execution::Execution;
use crate::id::{Client, ExecutionId};

pub struct Store {
    inner: Mutex<Inner>,
    retention: Duration,
    /// Bytes that finished executions may hold together.
    memory: usize,
}

#[derive(Default)]
struct Inner {
    executions: HashMap<ExecutionId, Arc<Execution>>,
    /// Finished ones, oldest first, with their end and weight.
    finished: VecDeque<(Instant, ExecutionId, usize)>,
    weight: usize,
    keys: HashMap<Key, (u64, ExecutionId)>,
    keys_of: HashMap<ExecutionId, Key>,
}

/// A client's own name for a request.
type Key = (Client, String);

/// What a repeated request finds.
pub enum Repeated {
    /// The first of its key.
    No,
    Same(Arc<Execution>),
    /// The key was used for another body.
    Different,
}

/// How often the old ones are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

impl Store {
    pub fn new(retention: Duration, memory: usize) -> Self {
        Store { inner: Mutex::default(), retention, memory }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }

    pub fn insert(&self, execution: Arc<Execution>) {
        self.lock().executions.insert(execution.id, execution);
    }

    /// What a client's key names, if it was used before.
    pub fn repeated(&self, client: &Client, key: &str, fingerprint: u64) -> Repeated {
        self.lock().repeated(&(client.clone(), key.to_owned()), fingerprint)
    }

    /// Inserts unless the key is known. Looking and inserting are one step, so that of two requests at the same
    /// time one is the first.
    pub fn insert_once(&self, key: &str, fingerprint: u64, execution: &Arc<Execution>) -> Repeated {
        let mut inner = self.lock();
        let key = (execution.client.clone(), key.to_owned());
        match inner.repeated(&key, fingerprint) {
            Repeated::No => {}
            repeated => return repeated,
        }
        inner.keys.insert(key.clone(), (fingerprint, execution.id));
        inner.keys_of.insert(execution.id, key);
        inner.executions.insert(execution.id, Arc::clone(execution));
        Repeated::No
    }

    pub fn find(&self, id: ExecutionId) -> Option<Arc<Execution>> {
        self.lock().executions.get(&id).cloned()
    }

    pub fn cancel_all(&self) {
        self.lock().executions.values().for_each(|execution| execution.cancel.cancel());
    }

    /// From now on its retention counts.
    pub fn finished(&self, execution: &Execution) {
        let weight = execution.weight();
        let mut inner = self.lock();
        inner.finished.push_back((Instant::now(), execution.id, weight));
        inner.weight += weight;
        // The newest stays, however large: its client is about to ask for it.
        while inner.weight > self.memory && inner.finished.len() > 1 {
            inner.remove_oldest();
        }
    }

    fn sweep(&self) {
        let mut inner = self.lock();
        let old = |(since, _, _): &(Instant, ExecutionId, usize)| since.elapsed() >= self.retention;
        while inner.finished.front().is_some_and(old) {
            inner.remove_oldest();
        }
    }

    /// Forgets what is old, until `stop`.
    pub async fn keep_short(&self, stop: CancellationToken) {
        let mut times = tokio::time::interval(SWEEP_EVERY.min(self.retention));
        while stop.run_until_cancelled(times.tick()).await.is_some() {
            self.sweep();
        }
    }
}

impl Inner {
    fn repeated(&self, key: &Key, fingerprint: u64) -> Repeated {
        let Some((known, id)) = self.keys.get(key) else {
            return Repeated::No;
        };
        match self.executions.get(id) {
            Some(first) if *known == fingerprint => Repeated::Same(Arc::clone(first)),
            _ => Repeated::Different,
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, id, weight)) = self.finished.pop_front() {
            self.weight -= weight;
            self.remove(id);
        }
    }

    fn remove(&mut self, id: ExecutionId) {
        self.executions.remove(&id);
        if let Some(key) = self.keys_of.remove(&id) {
            self.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution() -> Arc<Execution> {
        Arc::new(Execution::new("c", Client::new("me"), Vec::new(), false, 10))
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_execution_is_kept_for_its_retention() {
        let store = Arc::new(Store::new(Duration::from_secs(60), 1 << 20));
        let (running, finished) = (execution(), execution());
        store.insert(Arc::clone(&running));
        store.insert(Arc::clone(&finished));
        store.finished(&finished);
        let stop = CancellationToken::new();
        let sweeper = tokio::spawn({
            let (store, stop) = (Arc::clone(&store), stop.clone());
            async move { store.keep_short(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(store.find(finished.id).is_some());
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(store.find(finished.id).is_none());
        assert!(store.find(running.id).is_some());
        stop.cancel();
        sweeper.await.expect("ends");
    }

    #[test]
    fn the_oldest_results_give_way_to_new_ones() {
        let store = Store::new(Duration::from_secs(60), 3000);
        let all: Vec<_> = (0..4).map(|_| execution()).collect();
        for execution in &all {
            store.insert(Arc::clone(execution));
            store.finished(execution);
        }
        assert!(store.find(all[0].id).is_none());
        assert!(store.find(all[3].id).is_some());
    }

    #[test]
    fn a_key_names_one_execution() {
        let store = Store::new(Duration::from_secs(60), 3000);
        let (first, second) = (execution(), execution());
        assert!(matches!(store.insert_once("k", 1, &first), Repeated::No));
        assert!(matches!(store.insert_once("k", 1, &second), Repeated::Same(found) if found.id == first.id));
        assert!(matches!(store.insert_once("k", 2, &second), Repeated::Different));
        assert!(
            matches!(store.repeated(&first.client, "k", 1), Repeated::Same(found) if found.id == first.id)
        );
        assert!(matches!(store.repeated(&Client::new("another"), "k", 1), Repeated::No));
    }
}
