//! The running server: puts the parts together, makes the engine ready, serves, and takes everything apart again.
//!
//! ```text
//! server
//!  ├─ web (connections, conversations)          ends first
//!  ├─ executions (one task each)                drained, then cancelled
//!  ├─ preparer: sweep, agent volume, images     ends when the executions have
//!  │   └─ pool places (POOL_SIZE per language)
//!  ├─ store's sweeper
//!  └─ reaper                                    ends last: all containers pass through it
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Seats};
use crate::config::Config;
use crate::engine::images::{self, ImageState};
use crate::engine::volume::AgentBinary;
use crate::engine::{Engine, EngineError, Installation, Remains};
use crate::health::Health;
use crate::installation::Identity;
use crate::language::{Language, Languages, LanguagesError};
use crate::metrics::Metrics;
use crate::pool::{Pool, Supplies};
use crate::reaper::{self, Reaper};
use crate::runner::Runner;
use crate::service::{Parts, Service};
use crate::store::Store;
use crate::submission::Rules;
use crate::web;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Languages(#[from] LanguagesError),
    #[error(
        "this installation's identity cannot be kept in {folder}; set STATE_DIR to a folder that can be written"
    )]
    State { folder: String, source: std::io::Error },
    #[error("this program's own file cannot be read")]
    Binary(#[source] std::io::Error),
    #[error("{address} cannot be listened on; is another server running there?")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// How often images that are missing are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Between attempts at making the engine ready.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What a request may ask for under this configuration.
pub fn rules(config: &Config) -> Result<Rules, LanguagesError> {
    Ok(Rules {
        languages: Languages::load(&config.languages, config.languages_file.as_deref())?,
        limits: config.limits.clone(),
        code_limit: config.code_limit,
        max_tests: config.max_tests,
    })
}

/// How this installation's containers are started.
pub fn installation(config: &Config, identity: &Identity, agent: &AgentBinary) -> Installation {
    Installation {
        docker: config.docker.clone(),
        runtime: config.runtime.clone(),
        instance: identity.instance.clone(),
        agent_volume: agent.volume.clone(),
        cpus: config.cpus,
        disk: config.disk,
    }
}

/// Serves until `stop`, and returns when nothing of this server is left.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let rules = rules(&config)?;
    let identity = Identity::claim(&config.state_dir)
        .map_err(|source| StartError::State { folder: config.state_dir.display().to_string(), source })?;
    let agent = AgentBinary::of_this_process().map_err(StartError::Binary)?;
    let address = SocketAddr::new(config.host, config.port);
    let listening = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;

    let languages = rules.languages.iter().count();
    let seats = u32::try_from(config.pool_size * languages + config.max_concurrent + 1).unwrap_or(u32::MAX);
    let (engine, remains) = Engine::new(installation(&config, &identity, &agent), seats as usize);
    let house = House::new(&config, rules, engine, Seats::new(seats));
    let reaping = house.reap(remains);
    let drained = CancellationToken::new();
    let background = house.background(&config, agent, &stop, &drained);

    if !config.host.is_loopback() {
        log::warn!("anybody who reaches {address} can run code here (ALLOW_ANONYMOUS)");
    }
    log::info!("listening on http://{address}");
    // The door stays open while executions end: their clients come for the results.
    let close = CancellationToken::new();
    let drain = async {
        stop.cancelled().await;
        log::info!("stopping");
        house.service.drain(config.drain_time).await;
        close.cancel();
    };
    tokio::join!(web::serve(listener, Arc::clone(&house.service), &config, close.clone()), drain);
    drained.cancel();
    background.wait().await;
    house.reaper_stop.cancel();
    let _ = reaping.await;
    log::info!("stopped");
    drop(identity);
    Ok(())
}

/// The parts, put together.
struct House {
    service: Arc<Service>,
    engine: Engine,
    seats: Seats,
    pool: Pool,
    store: Arc<Store>,
    admission: Admission,
    reaper_stop: CancellationToken,
}

impl House {
    fn new(config: &Config, rules: Rules, engine: Engine, seats: Seats) -> House {
        let metrics = Arc::new(Metrics::default());
        let admission = Admission::new(config.max_concurrent, config.max_queue, config.max_per_client);
        let pool = Pool::new(Arc::clone(&metrics));
        let memory = usize::try_from(config.result_memory).unwrap_or(usize::MAX);
        let store = Arc::new(Store::new(config.result_retention, memory));
        let runner = Runner {
            engine: engine.clone(),
            pool: pool.clone(),
            seats: seats.clone(),
            metrics: Arc::clone(&metrics),
            expose_commands: config.expose_commands,
            pool_processes: config.limits.default.processes,
        };
        let service = Arc::new(Service::new(Parts {
            rules,
            metrics: Arc::clone(&metrics),
            admission: admission.clone(),
            store: Arc::clone(&store),
            runner,
            health: Health::default(),
            pending_input: usize::try_from(config.body_limit).unwrap_or(usize::MAX),
        }));
        let reaper_stop = CancellationToken::new();
        House { service, engine, seats, pool, store, admission, reaper_stop }
    }

    fn reap(&self, remains: tokio::sync::mpsc::Receiver<Remains>) -> tokio::task::JoinHandle<()> {
        let reaper = Reaper::new(self.engine.clone(), remains);
        tokio::spawn(reaper.run(self.reaper_stop.clone()))
    }

    /// Everything that goes on beside the requests.
    fn background(
        &self,
        config: &Config,
        agent: AgentBinary,
        stop: &CancellationToken,
        drained: &CancellationToken,
    ) -> TaskTracker {
        let tasks = TaskTracker::new();
        let (store, until) = (Arc::clone(&self.store), stop.clone());
        tasks.spawn(async move { store.keep_short(until).await });
        let preparer = Preparer {
            engine: self.engine.clone(),
            agent,
            rules: self.service.rules.clone(),
            build_images: config.build_images,
            pool_size: config.pool_size,
            pool: self.pool.clone(),
            supplies: Supplies {
                engine: self.engine.clone(),
                seats: self.seats.clone(),
                load: self.admission.load(),
                processes: config.limits.default.processes,
            },
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        // Executions that were accepted before the stop still need it.
        let until = drained.clone();
        tasks.spawn(async move {
            until.run_until_cancelled(preparer.run()).await;
        });
        tasks.close();
        tasks
    }
}

/// Makes the engine ready for containers, and keeps it so.
struct Preparer {
    engine: Engine,
    agent: AgentBinary,
    rules: Rules,
    build_images: bool,
    pool_size: usize,
    pool: Pool,
    supplies: Supplies,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Preparer {
    async fn run(self) {
        // What an earlier start has left goes first: it may hold memory that is needed.
        patiently(|| reaper::sweep(&self.engine)).await;
        let mut missing = self.open_found(self.rules.languages.iter().collect()).await;
        for language in &missing {
            self.build(language).await;
        }
        loop {
            missing = self.open_found(missing).await;
            let pause = if missing.is_empty() { Duration::MAX } else { LOOK_AGAIN };
            tokio::select! {
                // Somebody may build or pull them.
                () = tokio::time::sleep(pause) => {}
                // The volume can be pruned by somebody; a start that fails for it tells.
                () = self.engine.starts().agent_missing(), if self.engine.starts().is_prepared() => {
                    log::warn!("the agent's volume {} has lost the agent; it is filled again", self.agent.volume);
                    let opened = self.rules.languages.iter().find(|language| !missing.contains(language));
                    if let Some(language) = opened {
                        self.install(language, true).await;
                    }
                }
            }
        }
    }

    /// Opens the languages whose images are there; gives the others.
    async fn open_found<'a>(&self, languages: Vec<&'a Arc<Language>>) -> Vec<&'a Arc<Language>> {
        let mut missing = Vec::new();
        for language in languages {
            // The engine can leave between two questions.
            match patiently(|| images::state(&self.engine.installation.docker, language)).await {
                ImageState::Missing => missing.push(language),
                ImageState::Ready => self.open(language).await,
                ImageState::Outdated => {
                    log::warn!(
                        "the image {} was built by another version; `online-compiler images` renews it",
                        language.image
                    );
                    self.open(language).await;
                }
            }
        }
        missing
    }

    /// A language whose image is there: its containers can be started from now on.
    async fn open(&self, language: &Arc<Language>) {
        if !self.engine.starts().is_prepared() {
            self.install(language, false).await;
            if let Err(error) = self.agent.remove_others(&self.engine.installation).await {
                log::debug!("{error}");
            }
        }
        let memory = self.rules.default_memory(language);
        let kept = self.pool.clone().keep(
            self.supplies.clone(),
            Arc::clone(language),
            memory,
            self.pool_size,
            self.stop.clone(),
        );
        self.tasks.spawn(kept);
    }

    /// Puts the agent into its volume, by way of this language's image.
    async fn install(&self, language: &Language, again: bool) {
        patiently(|| self.agent.install(&self.engine.installation, &language.image, again)).await;
        self.engine.starts().prepare(true);
    }

    async fn build(&self, language: &Language) {
        if !(self.build_images && images::can_build(language)) {
            log::warn!("{} cannot be run: its image {} is missing", language.name, language.image);
            return;
        }
        log::info!("building the image {}; this takes a while the first time", language.image);
        let progress = |line: &str| log::info!("  {line}");
        if let Err(error) = images::build(&self.engine.installation.docker, language, progress).await {
            log::error!("{error}");
        }
    }
}

/// Tries until it works.
async fn patiently<T, F: Future<Output = Result<T, EngineError>>>(attempt: impl Fn() -> F) -> T {
    let mut pause = FIRST_RETRY;
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(error) => log::warn!("the Docker engine is not ready for use: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}
