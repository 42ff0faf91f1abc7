//! The settings: from the environment and `.env`, checked all at once. A mistake never falls back to a
//! default; it is reported with the variable, the value and what is allowed, together with all the others.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{LimitPolicy, Limits};

const MIB: u64 = 1024 * 1024;

/// One setting, as `--help` and `.env.example` show it.
pub struct Setting {
    pub name: &'static str,
    /// As it would be written; empty: none.
    pub default: &'static str,
    pub about: &'static str,
}

const fn setting(name: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { name, default, about }
}

/// Every setting there is, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", "127.0.0.1", "Address to listen on."),
    setting("PORT", "3000", "Port to listen on; 0 takes a free one and logs it."),
    setting(
        "ALLOW_ANONYMOUS",
        "false",
        "Serve everybody who reaches HOST; needed where HOST is not a loopback address.",
    ),
    setting(
        "CORS_ORIGIN",
        "",
        "Pages that may use the API, comma-separated, or *. Empty: this server's own and those on localhost.",
    ),
    setting(
        "TRUST_PROXY",
        "false",
        "Tell clients apart by the last X-Forwarded-For address. Only behind a proxy that sets it.",
    ),
    setting("DOCKER", "docker", "The docker command line: docker, podman, or a path."),
    setting("RUNTIME", "", "Container runtime, such as runsc, kata or crun. Empty: the engine's own."),
    setting("LANGUAGES", "javascript,python,java,cpp,c", "Which languages are on, comma-separated ids."),
    setting("LANGUAGES_FILE", "", "A TOML file with further languages; they are on too."),
    setting("BUILD_IMAGES", "true", "Build missing images of the built-in languages at start."),
    setting("POOL_SIZE", "2", "Containers kept ready for each language; 0 starts one for each execution."),
    setting("MAX_CONCURRENT", "", "Executions at the same time. Empty: twice the number of cores."),
    setting("MAX_QUEUE", "256", "Executions that may wait; more are refused with 503."),
    setting(
        "MAX_PER_CLIENT",
        "32",
        "Executions of one client that may run or wait; more are refused with 429.",
    ),
    setting("WALL_TIME", "10s", "Elapsed time of a run."),
    setting("MAX_WALL_TIME", "60s", "The most a request may ask for."),
    setting("CPU_TIME", "10s", "Processor time of a run."),
    setting("MAX_CPU_TIME", "60s", "The most a request may ask for."),
    setting("COMPILE_TIME", "30s", "Elapsed and processor time of a compiler."),
    setting("MAX_COMPILE_TIME", "60s", "The most a request may ask for."),
    setting(
        "MEMORY",
        "256MiB",
        "Memory of a container, temporary files included. A language may have a larger default of its own.",
    ),
    setting("MAX_MEMORY", "1GiB", "The most a request may ask for."),
    setting("CPUS", "1", "Cores a container may use."),
    setting("PROCESSES", "64", "Processes and threads in a container."),
    setting("MAX_PROCESSES", "256", "The most a request may ask for."),
    setting("DISK", "64MiB", "Size of a container's work folder, which is kept in memory; at most 256MiB."),
    setting("OUTPUT_LIMIT", "1MiB", "Output of one run, stdout and stderr together."),
    setting("CODE_LIMIT", "1MiB", "Code and files of one request together."),
    setting("BODY_LIMIT", "16MiB", "Body of one request."),
    setting("MAX_TESTS", "100", "Test cases in one request."),
    setting("RESULT_RETENTION", "10min", "How long a finished execution can be asked for."),
    setting("RESULT_MEMORY", "256MiB", "Finished executions together; the oldest give way earlier."),
    setting("DRAIN_TIME", "20s", "How long running executions may go on after the server was told to stop."),
    setting(
        "STATE_DIR",
        "",
        "Where the installation's identity is kept. Empty: $XDG_STATE_HOME/online-compiler or ~/.local/state/online-compiler.",
    ),
    setting("EXPOSE_COMMANDS", "false", "Put the docker command that ran it into each result."),
    setting("RUST_LOG", "info", "What is logged: error, warn, info, debug, trace, or a filter by module."),
];

#[derive(Debug, Clone)]
pub struct Config {
    pub host: IpAddr,
    pub port: u16,
    pub allow_anonymous: bool,
    pub cors_origin: CorsOrigin,
    pub trust_proxy: bool,
    pub docker: String,
    pub runtime: Option<String>,
    pub languages: Vec<String>,
    pub languages_file: Option<PathBuf>,
    pub build_images: bool,
    pub pool_size: usize,
    pub max_concurrent: usize,
    pub max_queue: usize,
    pub max_per_client: usize,
    pub limits: LimitPolicy,
    pub cpus: f64,
    pub disk: u64,
    pub code_limit: u64,
    pub body_limit: u64,
    pub max_tests: usize,
    pub result_retention: Duration,
    pub result_memory: u64,
    pub drain_time: Duration,
    pub state_dir: PathBuf,
    pub expose_commands: bool,
    pub log_filter: String,
}

/// Which foreign pages may use the API.
#[derive(Debug, Clone, PartialEq)]
pub enum CorsOrigin {
    /// Pages on localhost; the same origin is always allowed.
    Localhost,
    Any,
    List(Vec<String>),
}

/// One mistake in the settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{variable}={value:?} is not possible: {allowed}")]
pub struct Mistake {
    pub variable: String,
    pub value: String,
    pub allowed: String,
}

/// All mistakes in the settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings have {} mistake(s):", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Config {
    /// Reads the process's environment, and `.env` of the working directory beneath it.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn from_environment() -> Result<Config, Mistakes> {
        let mut variables = HashMap::new();
        let mut unreadable = Vec::new();
        match dotenvy::from_filename_iter(".env") {
            Ok(lines) => {
                for line in lines {
                    match line {
                        Ok((name, value)) => drop(variables.insert(name, value)),
                        Err(error) => unreadable.push(mistake(
                            ".env",
                            &error.to_string(),
                            "each line is NAME=value, values with spaces in quotes",
                        )),
                    }
                }
            }
            Err(error) if error.not_found() => {}
            Err(error) => unreadable.push(mistake(".env", &error.to_string(), "a readable file")),
        }
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }));
        let config = Self::from_variables(&variables);
        match (config, unreadable.is_empty()) {
            (Ok(config), true) => Ok(config),
            (Ok(_), false) => Err(Mistakes(unreadable)),
            (Err(Mistakes(mistakes)), _) => {
                unreadable.extend(mistakes);
                Err(Mistakes(unreadable))
            }
        }
    }

    pub fn from_variables(variables: &HashMap<String, String>) -> Result<Config, Mistakes> {
        let mut reader = Reader { variables, mistakes: Vec::new() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Config {
            host: reader.read("HOST", "an IP address, such as 127.0.0.1 or 0.0.0.0", parsed),
            port: reader.read("PORT", "a number from 0 to 65535", parsed),
            allow_anonymous: reader.flag("ALLOW_ANONYMOUS"),
            cors_origin: reader.read(
                "CORS_ORIGIN",
                "*, or origins such as https://example.org, comma-separated",
                cors_origin,
            ),
            trust_proxy: reader.flag("TRUST_PROXY"),
            docker: reader.read("DOCKER", "a command", optional),
            runtime: reader.read("RUNTIME", "a runtime's name", |text| Some(optional(text))),
            languages: reader.read("LANGUAGES", "ids, comma-separated", |text| Some(list(text))),
            languages_file: reader
                .read("LANGUAGES_FILE", "a path", |text| Some(optional(text).map(PathBuf::from))),
            build_images: reader.flag("BUILD_IMAGES"),
            pool_size: reader.count("POOL_SIZE", 0, 100),
            max_concurrent: reader.read("MAX_CONCURRENT", "a number from 1 to 1000, or nothing", |text| {
                if text.is_empty() { Some(cores * 2) } else { between(text, 1, 1000) }
            }),
            max_queue: reader.count("MAX_QUEUE", 0, 100_000),
            max_per_client: reader.count("MAX_PER_CLIENT", 1, 100_000),
            limits: LimitPolicy {
                default: Limits {
                    wall_time: reader.time("WALL_TIME"),
                    cpu_time: reader.time("CPU_TIME"),
                    compile_time: reader.time("COMPILE_TIME"),
                    memory: reader.size("MEMORY", 16 * MIB),
                    output: reader.size("OUTPUT_LIMIT", 1),
                    processes: reader.count("PROCESSES", 4, 32_768) as u64,
                },
                ceiling: Limits {
                    wall_time: reader.time("MAX_WALL_TIME"),
                    cpu_time: reader.time("MAX_CPU_TIME"),
                    compile_time: reader.time("MAX_COMPILE_TIME"),
                    memory: reader.size("MAX_MEMORY", 16 * MIB),
                    output: 0, // Its default is its ceiling; set below.
                    processes: reader.count("MAX_PROCESSES", 4, 32_768) as u64,
                },
            },
            cpus: reader.read(
                "CPUS",
                &format!("a number above 0 and up to {cores}, the cores there are"),
                |text| text.parse().ok().filter(|cpus| (0.01..=cores as f64).contains(cpus)),
            ),
            disk: reader.read("DISK", "a size from 1MiB to 256MiB", |text| {
                size(text).filter(|disk| (MIB..=256 * MIB).contains(disk))
            }),
            code_limit: reader.size("CODE_LIMIT", 1),
            body_limit: reader.read("BODY_LIMIT", "a size from 1KiB to 32MiB, such as 16MiB", |text| {
                size(text).filter(|limit| (1024..=32 * MIB).contains(limit))
            }),
            max_tests: reader.count("MAX_TESTS", 1, 10_000),
            result_retention: reader.time("RESULT_RETENTION"),
            result_memory: reader.size("RESULT_MEMORY", MIB),
            drain_time: reader.time("DRAIN_TIME"),
            state_dir: state_dir(variables),
            expose_commands: reader.flag("EXPOSE_COMMANDS"),
            log_filter: reader.read("RUST_LOG", "a level", |text| Some(text.to_owned())),
        };
        reader.finish(config)
    }
}

/// Reads settings and collects what is wrong with them.
struct Reader<'a> {
    variables: &'a HashMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// The variable's value or the default's; a mistake is noted and the default stands in for it, until
    /// `finish` refuses the whole.
    fn read<T>(&mut self, name: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect("every setting is listed");
        let given = self.variables.get(name).map(|value| value.trim());
        // Empty in `.env` and `docker run -e` means: not set.
        if let Some(value) = given.filter(|value| !value.is_empty()) {
            match parse(value) {
                Some(parsed) => return parsed,
                None => self.mistakes.push(mistake(name, value, allowed)),
            }
        }
        parse(setting.default).expect("defaults are possible")
    }

    fn flag(&mut self, name: &str) -> bool {
        self.read(name, "true or false", |text| match text {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    fn count(&mut self, name: &str, least: usize, most: usize) -> usize {
        let allowed = format!("a number from {least} to {most}");
        self.read(name, &allowed, |text| between(text, least, most))
    }

    fn time(&mut self, name: &str) -> Duration {
        let allowed =
            "a time from 1ms to 30 days, such as 10s, 500ms or 10min; a bare number is milliseconds";
        self.read(name, allowed, |text| {
            let time = match text.parse() {
                Ok(bare) => Duration::from_millis(bare),
                Err(_) => humantime::parse_duration(text).ok()?,
            };
            let most = Duration::from_secs(30 * 24 * 3600);
            (Duration::from_millis(1)..=most).contains(&time).then_some(time)
        })
    }

    fn size(&mut self, name: &str, least: u64) -> u64 {
        let allowed = format!("a size from {least} bytes, such as 256MiB or 1GiB; a bare number is bytes");
        self.read(name, &allowed, |text| size(text).filter(|size| *size >= least))
    }

    fn finish(mut self, mut config: Config) -> Result<Config, Mistakes> {
        config.limits.ceiling.output = config.limits.default.output;
        if !config.host.is_loopback() && !config.allow_anonymous {
            self.mistakes.push(mistake(
                "HOST",
                &config.host.to_string(),
                "anybody who reaches this address could run code here; a loopback address, or ALLOW_ANONYMOUS=true \
                 if that is what you want",
            ));
        }
        let (default, ceiling) = (&config.limits.default, &config.limits.ceiling);
        let pairs = [
            ("WALL_TIME", default.wall_time > ceiling.wall_time),
            ("CPU_TIME", default.cpu_time > ceiling.cpu_time),
            ("COMPILE_TIME", default.compile_time > ceiling.compile_time),
            ("MEMORY", default.memory > ceiling.memory),
            ("PROCESSES", default.processes > ceiling.processes),
        ];
        for (name, above) in pairs {
            if above {
                let value = self.variables.get(name).map_or("the default", String::as_str);
                let allowed = format!("at most MAX_{name}, which is lower");
                self.mistakes.push(mistake(name, value, &allowed));
            }
        }
        if self.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(self.mistakes)) }
    }
}

fn mistake(variable: &str, value: &str, allowed: &str) -> Mistake {
    Mistake { variable: variable.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn between(text: &str, least: usize, most: usize) -> Option<usize> {
    text.parse().ok().filter(|count| (least..=most).contains(count))
}

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn size(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

fn cors_origin(text: &str) -> Option<CorsOrigin> {
    let origins = list(text);
    if origins.is_empty() {
        return Some(CorsOrigin::Localhost);
    }
    if origins.iter().any(|origin| origin == "*") {
        return (origins.len() == 1).then_some(CorsOrigin::Any);
    }
    let origin = |text: &String| {
        text.strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))
            .is_some_and(|host| !host.is_empty() && !host.contains('/'))
    };
    origins.iter().all(origin).then_some(CorsOrigin::List(origins))
}

fn state_dir(variables: &HashMap<String, String>) -> PathBuf {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("STATE_DIR") {
        return folder.into();
    }
    let base = match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => PathBuf::from(state),
        (None, Some(home)) => PathBuf::from(home).join(".local/state"),
        (None, None) => PathBuf::from("/var/lib"),
    };
    base.join("online-compiler")
}

/// What `.env.example` holds: every setting with its default, commented out.
#[cfg(test)]
fn example() -> String {
    let header = "# Copy to .env and change what you need. Every line shows the default.\n\
                  # The environment wins over this file. Times: 10s, 500ms, 10min; a bare number is milliseconds.\n\
                  # Sizes: 256MiB, 1GiB; a bare number is bytes.\n";
    SETTINGS.iter().fold(header.to_owned(), |text, setting| {
        format!("{text}\n# {}\n#{}={}\n", setting.about, setting.name, setting.default)
    })
}

/// The settings for `--help`, name and default beside what they are for.
pub fn help() -> String {
    let rows: Vec<String> = SETTINGS
        .iter()
        .map(|setting| match setting.default {
            "" => format!("  {:<18} {}", setting.name, setting.about),
            default => format!("  {:<18} {} [{default}]", setting.name, setting.about),
        })
        .collect();
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let variables =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::from_variables(&variables)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = read(&[("PORT", "")]).expect("defaults are possible");
        assert_eq!(config.host.to_string(), "127.0.0.1");
        assert_eq!(config.port, 3000);
        assert_eq!(config.limits.default.wall_time, Duration::from_secs(10));
        assert_eq!(config.limits.default.memory, 256 * MIB);
        assert_eq!(config.limits.ceiling.memory, 1024 * MIB);
        assert_eq!(config.languages.len(), 5);
        assert_eq!(config.result_retention, Duration::from_secs(600));
    }

    #[test]
    fn the_example_file_lists_every_setting_with_its_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
        let file = std::fs::read_to_string(path).expect(".env.example is there");
        assert!(file == example(), "it should be:\n{}", example());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let Mistakes(mistakes) = read(&[
            ("PORT", "70000"),
            ("WALL_TIME", "ten seconds"),
            ("MEMORY", "-5"),
            ("EXPOSE_COMMANDS", "maybe"),
            ("CORS_ORIGIN", "example.org"),
            ("CPU_TIME", "2min"),
        ])
        .expect_err("mistakes");
        let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let expected = ["CORS_ORIGIN", "PORT", "WALL_TIME", "MEMORY", "EXPOSE_COMMANDS", "CPU_TIME"];
        assert_eq!(mistakes.len(), expected.len(), "{told:?}");
        for name in expected {
            assert!(told.iter().any(|line| line.starts_with(name)), "{name}: {told:?}");
        }
        assert!(told.iter().any(|line| line.contains("70000") && line.contains("65535")));
    }

    #[test]
    fn an_open_address_needs_a_word_of_consent() {
        let refused = read(&[("HOST", "0.0.0.0")]).expect_err("refused").to_string();
        assert!(refused.contains("ALLOW_ANONYMOUS"), "{refused}");
        assert!(read(&[("HOST", "0.0.0.0"), ("ALLOW_ANONYMOUS", "true")]).is_ok());
    }

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        let config =
            read(&[("WALL_TIME", "1500"), ("CPU_TIME", "2 s"), ("MEMORY", "128 MiB"), ("DISK", "1048576")])
                .expect("possible");
        assert_eq!(config.limits.default.wall_time, Duration::from_millis(1500));
        assert_eq!(config.limits.default.cpu_time, Duration::from_secs(2));
        assert_eq!(config.limits.default.memory, 128 * MIB);
        assert_eq!(config.disk, MIB);
    }
}
