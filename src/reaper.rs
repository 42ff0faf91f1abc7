//! Removal. Every container that this server starts ends here: by itself, when its agent was done, else by force.
//! A sweep finds what nobody handed over: containers of earlier starts of this installation, and those of others
//! that are overdue.
//!
//! ```text
//! reaper (one task)
//!  ├─ removal of one container (many, in a JoinSet; each holds its seat and permit)
//!  └─ sweep (every 30 s)
//! ```

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::parse::Failure;
use crate::engine::{Engine, EngineError, Remains};
use crate::id::Instance;

/// How long a container whose agent is done may take to disappear before it is removed by force.
const GRACE: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long a server that stops goes on removing. What is left then ends with its agent's stdin, or is swept at the
/// next start.
const LAST_EFFORT: Duration = Duration::from_secs(20);

/// Between attempts at removing a container that docker does not want to remove.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(10);

pub struct Reaper {
    engine: Engine,
    remains: mpsc::Receiver<Remains>,
}

impl Reaper {
    pub fn new(engine: Engine, remains: mpsc::Receiver<Remains>) -> Self {
        Reaper { engine, remains }
    }

    /// Removes until `stop` is cancelled, and then until everything handed over is gone. All owners of containers must
    /// have ended before `stop`, or what they hand over later is left to the agents' own end.
    pub async fn run(mut self, stop: CancellationToken) {
        enum Event {
            Remains(Option<Box<Remains>>),
            Removed,
            Sweep,
            Stop,
        }
        let mut removals = JoinSet::new();
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        sweeps.tick().await; // The first is at start, before any container is started.
        loop {
            let event = tokio::select! {
                remains = self.remains.recv() => Event::Remains(remains.map(Box::new)),
                Some(_) = removals.join_next() => Event::Removed,
                _ = sweeps.tick() => Event::Sweep,
                () = stop.cancelled() => Event::Stop,
            };
            match event {
                Event::Remains(Some(remains)) => {
                    removals.spawn(remove(self.engine.clone(), *remains, stop.clone()));
                }
                Event::Remains(None) | Event::Stop => break,
                Event::Removed => {}
                Event::Sweep => {
                    let engine = self.engine.clone();
                    removals.spawn(async move {
                        if let Err(error) = sweep(&engine).await {
                            log::warn!("containers cannot be listed: {error}");
                        }
                    });
                }
            }
        }
        self.remains.close();
        while let Some(remains) = self.remains.recv().await {
            removals.spawn(remove(self.engine.clone(), remains, stop.clone()));
        }
        let all = async { while removals.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_EFFORT, all).await.is_err() {
            log::warn!("{} container(s) could not be removed in time", removals.len());
        }
    }
}

async fn remove(engine: Engine, mut remains: Remains, stop: CancellationToken) {
    if remains.ending {
        // The docker command ends once the container is removed (`--rm`).
        let ended = tokio::time::timeout(GRACE, remains.ended()).await;
        // One that was killed, or that failed, says nothing about its container.
        if matches!(ended, Ok(Ok(status)) if status.code().is_some_and(|code| code != 125)) {
            return remains.bury();
        }
    }
    let mut pause = FIRST_RETRY;
    while let Err(error) = engine.remove(&remains.name).await {
        log::warn!("{error}");
        if error.failure() == Failure::Unreachable {
            // Who waits should hear that the engine is gone, not wait for its return.
            remains.release_permit();
        }
        let stopping = stop.is_cancelled();
        if stopping && error.failure() == Failure::Unreachable {
            // A server that stops does not wait for an engine that is gone.
            return remains.bury();
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_RETRY),
            () = stop.cancelled(), if !stopping => pause = FIRST_RETRY,
        }
    }
    // A docker command that still waits for a create to finish would start a container that nobody knows of: it is
    // ended, and then the name is removed once more.
    if !matches!(remains.client.try_wait(), Ok(Some(_))) {
        let ended = tokio::time::timeout(GRACE, remains.ended()).await;
        if ended.is_err() {
            let _ = remains.client.kill().await;
            if let Err(error) = engine.remove(&remains.name).await {
                log::warn!("{error}");
            }
        }
    }
    remains.bury();
}

/// Removes containers of earlier starts of this installation, and those of others that are overdue.
pub async fn sweep(engine: &Engine) -> Result<(), EngineError> {
    let listed = engine.list().await?;
    let Instance { name, epoch } = &engine.installation.instance;
    let now = SystemTime::now();
    let overdue: HashSet<String> = listed
        .into_iter()
        .filter(|found| {
            // Our own have owners, however long they take.
            match (&found.instance == name, &found.epoch == epoch) {
                (true, own) => !own,
                (false, _) => found.expires.is_some_and(|expires| expires < now),
            }
        })
        .map(|found| found.name)
        .collect();
    if !overdue.is_empty() {
        log::info!("{} container(s) were left behind; they are removed", overdue.len());
    }
    let mut removals = JoinSet::new();
    for name in overdue {
        let engine = engine.clone();
        removals.spawn(async move {
            if let Err(error) = engine.remove(&name).await {
                log::warn!("{error}");
            }
        });
    }
    while removals.join_next().await.is_some() {}
    Ok(())
}
