//! What `/metrics` tells, in OpenMetrics text.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::verdict::Status;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    language: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLanguage {
    language: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Started {
    language: String,
    /// `warm` from the pool, `cold` otherwise.
    way: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

pub struct Metrics {
    registry: Registry,
    finished: Family<Finished, Counter>,
    total: Histograms<OfLanguage>,
    started: Histograms<Started>,
    failed_starts: Family<OfLanguage, Counter>,
    refused: Family<Refused, Counter>,
    ready: Family<OfLanguage, Gauge>,
    running: Gauge,
    queued: Gauge,
    cpu: Counter<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("online_compiler"),
            finished: Family::default(),
            total: Family::new_with_constructor(seconds),
            started: Family::new_with_constructor(seconds),
            failed_starts: Family::default(),
            refused: Family::default(),
            ready: Family::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            cpu: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("executions", "Executions that ended, by verdict", metrics.finished.clone());
        registry.register_with_unit(
            "execution",
            "Time from request to result",
            Unit::Seconds,
            metrics.total.clone(),
        );
        registry.register_with_unit(
            "container_start",
            "Time until a container was ready",
            Unit::Seconds,
            metrics.started.clone(),
        );
        registry.register(
            "container_start_failures",
            "Containers that did not start",
            metrics.failed_starts.clone(),
        );
        registry.register("refusals", "Requests that were not admitted", metrics.refused.clone());
        registry.register("pool_ready", "Containers that wait for work", metrics.ready.clone());
        registry.register("running", "Executions that hold a permit", metrics.running.clone());
        registry.register("queued", "Executions that wait for a permit", metrics.queued.clone());
        registry.register_with_unit(
            "program_cpu",
            "Processor time used by programs",
            Unit::Seconds,
            metrics.cpu.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub fn finished(&self, language: &str, status: Status, total: Duration, cpu: Duration) {
        self.finished
            .get_or_create(&Finished { language: language.to_owned(), status: status.as_str() })
            .inc();
        self.total.get_or_create(&OfLanguage { language: language.to_owned() }).observe(total.as_secs_f64());
        self.cpu.inc_by(cpu.as_secs_f64());
    }

    pub fn started(&self, language: &str, warm: bool, took: Duration) {
        let way = if warm { "warm" } else { "cold" };
        self.started
            .get_or_create(&Started { language: language.to_owned(), way })
            .observe(took.as_secs_f64());
    }

    pub fn failed_start(&self, language: &str) {
        self.failed_starts.get_or_create(&OfLanguage { language: language.to_owned() }).inc();
    }

    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    pub fn ready(&self, language: &str, count: usize) {
        self.ready
            .get_or_create(&OfLanguage { language: language.to_owned() })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn load(&self, running: usize, queued: usize) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}
