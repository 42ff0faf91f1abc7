//! What the server does, for whoever speaks to clients: take submissions, find executions, say how things are.
//! Knows no HTTP and no socket.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Refusal};
use crate::execution::{Execution, Outcome, Times};
use crate::health::Health;
use crate::id::{Client, ExecutionId};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::runner::Runner;
use crate::store::{Repeated, Store};
use crate::submission::{Invalid, Request, Rules};
use crate::verdict::{Status, Verdict};

pub struct Service {
    pub rules: Rules,
    pub metrics: Arc<Metrics>,
    admission: Admission,
    store: Arc<Store>,
    runner: Arc<Runner>,
    health: Health,
    /// The executions under way.
    running: TaskTracker,
    /// Bytes of input that may wait for a program to read them.
    pending_input: usize,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("this Idempotency-Key was used with another body")]
    KeyReused,
}

/// Why an execution cannot be cancelled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the execution has ended")]
pub struct AlreadyEnded;

/// A client's own name for its request: the same name with the same fingerprint is the same request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: String,
    pub fingerprint: u64,
}

/// What a submitted execution needs besides the rules.
pub struct Parts {
    pub rules: Rules,
    pub metrics: Arc<Metrics>,
    pub admission: Admission,
    pub store: Arc<Store>,
    pub runner: Runner,
    pub health: Health,
    pub pending_input: usize,
}

/// Who is not answered yet may come back after this.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a question for health waits for what every server does first.
const PREPARATION: Duration = Duration::from_secs(3);

impl Service {
    pub fn new(parts: Parts) -> Self {
        let Parts { rules, metrics, admission, store, runner, health, pending_input } = parts;
        Service {
            rules,
            metrics,
            admission,
            store,
            runner: Arc::new(runner),
            health,
            running: TaskTracker::new(),
            pending_input,
        }
    }

    /// Takes a submission; it runs from now on, whoever listens. A repeated one gives the first execution.
    pub fn submit(
        &self,
        client: &Client,
        request: Request,
        idempotency: Option<Idempotency>,
    ) -> Result<Arc<Execution>, SubmitError> {
        let submission = self.rules.check(request)?;
        if let Some(Idempotency { key, fingerprint }) = &idempotency {
            match self.store.repeated(client, key, *fingerprint) {
                Repeated::No => {}
                Repeated::Same(first) => return Ok(first),
                Repeated::Different => return Err(SubmitError::KeyReused),
            }
        }
        let ticket = self.admission.enter(client).inspect_err(|refusal| {
            self.metrics.refused(match refusal {
                Refusal::QueueFull => "queue_full",
                Refusal::TooManyOfClient => "client",
                Refusal::Draining => "draining",
            });
        })?;
        let (language, interactive) = (submission.language.id.clone(), submission.interactive);
        let input = submission.input.clone();
        let execution =
            Arc::new(Execution::new(&language, client.clone(), input, interactive, self.pending_input));
        let position = *ticket.position().borrow();
        if position > 0 {
            // Whoever asks right after the answer is told; the run's task has not begun yet.
            execution.move_to(position);
        }
        match idempotency {
            None => self.store.insert(Arc::clone(&execution)),
            // Of two requests at the same time, the second finds the first here.
            Some(Idempotency { key, fingerprint }) => {
                match self.store.insert_once(&key, fingerprint, &execution) {
                    Repeated::No => {}
                    Repeated::Same(first) => return Ok(first),
                    Repeated::Different => return Err(SubmitError::KeyReused),
                }
            }
        }
        let pool_memory = self.rules.default_memory(&submission.language);
        let runner = Arc::clone(&self.runner);
        let ending = Ending { execution: Arc::clone(&execution), store: Arc::clone(&self.store) };
        self.running.spawn(async move {
            runner.run(&ending.execution, submission, ticket, pool_memory).await;
            drop(ending);
        });
        Ok(execution)
    }

    pub fn find(&self, id: ExecutionId) -> Option<Arc<Execution>> {
        self.store.find(id)
    }

    pub fn cancel(&self, execution: &Execution) -> Result<(), AlreadyEnded> {
        if execution.is_finished() {
            return Err(AlreadyEnded);
        }
        execution.cancel.cancel();
        Ok(())
    }

    pub async fn health(&self) -> Result<(), String> {
        let starts = self.runner.engine.starts();
        // A server that has just begun is well: what it waits for takes a moment, unless an image has to be built.
        let _ = tokio::time::timeout(PREPARATION, starts.prepared()).await;
        if !starts.is_prepared() {
            return Err("the Docker engine is not ready for use yet".to_owned());
        }
        self.health.check(&self.runner.engine, &self.runner.seats, &self.rules).await
    }

    pub fn pool(&self) -> &Pool {
        &self.runner.pool
    }

    /// `/metrics`.
    pub fn metrics_text(&self) -> String {
        let load = *self.admission.load().borrow();
        self.metrics.load(load.running, load.queued);
        self.metrics.text()
    }

    /// Takes no more submissions, and waits for those under way; what is not done by `deadline` is cancelled.
    pub async fn drain(&self, deadline: Duration) {
        self.admission.drain();
        self.running.close();
        if tokio::time::timeout(deadline, self.running.wait()).await.is_err() {
            log::info!("{} execution(s) are cancelled", self.running.len());
            self.store.cancel_all();
            self.running.wait().await;
        }
    }
}

/// Sees an execution to its end: whatever becomes of its task, it has a result, and its retention counts.
struct Ending {
    execution: Arc<Execution>,
    store: Arc<Store>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.execution.is_finished() {
            log::error!("{}: its task ended without a result", self.execution.id);
            let verdict = Verdict::new(Status::InternalError, "The server failed. Try again later.");
            self.execution.finish(Outcome::without_run(verdict, Times::default()));
        }
        self.store.finished(&self.execution);
    }
}

/// Cancels an execution when it is dropped before the result: its client has hung up.
pub struct CancelOnDrop(Arc<Execution>);

impl CancelOnDrop {
    pub fn new(execution: Arc<Execution>) -> Self {
        CancelOnDrop(execution)
    }

    pub async fn finished(&self) -> Arc<Outcome> {
        self.0.finished().await
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.cancel.cancel();
        }
    }
}
