//! Names of things: executions for clients, installations and containers for docker.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// What a client knows an execution by. Random, so that it can serve as the capability to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExecutionId(Uuid);

impl ExecutionId {
    /// A new one, different from all others.
    pub fn random() -> Self {
        ExecutionId(Uuid::new_v4())
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ExecutionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(ExecutionId)
    }
}

/// Who asks, as far as fairness goes: requests of one client wait behind each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client(String);

impl Client {
    pub fn new(name: impl Into<String>) -> Self {
        Client(name.into())
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One installation, and which of its starts this is. Both are labels of every container, so that what an
/// earlier start left behind can be told from what belongs to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Stable: lowercase letters, digits.
    pub name: String,
    /// Different at every start.
    pub epoch: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_id_reads_as_it_is_written() {
        let id = ExecutionId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("no-uuid".parse::<ExecutionId>().is_err());
    }
}
