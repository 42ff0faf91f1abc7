//! Builds the `docker run` line of a sandbox. Pure: the same sandbox gives the same line.

use std::time::SystemTime;

use super::invocation::Invocation;
use crate::id::Instance;
use crate::protocol::{AGENT_DIR, AGENT_PATH, WORK_DIR};

const MIB: u64 = 1024 * 1024;

/// What all containers of this server have in common.
#[derive(Debug, Clone)]
pub struct Installation {
    pub docker: String,
    pub runtime: Option<String>,
    pub instance: Instance,
    /// Volume that holds the agent.
    pub agent_volume: String,
    /// Cores for each container.
    pub cpus: f64,
    /// Bytes of the work folder.
    pub disk: u64,
}

/// One container to be.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub name: String,
    pub language: String,
    pub image: String,
    pub uid: u32,
    pub memory: u64,
    pub processes: u64,
    /// When it is overdue, whoever it belongs to.
    pub expires: SystemTime,
}

/// Sizes of the memory-backed folders. Together they stay below half of the container's memory: a program that
/// fills them must not leave the out-of-memory killer nothing to kill but PID 1.
struct Folders {
    work: u64,
    tmp: u64,
    shm: u64,
}

impl Folders {
    fn new(disk: u64, memory: u64) -> Self {
        let whole = Folders { work: disk, tmp: disk / 2, shm: disk / 4 };
        let sum = whole.work + whole.tmp + whole.shm;
        let scaled = |size: u64| (size * (memory / 2).min(sum) / sum).max(MIB);
        Folders { work: scaled(whole.work), tmp: scaled(whole.tmp), shm: scaled(whole.shm) }
    }
}

/// The hardened `docker run`. Every flag has a reason in docs/design.md.
pub fn run(installation: &Installation, sandbox: &Sandbox) -> Invocation {
    let Installation { docker, runtime, instance, agent_volume, cpus, disk } = installation;
    let Sandbox { name, language, image, uid, memory, processes, expires } = sandbox;
    let folders = Folders::new(*disk, *memory);
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let label = |invocation: Invocation, key: &str, value: &str| {
        invocation.unprinted("--label", format!("oc.{key}={value}"))
    };
    let mut line = Invocation::new(docker).args(["run", "--rm", "-i"]).unprinted("--name", name);
    line = label(line, "app", "1");
    line = label(line, "instance", &instance.name);
    line = label(line, "epoch", &instance.epoch);
    line = label(line, "expires", &expires.to_string());
    line = label(line, "language", language);
    if let Some(runtime) = runtime {
        line = line.args(["--runtime", runtime]);
    }
    let tmpfs = |path: &str, size: u64| {
        let size = size / 1024;
        format!("{path}:rw,exec,nosuid,nodev,size={size}k,uid={uid},gid={uid},mode=0700")
    };
    line.args(["--network", "none", "--hostname", "sandbox", "--read-only"])
        .args(["--tmpfs", &tmpfs(WORK_DIR, folders.work)])
        .args(["--tmpfs", &tmpfs("/tmp", folders.tmp)])
        .args(["--ipc", "private", "--shm-size", &folders.shm.to_string()])
        .args(["--memory", &memory.to_string(), "--memory-swap", &memory.to_string()])
        .args(["--cpus", &cpus.to_string(), "--pids-limit", &processes.to_string()])
        .args(["--oom-score-adj", "1000"])
        .args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges"])
        .args(["--user", &format!("{uid}:{uid}")])
        .args(["--ulimit", "core=0", "--ulimit", "nofile=1024", "--ulimit", &format!("fsize={disk}")])
        .args(["--log-driver", "none", "--pull", "never"])
        .args(["--env", &format!("HOME={WORK_DIR}"), "--env", "LANG=C.UTF-8"])
        .args(["--volume", &format!("{agent_volume}:{AGENT_DIR}:ro"), "--workdir", WORK_DIR])
        .args(["--entrypoint", AGENT_PATH, image, "agent"])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    pub fn installation() -> Installation {
        Installation {
            docker: "docker".into(),
            runtime: None,
            instance: Instance { name: "i1".into(), epoch: "e1".into() },
            agent_volume: "oc-agent-0123".into(),
            cpus: 1.0,
            disk: 64 * MIB,
        }
    }

    fn sandbox() -> Sandbox {
        Sandbox {
            name: "oc-i1-e1-0".into(),
            language: "python".into(),
            image: "online-compiler/python".into(),
            uid: 62_000,
            memory: 256 * MIB,
            processes: 64,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
        }
    }

    const PRINTED: &str = "docker run --rm -i --network none --hostname sandbox --read-only \
        --tmpfs /box:rw,exec,nosuid,nodev,size=65536k,uid=62000,gid=62000,mode=0700 \
        --tmpfs /tmp:rw,exec,nosuid,nodev,size=32768k,uid=62000,gid=62000,mode=0700 \
        --ipc private --shm-size 16777216 --memory 268435456 --memory-swap 268435456 --cpus 1 --pids-limit 64 \
        --oom-score-adj 1000 --cap-drop ALL --security-opt no-new-privileges --user 62000:62000 \
        --ulimit core=0 --ulimit nofile=1024 --ulimit fsize=67108864 --log-driver none --pull never \
        --env HOME=/box --env LANG=C.UTF-8 --volume oc-agent-0123:/oc:ro --workdir /box \
        --entrypoint /oc/agent online-compiler/python agent";

    #[test]
    fn the_whole_line_is_as_documented() {
        let line = run(&installation(), &sandbox());
        assert_eq!(line.to_string(), PRINTED);
        let hidden = "--name oc-i1-e1-0 --label oc.app=1 --label oc.instance=i1 --label oc.epoch=e1 \
                      --label oc.expires=1000 --label oc.language=python ";
        let executed: Vec<_> = line.argv().collect();
        let expected = PRINTED.replacen("docker run --rm -i ", &format!("run --rm -i {hidden}"), 1);
        assert_eq!(executed.join(" "), expected);
    }

    #[test]
    fn memory_backed_folders_leave_room_for_the_program() {
        for memory in [16, 64, 256, 1024].map(|mib| mib * MIB) {
            let Folders { work, tmp, shm } = Folders::new(256 * MIB, memory);
            assert!(work + tmp + shm <= memory / 2 + 3 * MIB, "{memory}");
        }
    }

    #[test]
    fn another_runtime_is_named_to_docker() {
        let installation = Installation { runtime: Some("runsc".into()), ..installation() };
        let line = run(&installation, &sandbox()).to_string();
        assert!(line.starts_with("docker run --rm -i --runtime runsc --network none"));
    }
}
