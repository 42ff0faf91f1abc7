//! Containers started before they are needed. Each place of the pool is a loop: start a container, offer it, wait
//! until somebody takes it. Taking one is the order for the next, so there is no list to keep in step and nothing
//! to resize; what is offered is alive, because its loop watches it. Single use: nothing ever comes back.
//!
//! ```text
//! pool
//!  └─ place (POOL_SIZE per language): start → offer → handed over | died | grown old → start …
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::{Load, Seats};
use crate::engine::{Container, Engine, EngineError};
use crate::language::Language;
use crate::metrics::Metrics;

/// After this a waiting container is replaced: it should not be the oldest process of the machine.
const SHELF_LIFE: Duration = Duration::from_secs(3600);

/// How long a refill waits for a moment in which nothing runs, so that it does not slow down the run just begun.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between attempts after a failed start.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Answered with a container by the place that made the offer.
type Offer = oneshot::Sender<oneshot::Sender<Container>>;

#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// By language id; the oldest offer first.
    offers: Mutex<HashMap<String, VecDeque<Offer>>>,
    metrics: Arc<Metrics>,
}

/// What the places need to start containers.
#[derive(Clone)]
pub struct Supplies {
    pub engine: Engine,
    pub seats: Seats,
    pub load: watch::Receiver<Load>,
    /// The default number of processes.
    pub processes: u64,
}

impl Pool {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Pool { shared: Arc::new(Shared { offers: Mutex::default(), metrics }) }
    }

    /// A ready container, if there is one.
    pub async fn take(&self, language: &str) -> Option<Container> {
        loop {
            let offer = {
                let mut offers = self.shared.offers.lock().expect("no panic under lock");
                offers.get_mut(language)?.pop_front()?
            };
            let (give, given) = oneshot::channel();
            // An offer whose place has withdrawn it meanwhile fails here or there; the next may be good.
            if offer.send(give).is_ok()
                && let Ok(container) = given.await
            {
                return Some(container);
            }
        }
    }

    /// How many containers of a language are ready.
    pub fn ready(&self, language: &str) -> usize {
        let offers = self.shared.offers.lock().expect("no panic under lock");
        let open = |offers: &VecDeque<Offer>| offers.iter().filter(|offer| !offer.is_closed()).count();
        offers.get(language).map_or(0, open)
    }

    /// Keeps `size` containers of a language ready until `stop`. `memory` is the language's default.
    pub async fn keep(
        self,
        supplies: Supplies,
        language: Arc<Language>,
        memory: u64,
        size: usize,
        stop: CancellationToken,
    ) {
        let mut places = JoinSet::new();
        for _ in 0..size {
            let place = Place {
                pool: self.clone(),
                supplies: supplies.clone(),
                language: Arc::clone(&language),
                memory,
            };
            let stop = stop.clone();
            places.spawn(async move { stop.run_until_cancelled(place.run()).await });
        }
        while places.join_next().await.is_some() {}
    }

    fn offer(&self, language: &str, offer: Offer) {
        let mut offers = self.shared.offers.lock().expect("no panic under lock");
        let shelf = offers.entry(language.to_owned()).or_default();
        shelf.retain(|offer| !offer.is_closed());
        shelf.push_back(offer);
    }

    fn count(&self, language: &str) {
        self.shared.metrics.ready(language, self.ready(language));
    }
}

struct Place {
    pool: Pool,
    supplies: Supplies,
    language: Arc<Language>,
    memory: u64,
}

impl Place {
    async fn run(mut self) {
        let mut pause = FIRST_RETRY;
        loop {
            match self.start().await {
                Ok(container) => {
                    pause = FIRST_RETRY;
                    self.hand_over(container).await;
                    self.pool.count(&self.language.id);
                    self.quiet_moment().await;
                }
                Err(error) => {
                    // Said once in a series: a missing engine would fill the log.
                    if pause == FIRST_RETRY {
                        log::warn!("no {} container can be made ready: {error}", self.language.id);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn start(&self) -> Result<Container, EngineError> {
        let Supplies { engine, seats, load: _, processes } = &self.supplies;
        let seat = seats.take().await;
        let started = Container::start(engine, &self.language, self.memory, *processes, seat).await;
        if started.is_err() {
            self.pool.shared.metrics.failed_start(&self.language.id);
        }
        started
    }

    /// Offers a container until it is taken, dies or grows old.
    async fn hand_over(&self, mut container: Container) {
        enum End {
            Wanted(oneshot::Sender<Container>),
            Died,
            Old,
        }
        let (offer, mut wanted) = oneshot::channel();
        self.pool.offer(&self.language.id, offer);
        self.pool.count(&self.language.id);
        let end = tokio::select! {
            wanted = &mut wanted => wanted.map_or(End::Old, End::Wanted),
            event = container.event() => {
                log::debug!("{}: a waiting container ended: {event:?}", container.name());
                End::Died
            }
            () = tokio::time::sleep(SHELF_LIFE) => End::Old,
        };
        match end {
            // If the taker has left meanwhile, the container is dropped and so removed.
            End::Wanted(taker) => drop(taker.send(container)),
            End::Died | End::Old => {}
        }
    }

    /// Waits until nothing runs, but not for long.
    async fn quiet_moment(&mut self) {
        let load = &mut self.supplies.load;
        let quiet = load.wait_for(|load| load.running == 0);
        let _ = tokio::time::timeout(PATIENCE, quiet).await;
    }
}
