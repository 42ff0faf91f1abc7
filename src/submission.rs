//! What a client asks for, checked: from here on nothing about a request can be wrong any more.

use std::collections::HashSet;
use std::sync::Arc;

use crate::language::{Language, Languages, Plan};
use crate::limits::{LimitPolicy, Limits, WantedLimits};
use crate::output::Compare;
use crate::protocol::{File, Job, Run, Stage, Work};

/// A request as it came, in the core's own types.
#[derive(Debug, Default)]
pub struct Request {
    pub language: String,
    pub code: Option<String>,
    pub files: Vec<File>,
    pub entrypoint: Option<String>,
    pub args: Vec<String>,
    pub input: Vec<u8>,
    pub interactive: bool,
    pub limits: WantedLimits,
    pub tests: Option<Vec<TestCase>>,
    pub compare: Compare,
}

#[derive(Debug, Clone, Default)]
pub struct TestCase {
    pub name: String,
    pub input: Vec<u8>,
    pub args: Vec<String>,
    pub expected: Option<Vec<u8>>,
}

/// The caller's mistake, in a sentence that names the field, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error("{0}")]
    Field(String),
    #[error("{0}")]
    TooLarge(String),
}

/// What may be asked for.
#[derive(Debug, Clone)]
pub struct Rules {
    pub languages: Languages,
    pub limits: LimitPolicy,
    pub code_limit: u64,
    pub max_tests: usize,
}

/// A request that can be run.
#[derive(Debug)]
pub struct Submission {
    pub language: Arc<Language>,
    pub files: Vec<File>,
    pub plan: Plan,
    pub runs: Vec<Run>,
    pub tests: Option<Vec<TestCase>>,
    pub input: Vec<u8>,
    pub interactive: bool,
    pub limits: Limits,
    pub compare: Compare,
}

/// The longest name of a file, in bytes, as most file systems have it for one component.
const LONGEST_NAME: usize = 255;

/// Each takes at least a page of the work folder, whatever it holds.
const MOST_FILES: usize = 500;

impl Rules {
    /// What memory a language's containers have unless a request says otherwise.
    pub fn default_memory(&self, language: &Language) -> u64 {
        let own = language.memory.unwrap_or(0);
        self.limits.default.memory.max(own).min(self.limits.ceiling.memory)
    }

    pub fn check(&self, request: Request) -> Result<Submission, Invalid> {
        let Request {
            language,
            code,
            mut files,
            entrypoint,
            args,
            input,
            interactive,
            limits,
            tests,
            compare,
        } = request;
        let language = self.languages.find(&language).ok_or_else(|| {
            let known = self.languages.known();
            Invalid::Field(format!("language {} is not known; there are: {known}", shown(&language)))
        })?;
        if let Some(code) = code {
            if code.is_empty() && files.is_empty() {
                return Err(field("code is empty; it must hold the program's source"));
            }
            if !code.is_empty() {
                let name = language.name_for_code(code.as_bytes());
                files.insert(0, File { name, content: code.into_bytes().into() });
            }
        } else if files.is_empty() {
            return Err(field("code is missing; it must hold the program's source"));
        }
        self.check_files(&files)?;
        check_args("args", &args)?;
        let limits = self
            .limits
            .resolve(&limits, self.default_memory(language))
            .map_err(|error| Invalid::Field(error.to_string()))?;
        let plan = language
            .plan(&files, entrypoint.as_deref(), limits.memory)
            .map_err(|error| Invalid::Field(error.to_string()))?;
        let runs = match &tests {
            None => vec![Run { args, input: None }],
            Some(tests) => self.check_tests(tests, &args, &input, interactive)?,
        };
        let language = Arc::clone(language);
        Ok(Submission { language, files, plan, runs, tests, input, interactive, limits, compare })
    }

    fn check_files(&self, files: &[File]) -> Result<(), Invalid> {
        if files.len() > MOST_FILES {
            return Err(Invalid::Field(format!(
                "files has {} entries; at most {MOST_FILES} are allowed",
                files.len()
            )));
        }
        let size: usize = files.iter().map(|file| file.content.as_bytes().len()).sum();
        if size as u64 > self.code_limit {
            return Err(Invalid::TooLarge(format!(
                "code and files hold {size} bytes; at most {} are allowed",
                self.code_limit
            )));
        }
        let mut names = HashSet::new();
        for file in files {
            check_name(&file.name)?;
            if !names.insert(file.name.as_str()) {
                return Err(Invalid::Field(format!(
                    "files has {} twice; names must differ",
                    shown(&file.name)
                )));
            }
        }
        for file in files {
            let folders = file.name.match_indices('/').map(|(at, _)| &file.name[..at]);
            if let Some(folder) = folders.into_iter().find(|folder| names.contains(folder)) {
                return Err(Invalid::Field(format!(
                    "files has {} both as a file and as the folder of {}",
                    shown(folder),
                    shown(&file.name)
                )));
            }
        }
        Ok(())
    }

    fn check_tests(
        &self,
        tests: &[TestCase],
        args: &[String],
        input: &[u8],
        interactive: bool,
    ) -> Result<Vec<Run>, Invalid> {
        if tests.is_empty() || tests.len() > self.max_tests {
            return Err(Invalid::Field(format!(
                "tests has {} entries; it must have from 1 to {}",
                tests.len(),
                self.max_tests
            )));
        }
        if interactive || !input.is_empty() {
            return Err(field(
                "tests bring their own input; neither input nor interactive can stand beside them",
            ));
        }
        tests
            .iter()
            .enumerate()
            .map(|(index, test)| {
                if test.name.len() > LONGEST_NAME {
                    return Err(Invalid::Field(format!(
                        "tests[{index}].name is {}; it may be {LONGEST_NAME} bytes long",
                        shown(&test.name)
                    )));
                }
                check_args(&format!("tests[{index}].args"), &test.args)?;
                // A test's own arguments follow those that all tests share.
                let args = args.iter().chain(&test.args).cloned().collect();
                Ok(Run { args, input: None })
            })
            .collect()
    }
}

impl Submission {
    /// What the agent is asked to do. `with_input` for people: the printed job carries all of its input.
    pub fn work(&self, with_input: bool) -> Work {
        let Plan { compile, run } = self.plan.clone();
        let stage = |argv, wall: std::time::Duration, cpu: std::time::Duration| Stage {
            argv,
            env: self.language.env.clone(),
            wall_time: millis(wall),
            cpu_time: millis(cpu),
            output: self.limits.output,
        };
        let Limits { wall_time, cpu_time, compile_time, .. } = self.limits;
        let mut runs = self.runs.clone();
        if with_input {
            let no_input = [self.input.clone()];
            let inputs = match &self.tests {
                Some(tests) => tests.iter().map(|test| test.input.clone()).collect(),
                None => no_input.to_vec(),
            };
            for (run, input) in runs.iter_mut().zip(inputs) {
                run.input = (!input.is_empty()).then(|| input.into());
            }
        }
        Work {
            job: Job {
                files: self.files.clone(),
                compile: compile.map(|argv| stage(argv, compile_time, compile_time)),
                run: stage(run, wall_time, cpu_time),
                fresh: self.runs.len() > 1,
            },
            runs,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn field(sentence: &str) -> Invalid {
    Invalid::Field(sentence.to_owned())
}

/// A value in a sentence, shortened.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST_NAME {
        "is longer than 255 bytes"
    } else if name.contains('\0') {
        "holds a NUL character"
    } else if name.starts_with('/') {
        "is absolute"
    } else if name.split('/').any(|part| part == "..") {
        "holds .."
    } else if name.split('/').any(|part| part.is_empty() || part == ".") {
        "has an empty part or a single dot"
    } else {
        return Ok(());
    };
    Err(Invalid::Field(format!(
        "file name {} {problem}; names are relative paths such as lib/util.py, at most 255 bytes",
        shown(name)
    )))
}

/// One argument may be so long, its NUL not counted (`MAX_ARG_STRLEN`, execve(2)); so may all together.
const LONGEST_ARGS: usize = 128 * 1024 - 1;

/// More than a kernel passes to a program would be refused there, with words that help nobody.
fn check_args(name: &str, args: &[String]) -> Result<(), Invalid> {
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(Invalid::Field(format!("{name} holds a NUL character, which no argument can")));
    }
    let bytes: usize = args.iter().map(String::len).sum();
    if args.len() > 1000 || bytes > LONGEST_ARGS {
        return Err(Invalid::Field(format!(
            "{name} has {} arguments of {bytes} bytes; at most 1000 of {LONGEST_ARGS} bytes are allowed",
            args.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rules() -> Rules {
        let limits = Limits {
            wall_time: Duration::from_secs(10),
            cpu_time: Duration::from_secs(10),
            compile_time: Duration::from_secs(30),
            memory: 256 << 20,
            output: 1 << 20,
            processes: 64,
        };
        let ids = ["python", "java", "cpp"].map(str::to_owned);
        Rules {
            languages: Languages::load(&ids, None).expect("valid"),
            limits: LimitPolicy { default: limits.clone(), ceiling: Limits { memory: 1 << 30, ..limits } },
            code_limit: 100,
            max_tests: 2,
        }
    }

    fn file(name: &str) -> File {
        File { name: name.into(), content: b"x".to_vec().into() }
    }

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request =
            Request { language: "python".into(), code: Some("print(1)".into()), ..Request::default() };
        change(&mut request);
        request
    }

    #[test]
    fn a_plain_request_is_one_run() {
        let submission = rules().check(request(|_| {})).expect("valid");
        assert_eq!(submission.plan.run, ["python3", "main.py"]);
        assert_eq!(submission.runs.len(), 1);
        assert!(!submission.work(false).job.fresh);
    }

    #[test]
    fn every_mistake_has_its_sentence() {
        let named = |name: &str| {
            let file = file(name);
            request(move |request| request.files = vec![file])
        };
        let table: Vec<(Request, &str)> = vec![
            (request(|r| r.language = "cobol".into()), "there are: python, java, cpp"),
            (request(|r| r.code = Some(String::new())), "code is empty"),
            (request(|r| r.code = None), "code is missing"),
            (request(|r| r.code = Some("x".repeat(101))), "at most 100"),
            (named("../x"), "holds .."),
            (named("/x"), "is absolute"),
            (named("a\0b"), "NUL"),
            (named(&"x".repeat(300)), "longer than 255"),
            (named("a//b"), "empty part"),
            (named("main.py"), "twice"),
            (request(|r| r.files = vec![file("a"), file("a/b")]), "both as a file and as the folder"),
            (request(|r| r.entrypoint = Some("none.py".into())), "none.py"),
            (request(|r| r.args = vec!["\0".into()]), "NUL"),
            (request(|r| r.tests = Some(vec![])), "from 1 to 2"),
            (
                request(|r| {
                    r.tests = Some(vec![TestCase::default()]);
                    r.interactive = true;
                }),
                "bring their own input",
            ),
        ];
        for (request, expected) in table {
            let error = rules().check(request).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error} / {expected}");
        }
    }

    #[test]
    fn a_language_may_have_more_memory_by_default() {
        let java = request(|r| {
            r.language = "java".into();
            r.code = Some("class A {}".into());
        });
        assert_eq!(rules().check(java).expect("valid").limits.memory, 512 << 20);
    }
}
