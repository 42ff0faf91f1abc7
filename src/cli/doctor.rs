//! `online-compiler doctor`: looks at everything a server leans on and prints what to do about what is wrong.

use std::process::ExitCode;

use super::{Chain, complain, say};
use crate::config::Config;
use crate::engine::images::{self, ImageState};
use crate::engine::volume::AgentBinary;
use crate::engine::{Container, Engine, parse};
use crate::installation::Identity;
use crate::submission::Rules;
use crate::{admission::Seats, server};

/// Versions of runc below these let a container out: CVE-2024-21626 (1.1.12), CVE-2025-31133, -52565 and -52881
/// (1.2.8, 1.3.3).
const SAFE_RUNC: [&str; 3] = ["1.2.8", "1.3.3", "1.4.0"];

enum Finding {
    Fine(String),
    /// It works, but.
    Warning {
        what: String,
        mend: String,
    },
    Broken {
        what: String,
        mend: String,
    },
}

use Finding::{Broken, Fine, Warning};

pub async fn run(config: &Config) -> ExitCode {
    let rules = match server::rules(config) {
        Ok(rules) => rules,
        Err(error) => return complain(&Chain(&error)),
    };
    let mut broken = false;
    let mut tell = |finding: Finding| match finding {
        Fine(what) => say(&format!("ok       {what}")),
        Warning { what, mend } => say(&format!("warning  {what}\n         mend: {mend}")),
        Broken { what, mend } => {
            broken = true;
            say(&format!("broken   {what}\n         mend: {mend}"));
        }
    };
    let (engine, agent) = match engine(config) {
        Ok(parts) => parts,
        Err(finding) => {
            tell(finding);
            return ExitCode::FAILURE;
        }
    };
    let reachable = reach(&engine).await;
    let stop = matches!(reachable, Broken { .. });
    tell(reachable);
    if stop {
        return ExitCode::FAILURE;
    }
    tell(runc(&engine).await);
    tell(control_groups(&engine).await);
    let mut built = Vec::new();
    for language in rules.languages.iter() {
        let image = &language.image;
        let rebuild = || "online-compiler images".to_owned();
        tell(match images::state(&config.docker, language).await {
            Ok(ImageState::Ready) => {
                built.push(image.clone());
                Fine(format!("image {image}"))
            }
            Ok(ImageState::Outdated) => {
                built.push(image.clone());
                Warning { what: format!("image {image} is outdated"), mend: rebuild() }
            }
            Ok(ImageState::Missing) if images::can_build(language) => {
                Broken { what: format!("image {image} is missing"), mend: rebuild() }
            }
            Ok(ImageState::Missing) => Broken {
                what: format!("image {image} is missing"),
                mend: format!("{} pull {image}", config.docker),
            },
            Err(error) => Broken { what: Chain(&error).to_string(), mend: "see above".to_owned() },
        });
    }
    if let Some(image) = built.first() {
        for finding in start_one(&engine, &agent, &rules, image).await {
            tell(finding);
        }
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn engine(config: &Config) -> Result<(Engine, AgentBinary), Finding> {
    let identity = Identity::claim(&config.state_dir).map_err(|error| Broken {
        what: format!("{} cannot be written: {error}", config.state_dir.display()),
        mend: "set STATE_DIR to a folder of your own".to_owned(),
    })?;
    let agent = AgentBinary::of_this_process().map_err(|error| Broken {
        what: format!("this program's own file cannot be read: {error}"),
        mend: "mount /proc".to_owned(),
    })?;
    // Nobody reaps here: the one container that is started ends with its stdin.
    let (engine, _remains) = Engine::new(server::installation(config, &identity, &agent), 1);
    Ok((engine, agent))
}

async fn reach(engine: &Engine) -> Finding {
    let format = "client {{.Client.Version}}, engine {{.Server.Version}} (API {{.Server.APIVersion}})";
    match engine.ask(&["version", "--format", format]).await {
        Ok(versions) => Fine(format!("docker: {versions}")),
        Err(error) => Broken {
            what: Chain(&error).to_string(),
            mend: "scripts/engine (installs and starts Docker on Debian and Ubuntu), or see DOCKER and DOCKER_HOST"
                .to_owned(),
        },
    }
}

async fn runc(engine: &Engine) -> Finding {
    let format = "{{range .Server.Components}}{{.Name}} {{.Version}}\n{{end}}";
    let components = engine.ask(&["version", "--format", format]).await.unwrap_or_default();
    let Some(version) = components.lines().find_map(|line| line.strip_prefix("runc ")) else {
        return Warning {
            what: "the engine does not tell its runc's version".to_owned(),
            mend: "make sure it is 1.2.8, 1.3.3 or newer".to_owned(),
        };
    };
    if is_safe_runc(version) {
        return Fine(format!("runc {version}"));
    }
    Warning {
        what: format!("runc {version} has known escapes (CVE-2024-21626, CVE-2025-31133, -52565, -52881)"),
        mend: "update runc to 1.2.8, 1.3.3 or newer, unless your distribution has patched this one"
            .to_owned(),
    }
}

fn is_safe_runc(version: &str) -> bool {
    let own = parse::version(version);
    SAFE_RUNC.iter().map(|safe| parse::version(safe)).any(|safe| own >= safe && own.get(..2) == safe.get(..2))
        || own > parse::version("1.4.0")
}

async fn control_groups(engine: &Engine) -> Finding {
    let format = "{{.CgroupVersion}} {{.MemoryLimit}} {{.SwapLimit}} {{.PidsLimit}} {{.CPUCfsQuota}}";
    let told = engine.ask(&["info", "--format", format]).await.unwrap_or_default();
    let words: Vec<&str> = told.split_whitespace().collect();
    let [version, memory, swap, pids, cpu] = words[..] else {
        return Warning {
            what: "the engine does not tell about control groups".to_owned(),
            mend: "make sure that memory, pids and cpu limits work".to_owned(),
        };
    };
    let missing: Vec<&str> = [("memory", memory), ("pids", pids), ("cpu", cpu)]
        .into_iter()
        .filter_map(|(name, there)| (there != "true").then_some(name))
        .collect();
    if !missing.is_empty() {
        return Broken {
            what: format!("cgroup v{version} without limits for {}", missing.join(", ")),
            mend: "enable these controllers in the kernel and for the engine".to_owned(),
        };
    }
    if swap != "true" {
        return Warning {
            what: format!(
                "cgroup v{version} without a limit for swap: programs can use more than their memory"
            ),
            mend: "boot with swapaccount=1, or turn swap off".to_owned(),
        };
    }
    Fine(format!("cgroup v{version} with limits for memory, swap, pids and cpu"))
}

/// A real container, as the server would start one.
async fn start_one(engine: &Engine, agent: &AgentBinary, rules: &Rules, image: &str) -> Vec<Finding> {
    if let Err(error) = agent.install(&engine.installation, image, false).await {
        let mend = "see above; docker volume ls shows the volumes".to_owned();
        return vec![Broken { what: Chain(&error).to_string(), mend }];
    }
    engine.starts().prepare(true);
    let Some(language) = rules.languages.iter().find(|language| language.image == image) else {
        return vec![];
    };
    let seat = Seats::new(1).take().await;
    let (memory, processes) = (rules.default_memory(language), rules.limits.default.processes);
    match Container::start(engine, language, memory, processes, seat).await {
        Ok(container) => {
            let took = container.started.elapsed();
            vec![Fine(format!(
                "a {} container was ready after {:.0} ms",
                language.id,
                took.as_secs_f64() * 1000.0
            ))]
        }
        Err(error) => vec![Broken {
            what: Chain(&error).to_string(),
            mend: "paste the command into a shell to see more".to_owned(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_runcs_are_told_from_mended_ones() {
        for safe in ["1.2.8", "1.2.9", "1.3.3", "1.4.0", "1.4.1", "1.5.0", "2.0.0"] {
            assert!(is_safe_runc(safe), "{safe}");
        }
        for old in ["1.1.5+ds1", "1.1.12", "1.2.7", "1.3.2", "1.0.0"] {
            assert!(!is_safe_runc(old), "{old}");
        }
    }
}
