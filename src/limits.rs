//! What an execution may use: the operator's defaults and ceilings, and what a request asks for in between.

use std::time::Duration;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Elapsed time of each run.
    pub wall_time: Duration,
    /// Processor time of each run, all its processes together.
    pub cpu_time: Duration,
    /// Elapsed and processor time of the compiler.
    pub compile_time: Duration,
    /// Bytes the whole container may hold, temporary files included.
    pub memory: u64,
    /// Bytes of stdout and stderr together, for each stage.
    pub output: u64,
    /// Processes and threads in the container at the same time.
    pub processes: u64,
}

/// The operator's word on limits.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitPolicy {
    pub default: Limits,
    pub ceiling: Limits,
}

/// Below this docker or the runtimes do not work at all; asking for it is a mistake, not a wish.
const MIN_MEMORY: u64 = 16 * 1024 * 1024;
const MIN_PROCESSES: u64 = 4;

/// A limit that a request may not have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("limits.{field} is {value}; it must be a number from {floor} to {ceiling} ({unit})")]
pub struct BadLimit {
    pub field: &'static str,
    pub value: String,
    pub floor: u64,
    pub ceiling: u64,
    pub unit: &'static str,
}

/// The limits of a request as they came: any of them may be missing or nonsense.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WantedLimits {
    pub wall_time: Option<Value>,
    pub cpu_time: Option<Value>,
    pub compile_time: Option<Value>,
    pub memory: Option<Value>,
    pub output: Option<Value>,
    pub processes: Option<Value>,
}

impl LimitPolicy {
    /// What a request gets: its own limits where it names them, else the defaults (`memory` is the
    /// language's). A default above its ceiling gives way.
    pub fn resolve(&self, wanted: &WantedLimits, memory: u64) -> Result<Limits, BadLimit> {
        let WantedLimits { wall_time, cpu_time, compile_time, memory: wanted_memory, output, processes } =
            wanted;
        let (default, top) = (&self.default, &self.ceiling);
        Ok(Limits {
            wall_time: time("wallTime", wall_time, default.wall_time, top.wall_time)?,
            cpu_time: time("cpuTime", cpu_time, default.cpu_time, top.cpu_time)?,
            compile_time: time("compileTime", compile_time, default.compile_time, top.compile_time)?,
            memory: Range { field: "memory", unit: "bytes", floor: MIN_MEMORY, ceiling: top.memory }
                .pick(wanted_memory, memory)?,
            output: Range { field: "output", unit: "bytes", floor: 1, ceiling: top.output }
                .pick(output, default.output)?,
            processes: Range {
                field: "processes",
                unit: "processes",
                floor: MIN_PROCESSES,
                ceiling: top.processes,
            }
            .pick(processes, default.processes)?,
        })
    }
}

fn time(
    field: &'static str,
    wanted: &Option<Value>,
    default: Duration,
    ceiling: Duration,
) -> Result<Duration, BadLimit> {
    let range = Range { field, unit: "milliseconds", floor: 1, ceiling: milliseconds(ceiling) };
    range.pick(wanted, milliseconds(default)).map(Duration::from_millis)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Range {
    field: &'static str,
    unit: &'static str,
    floor: u64,
    ceiling: u64,
}

impl Range {
    fn pick(&self, wanted: &Option<Value>, default: u64) -> Result<u64, BadLimit> {
        let Some(value) = wanted else {
            return Ok(default.min(self.ceiling));
        };
        value
            .as_f64()
            .filter(|number| (self.floor as f64..=self.ceiling as f64).contains(number))
            // A fraction of a millisecond or byte is rounded up: it was within the range.
            .map(|number| number.ceil() as u64)
            .ok_or_else(|| BadLimit {
                field: self.field,
                value: shortened(&value.to_string()),
                floor: self.floor,
                ceiling: self.ceiling,
                unit: self.unit,
            })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MIB: u64 = 1024 * 1024;

    fn policy() -> LimitPolicy {
        let default = Limits {
            wall_time: Duration::from_secs(10),
            cpu_time: Duration::from_secs(10),
            compile_time: Duration::from_secs(30),
            memory: 256 * MIB,
            output: MIB,
            processes: 64,
        };
        let ceiling = Limits {
            wall_time: Duration::from_secs(60),
            cpu_time: Duration::from_secs(60),
            compile_time: Duration::from_secs(60),
            memory: 1024 * MIB,
            output: MIB,
            processes: 256,
        };
        LimitPolicy { default, ceiling }
    }

    #[test]
    fn what_is_not_asked_for_is_the_default() {
        let limits = policy().resolve(&WantedLimits::default(), 512 * MIB).expect("fine");
        assert_eq!(limits, Limits { memory: 512 * MIB, ..policy().default });
    }

    #[test]
    fn a_wish_between_floor_and_ceiling_is_granted() {
        let wanted = WantedLimits {
            wall_time: Some(json!(1500.5)),
            memory: Some(json!(64 * MIB)),
            ..WantedLimits::default()
        };
        let limits = policy().resolve(&wanted, 256 * MIB).expect("fine");
        assert_eq!(limits.wall_time, Duration::from_millis(1501));
        assert_eq!(limits.memory, 64 * MIB);
    }

    #[test]
    fn nonsense_is_refused_with_field_value_and_ceiling() {
        for value in [json!(0), json!(-1), json!(60_001), json!("10"), json!(null), json!([1])] {
            let wanted = WantedLimits { wall_time: Some(value.clone()), ..WantedLimits::default() };
            let error = policy().resolve(&wanted, 256 * MIB).expect_err("refused").to_string();
            assert!(error.contains("limits.wallTime"), "{error}");
            assert!(error.contains(&value.to_string()), "{error}");
            assert!(error.contains("60000"), "{error}");
        }
    }
}
