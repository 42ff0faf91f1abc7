//! Whether containers can be started, judged by containers: recent starts, else one that is really started.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::admission::Seats;
use crate::engine::parse::Failure;
use crate::engine::{Container, Engine};
use crate::submission::Rules;

/// How long a start, or a failed one, speaks for the engine.
const FRESH: Duration = Duration::from_secs(5);

/// How long a trial waits for a seat; they are short where the engine removes no container.
const SEAT_PATIENCE: Duration = Duration::from_secs(3);

/// Ok, or the reason why not.
pub type Finding = Result<(), String>;

#[derive(Default)]
pub struct Health {
    /// One trial at a time.
    trial: Mutex<()>,
}

impl Health {
    pub async fn check(&self, engine: &Engine, seats: &Seats, rules: &Rules) -> Finding {
        if let Some(finding) = recent(engine) {
            return finding;
        }
        let _one_at_a_time = self.trial.lock().await;
        if let Some(finding) = recent(engine) {
            return finding;
        }
        for language in rules.languages.iter() {
            let Ok(seat) = tokio::time::timeout(SEAT_PATIENCE, seats.take()).await else {
                let old = engine.starts().last().and_then(|start| start.outcome.err());
                return Err(old.unwrap_or_else(|| "containers cannot be removed".to_owned()));
            };
            let memory = rules.default_memory(language);
            let processes = rules.limits.default.processes;
            // A container that did start is dropped at once, and so removed.
            match Container::start(engine, language, memory, processes, seat).await.map(drop) {
                Err(error) if error.failure() == Failure::ImageMissing => {}
                Err(error) => {
                    log::warn!("{error}");
                    break;
                }
                Ok(()) => break,
            }
        }
        let no_image =
            || Err("no language has its image; build them with `online-compiler images`".to_owned());
        recent(engine).unwrap_or_else(no_image)
    }
}

fn recent(engine: &Engine) -> Option<Finding> {
    let start = engine.starts().last()?;
    (start.when.elapsed() < FRESH).then_some(start.outcome)
}
