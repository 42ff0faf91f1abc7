//! The agent's volume: this binary, put into a named volume that every container mounts read-only. Named after
//! the binary's content, so that servers of different versions do not meet. Works where the server is itself a
//! container and shares no path with the engine's host.
//!
//! The volume is filled through a container that is created and never started. That container's name is the lock:
//! while it exists the volume may be incomplete, and whoever finds it abandoned completes the work.

use std::io;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::invocation::Invocation;
use super::parse::Failure;
use super::{COMMAND_DEADLINE, EngineError, Installation, process};
use crate::protocol::AGENT_DIR;

/// How long another server may be at filling the same volume before we take it for dead.
const FILLING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// This very binary.
pub struct AgentBinary {
    bytes: Vec<u8>,
    /// Name of the volume that holds it.
    pub volume: String,
}

impl AgentBinary {
    pub fn of_this_process() -> io::Result<AgentBinary> {
        let bytes = std::fs::read("/proc/self/exe")?;
        let hash = Sha256::digest(&bytes);
        let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(AgentBinary { bytes, volume: format!("oc-agent-{hash}") })
    }

    /// Makes sure that the volume holds the binary. `image` is any image that exists; nothing of it is run. `again`:
    /// a volume that is there is not trusted, since docker makes an empty one for whoever mounts a missing one.
    pub async fn install(
        &self,
        installation: &Installation,
        image: &str,
        again: bool,
    ) -> Result<(), EngineError> {
        let docker = || Invocation::new(&installation.docker);
        let filler = format!("{}-filler", self.volume);
        let volume = docker().args(["volume", "inspect", &self.volume]);
        let exists = docker().args(["container", "inspect", &filler]);
        if !again && succeeds(&volume).await? && !succeeds(&exists).await? {
            return Ok(());
        }
        let owner = format!("oc.instance={}", installation.instance.name);
        let create_volume =
            docker().args(["volume", "create", "--label", "oc.app=1", "--label", &owner, &self.volume]);
        process::succeed(&create_volume, b"", COMMAND_DEADLINE).await?;
        // No `oc.instance`: no sweep may remove it, since that would pass a half-filled volume for a whole one.
        let mount = format!("{}:{AGENT_DIR}", self.volume);
        let create = docker()
            .args([
                "create",
                "--name",
                &filler,
                "--pull",
                "never",
                "--network",
                "none",
                "--label",
                "oc.filler=1",
            ])
            .args(["--volume", &mount, "--entrypoint", "/none", image]);
        if let Err(error) = process::succeed(&create, b"", COMMAND_DEADLINE).await {
            if error.failure() == Failure::ImageMissing || !succeeds(&exists).await? {
                return Err(error);
            }
            if self.somebody_else_fills(&exists).await? {
                return Ok(());
            }
        }
        let copy = docker().args(["cp", "-", &format!("{filler}:{AGENT_DIR}")]);
        process::succeed(&copy, &archive(&[("agent", &self.bytes, 0o755)]), COMMAND_DEADLINE).await?;
        let remove = docker().args(["rm", &filler]);
        match process::succeed(&remove, b"", COMMAND_DEADLINE).await {
            Err(error) if error.failure() != Failure::Gone => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits for another server's filler to go away; false when it seems to have been abandoned.
    async fn somebody_else_fills(&self, exists: &Invocation) -> Result<bool, EngineError> {
        let deadline = tokio::time::Instant::now() + FILLING;
        while tokio::time::Instant::now() < deadline {
            if !succeeds(exists).await? {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(false)
    }

    /// Removes the volumes of this installation's other versions. One that is in use stays.
    pub async fn remove_others(&self, installation: &Installation) -> Result<(), EngineError> {
        let owner = format!("label=oc.instance={}", installation.instance.name);
        let list =
            Invocation::new(&installation.docker).args(["volume", "ls", "--quiet", "--filter", &owner]);
        let names = process::succeed(&list, b"", COMMAND_DEADLINE).await?;
        for name in names.lines().filter(|name| name.starts_with("oc-agent-") && *name != self.volume) {
            let remove = Invocation::new(&installation.docker).args(["volume", "rm", name]);
            if let Err(error) = process::succeed(&remove, b"", COMMAND_DEADLINE).await {
                log::debug!("{error}");
            }
        }
        Ok(())
    }
}

async fn succeeds(invocation: &Invocation) -> Result<bool, EngineError> {
    let output = process::output(invocation, b"", COMMAND_DEADLINE).await?;
    match super::parse::failure(&output.stderr) {
        Failure::Unreachable => Err(EngineError::failed(invocation, output.status.code(), &output.stderr)),
        _ => Ok(output.status.success()),
    }
}

/// A tar archive of some files: name, content, mode.
pub(super) fn archive(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        builder.append_data(&mut header, name, *bytes).expect("writing to memory does not fail");
    }
    builder.into_inner().expect("writing to memory does not fail")
}
