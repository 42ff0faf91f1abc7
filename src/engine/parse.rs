//! What docker prints, understood. Pure.

use std::time::{Duration, SystemTime};

/// A container of ours, as `docker ps` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub name: String,
    pub instance: String,
    pub epoch: String,
    pub expires: Option<SystemTime>,
}

/// The `--format` of `docker ps` whose lines `listed` reads: tab-separated, since none of it holds a tab.
pub const LIST_FORMAT: &str =
    "{{.Names}}\t{{.Label \"oc.instance\"}}\t{{.Label \"oc.epoch\"}}\t{{.Label \"oc.expires\"}}";

/// Containers without an instance are not ours.
pub fn listed(text: &str) -> Vec<Listed> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (name, instance, epoch) = (fields.next()?, fields.next()?, fields.next()?);
            let expires = fields
                .next()?
                .parse()
                .ok()
                .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            (!name.is_empty() && !instance.is_empty()).then(|| Listed {
                name: name.to_owned(),
                instance: instance.to_owned(),
                epoch: epoch.to_owned(),
                expires,
            })
        })
        .collect()
}

/// Why a docker command failed, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No engine answers.
    Unreachable,
    ImageMissing,
    /// What should be removed is gone already, or on its way.
    Gone,
    Other,
}

/// Docker tells by its words only: its exit code is 125 for all of these (docker-run(1)).
pub fn failure(stderr: &str) -> Failure {
    let text = stderr.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&[
        "cannot connect to the docker daemon",
        "is the docker daemon running",
        "connection refused",
        "error during connect",
        "permission denied while trying to connect",
        "failed to connect to the docker api",
        "unable to connect to podman",
        // An engine that has just started: the client's question for its version was lost.
        "is too new. maximum supported api version",
    ]) {
        Failure::Unreachable
    } else if says(&["no such image", "unable to find image", "image not known"]) {
        Failure::ImageMissing
    } else if says(&["no such container", "already in progress", "no such volume"]) {
        Failure::Gone
    } else {
        Failure::Other
    }
}

/// The line of docker's stderr worth showing: its last, without the advice to read the manual.
pub fn last_line(stderr: &str) -> &str {
    stderr
        .lines()
        .map(str::trim)
        .rfind(|line| {
            !line.is_empty() && !line.starts_with("See 'docker") && !line.starts_with("Run 'docker")
        })
        .unwrap_or("it said nothing")
}

/// The first dotted version in a line, as numbers that compare.
pub fn version(text: &str) -> Vec<u64> {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    text[start..]
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_listed_with_whose_they_are() {
        let text = "oc-a-b-0\ta\tb\t1000\nforeign\t\t\t\noc-x\tx\ty\tsoon\n";
        let listed = listed(text);
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].instance, "a");
        assert_eq!(listed[0].expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1000)));
        assert_eq!(listed[1].expires, None);
    }

    #[test]
    fn failures_are_told_apart_by_what_docker_says() {
        let table = [
            (
                "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                Failure::Unreachable,
            ),
            (
                "docker: Error response from daemon: No such image: x:latest.\nSee 'docker run --help'.",
                Failure::ImageMissing,
            ),
            (
                "Unable to find image 'x:latest' locally\ndocker: Error response from daemon: No such image: x:latest",
                Failure::ImageMissing,
            ),
            (
                "Error response from daemon: client version 1.50 is too new. Maximum supported API version is 1.41",
                Failure::Unreachable,
            ),
            ("Error: No such container: oc-1", Failure::Gone),
            ("Error response from daemon: removal of container oc-1 is already in progress", Failure::Gone),
            ("docker: Error response from daemon: OCI runtime create failed", Failure::Other),
        ];
        for (text, expected) in table {
            assert_eq!(failure(text), expected, "{text}");
        }
        assert_eq!(last_line("docker: nope.\nSee 'docker run --help'.\n"), "docker: nope.");
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("runc version 1.1.12") < version("1.2.8"));
        assert!(version("v1.1.5+ds1") < version("1.1.12"));
        assert_eq!(version("nothing"), Vec::<u64>::new());
    }
}
