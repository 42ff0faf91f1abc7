//! What the container's own control group says, for cgroup v1 and v2: processor time used by all its
//! processes, and how often the out-of-memory killer struck. Files are opened once and read again in place.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

type Parse = fn(&str) -> Option<u64>;

/// A counter file and how to read it.
struct Counter {
    file: File,
    parse: Parse,
}

impl Counter {
    fn open(root: &Path, places: &[(&str, Parse)]) -> Option<Counter> {
        places.iter().find_map(|&(name, parse)| {
            let counter = Counter { file: File::open(root.join(name)).ok()?, parse };
            counter.read().is_some().then_some(counter)
        })
    }

    fn read(&self) -> Option<u64> {
        let mut buffer = [0; 2048];
        let length = self.file.read_at(&mut buffer, 0).ok()?;
        (self.parse)(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

/// Either may be missing: under gVisor, or where the engine hides the cgroup file system.
pub struct Cgroup {
    cpu: Option<Counter>,
    oom_kills: Option<Counter>,
}

impl Cgroup {
    pub fn open() -> Self {
        Self::open_at(Path::new("/sys/fs/cgroup"))
    }

    fn open_at(root: &Path) -> Self {
        Cgroup {
            cpu: Counter::open(
                root,
                &[
                    ("cpu.stat", v2_cpu),
                    ("cpuacct/cpuacct.usage", v1_cpu),
                    ("cpu,cpuacct/cpuacct.usage", v1_cpu),
                ],
            ),
            oom_kills: Counter::open(
                root,
                &[("memory.events", oom_kill), ("memory/memory.oom_control", oom_kill)],
            ),
        }
    }

    /// Processor time of everything that ever ran in the container.
    pub fn cpu(&self) -> Option<Duration> {
        self.cpu.as_ref()?.read().map(Duration::from_nanos)
    }

    pub fn oom_kills(&self) -> Option<u64> {
        self.oom_kills.as_ref()?.read()
    }
}

/// `cpuacct.usage`: one number, nanoseconds.
fn v1_cpu(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `cpu.stat`: `usage_usec N` among other lines.
fn v2_cpu(text: &str) -> Option<u64> {
    field(text, "usage_usec")?.checked_mul(1000)
}

/// `memory.events` (v2) and `memory.oom_control` (v1, Linux 4.13 and later) both have a line `oom_kill N`.
fn oom_kill(text: &str) -> Option<u64> {
    field(text, "oom_kill")
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from a container on each kind of host.
    fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside root")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        let cgroup = Cgroup::open_at(root.path());
        (root, cgroup)
    }

    #[test]
    fn version_2_files_are_understood() {
        let (_root, cgroup) = recorded(&[
            (
                "cpu.stat",
                "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 12\nnr_throttled 0\n",
            ),
            ("memory.events", "low 0\nhigh 0\nmax 117\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ]);
        assert_eq!(cgroup.cpu(), Some(Duration::from_micros(1_234_567)));
        assert_eq!(cgroup.oom_kills(), Some(1));
    }

    #[test]
    fn version_1_files_are_understood() {
        let (_root, cgroup) = recorded(&[
            ("cpu,cpuacct/cpuacct.usage", "98765432\n"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ]);
        assert_eq!(cgroup.cpu(), Some(Duration::from_nanos(98_765_432)));
        assert_eq!(cgroup.oom_kills(), Some(3));
    }

    #[test]
    fn missing_and_strange_files_count_as_unknown() {
        let (_root, cgroup) = recorded(&[("cpu.stat", "nothing here\n")]);
        assert_eq!(cgroup.cpu(), None);
        assert_eq!(cgroup.oom_kills(), None);
    }
}
