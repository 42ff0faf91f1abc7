//! Runs one submission: waits for its permit, gets a container, has a session with it. Whatever happens, the
//! execution gets exactly one result.
//!
//! Three kinds of failure meet here and stay apart: the program's (a verdict), and ours or docker's (retried
//! once while nothing of the program has run, then `internal_error`); the caller's were refused before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::{Permit, Seats, Ticket};
use crate::engine::parse::Failure;
use crate::engine::{Container, Engine, EngineError, Invocation};
use crate::execution::{Execution, Outcome, State, Times, milliseconds};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::session::{Fault, Session};
use crate::submission::Submission;
use crate::verdict::{Status, Verdict};

/// How long an admitted execution waits for a seat. There is one for each permit, unless containers that were lost or
/// did not start cannot be removed.
const SEAT_PATIENCE: Duration = Duration::from_secs(10);

/// So many changes of an execution's place in the queue are events, whichever way; after that only better places.
const MOST_TOLD: usize = 100;

/// What a run needs of the house.
pub struct Runner {
    pub engine: Engine,
    pub pool: Pool,
    pub seats: Seats,
    pub metrics: Arc<Metrics>,
    pub expose_commands: bool,
    /// What the pool's containers are started with, by which a request knows whether one of them fits.
    pub pool_processes: u64,
}

impl Runner {
    /// Runs to the end. `pool_memory` is what the pool's containers of this language have.
    pub async fn run(
        &self,
        execution: &Arc<Execution>,
        submission: Submission,
        mut ticket: Ticket,
        pool_memory: u64,
    ) {
        let mut time = Times::default();
        let permit = self.queue(execution, &mut ticket).await;
        time.queued = milliseconds(execution.received.elapsed());
        let Some(permit) = permit else {
            return self.finish(execution, Outcome::without_run(Verdict::cancelled(), time));
        };
        execution.enter(State::Starting, None);
        let mut permit = Some(permit);
        let pooled =
            submission.limits.memory == pool_memory && submission.limits.processes == self.pool_processes;
        let mut retried = false;
        let outcome = loop {
            let asked = Instant::now();
            let (container, warm) = match self.container(execution, &submission, pooled && !retried).await {
                Ok(Some(found)) => found,
                Ok(None) => break Outcome::without_run(Verdict::cancelled(), time),
                Err(error) if error.failure() == Failure::Other && !retried => {
                    log::warn!("{}: tried once more: {error}", execution.id);
                    retried = true;
                    continue;
                }
                Err(error) => break self.apology(&error, &submission, time),
            };
            time.start = milliseconds(asked.elapsed());
            self.metrics.started(&submission.language.id, warm, asked.elapsed());
            let mut session = Session::new(execution, &submission, container);
            if let Some(permit) = permit.take() {
                session.container.admit(permit);
            }
            match session.lead().await {
                Ok(mut outcome) => {
                    outcome.time = Times { queued: time.queued, start: time.start, ..outcome.time };
                    outcome.warm = warm;
                    let invocation = session.container.invocation();
                    outcome.command = self.expose_commands.then(|| printed(invocation, &submission));
                    if session.whole {
                        session.container.retire();
                    }
                    break outcome;
                }
                Err(Fault::Engine { error, begun: false })
                    if !retried && !execution.cancel.is_cancelled() =>
                {
                    log::warn!("{}: tried once more: {error}", execution.id);
                    retried = true;
                    // It is still this execution's turn.
                    permit = session.container.readmit();
                    execution.input.rewind();
                }
                Err(Fault::Engine { error, .. }) => break self.apology(&error, &submission, time),
                Err(Fault::Agent(sentence)) => {
                    log::error!(
                        "{}: {sentence}; started by {}",
                        execution.id,
                        session.container.invocation()
                    );
                    break Outcome::without_run(Verdict::new(Status::InternalError, sentence), time);
                }
            }
        };
        self.finish(execution, outcome);
    }

    /// Waits for the permit; `None` when the execution was cancelled first.
    async fn queue(&self, execution: &Execution, ticket: &mut Ticket) -> Option<Permit> {
        let mut positions = ticket.position();
        let (mut best, mut told) = (usize::MAX, 0);
        loop {
            let position = *positions.borrow_and_update();
            // Newcomers can put one back in the round, again and again: the log is bounded all the same.
            if (1..best).contains(&position) || (position > 0 && told < MOST_TOLD) {
                (best, told) = (best.min(position), told + 1);
                execution.enter(State::Queued, Some(position));
            } else if position > 0 {
                execution.move_to(position);
            }
            tokio::select! {
                biased;
                () = execution.cancel.cancelled() => return None,
                permit = ticket.permit() => return Some(permit),
                changed = positions.changed() => if changed.is_err() {
                    // Its sender is gone once the permit was granted.
                    return Some(ticket.permit().await);
                },
            }
        }
    }

    /// A ready container from the pool, else one started now; `None` when the execution was cancelled first.
    async fn container(
        &self,
        execution: &Execution,
        submission: &Submission,
        pooled: bool,
    ) -> Result<Option<(Container, bool)>, EngineError> {
        let language = &submission.language;
        if pooled && let Some(container) = self.pool.take(&language.id).await {
            return Ok(Some((container, true)));
        }
        let start = async {
            let seat = tokio::time::timeout(SEAT_PATIENCE, self.seats.take())
                .await
                .map_err(|_| EngineError::Stuck { waited: SEAT_PATIENCE })?;
            let (memory, processes) = (submission.limits.memory, submission.limits.processes);
            Container::start(&self.engine, language, memory, processes, seat).await
        };
        let started = tokio::select! {
            biased;
            () = execution.cancel.cancelled() => return Ok(None),
            started = start => started,
        };
        if started.is_err() {
            self.metrics.failed_start(&language.id);
        }
        started.map(|container| Some((container, false)))
    }

    /// Our failure, in words for the client; the log has the rest.
    fn apology(&self, error: &EngineError, submission: &Submission, time: Times) -> Outcome {
        log::error!("{error}");
        let sentence = match error.failure() {
            Failure::Unreachable => "The Docker engine cannot be reached. Try again later.".to_owned(),
            Failure::ImageMissing => format!(
                "The image {} of {} is missing on the server.",
                submission.language.image, submission.language.name
            ),
            Failure::Gone | Failure::Other => {
                "The container could not be started or was lost. Try again later.".to_owned()
            }
        };
        Outcome::without_run(Verdict::new(Status::InternalError, sentence), time)
    }

    fn finish(&self, execution: &Execution, mut outcome: Outcome) {
        let total = execution.received.elapsed();
        outcome.time.total = milliseconds(total);
        let cpu = Duration::from_secs_f64(outcome.time.cpu.max(0.0) / 1000.0);
        self.metrics.finished(&execution.language, outcome.verdict.status, total, cpu);
        log::debug!("{}: {} in {:.1} ms", execution.id, outcome.verdict.status.as_str(), outcome.time.total);
        execution.finish(outcome);
    }
}

/// The docker command with its job, for a shell.
pub fn printed(invocation: &Invocation, submission: &Submission) -> String {
    let work = serde_json::to_string(&submission.work(true)).expect("only string keys");
    invocation.with_input(&work)
}
