//! Whether containers can be started: made ready by the preparer, told by how the last starts went.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::EngineError;
use super::parse::Failure;
use crate::protocol::AGENT_PATH;

/// How long a start waits for the engine to be made ready; then it fails and says why.
const PREPARATION: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Starts {
    last: Mutex<Option<Start>>,
    /// The agent is in its volume, as far as we know.
    prepared: watch::Sender<bool>,
}

#[derive(Debug, Clone)]
pub struct Start {
    pub when: Instant,
    /// Or why it failed, in a sentence without the command.
    pub outcome: Result<(), String>,
}

impl Starts {
    /// Takes note of a start. A missing image says nothing about the engine.
    pub fn note<T>(&self, start: &Result<T, EngineError>) {
        let outcome = match start {
            Ok(_) => Ok(()),
            Err(error) if error.failure() == Failure::ImageMissing => return,
            Err(error) => Err(reason(error)),
        };
        if outcome.as_ref().is_err_and(|reason| reason.contains(AGENT_PATH)) {
            self.prepare(false);
        }
        let start = Start { when: Instant::now(), outcome };
        *self.last.lock().expect("no panic under lock") = Some(start);
    }

    pub fn last(&self) -> Option<Start> {
        self.last.lock().expect("no panic under lock").clone()
    }

    /// Says that the agent is in its volume, or is not.
    pub fn prepare(&self, prepared: bool) {
        self.prepared.send_replace(prepared);
    }

    pub fn is_prepared(&self) -> bool {
        *self.prepared.borrow()
    }

    /// Waits until the agent is in its volume, but not for ever.
    pub async fn prepared(&self) {
        let mut prepared = self.prepared.subscribe();
        let _ = tokio::time::timeout(PREPARATION, prepared.wait_for(|prepared| *prepared)).await;
    }

    /// Waits until a start has failed because its volume does not hold the agent: volumes can be pruned.
    pub async fn agent_missing(&self) {
        let mut prepared = self.prepared.subscribe();
        prepared.wait_for(|prepared| !prepared).await.expect("the sender lives in self");
    }
}

fn reason(error: &EngineError) -> String {
    match (error.failure(), error) {
        (Failure::Unreachable, _) => "the Docker engine cannot be reached".to_owned(),
        (_, EngineError::Failed { said, .. }) => format!("containers do not start: {said}"),
        (_, EngineError::Spawn { .. } | EngineError::TooSlow { .. } | EngineError::Stuck { .. }) => {
            "containers do not start in time".to_owned()
        }
    }
}
