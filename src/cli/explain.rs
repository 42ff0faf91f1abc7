//! `online-compiler explain LANGUAGE FILE`: the docker command that runs a file, ready to paste.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::{Chain, complain, say};
use crate::config::Config;
use crate::engine::argv::{self, Sandbox};
use crate::engine::volume::AgentBinary;
use crate::installation::Identity;
use crate::language::Languages;
use crate::protocol::File;
use crate::submission::Request;
use crate::{runner, server};

/// The uid of a pasted container: none of a seat's, so that the two never share limits.
const UID: u32 = 61_999;

pub async fn run(config: &Config, language: &str, path: &Path, args: Vec<String>) -> ExitCode {
    let source = match std::fs::read(path) {
        Ok(source) => source,
        Err(error) => return complain(&format!("{} cannot be read: {error}", path.display())),
    };
    let rules = match server::rules(config) {
        Ok(rules) => rules,
        Err(error) => return complain(&Chain(&error)),
    };
    let name = name_in_box(&rules.languages, language, path, &source);
    let request = Request {
        language: language.to_owned(),
        files: vec![File { name, content: source.into() }],
        args,
        ..Request::default()
    };
    let submission = match rules.check(request) {
        Ok(submission) => submission,
        Err(invalid) => return complain(&invalid),
    };
    let prepared = async {
        let identity = Identity::claim(&config.state_dir)
            .map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
        let agent = AgentBinary::of_this_process().map_err(|error| error.to_string())?;
        let installation = server::installation(config, &identity, &agent);
        let image = &submission.language.image;
        agent.install(&installation, image, false).await.map_err(|error| Chain(&error).to_string())?;
        Ok::<_, String>(installation)
    };
    let installation = match prepared.await {
        Ok(installation) => installation,
        Err(sentence) => return complain(&sentence),
    };
    let sandbox = Sandbox {
        name: String::new(),
        language: submission.language.id.clone(),
        image: submission.language.image.clone(),
        uid: UID,
        memory: submission.limits.memory,
        processes: submission.limits.processes,
        expires: SystemTime::now(),
    };
    let printed = runner::printed(&argv::run(&installation, &sandbox), &submission);
    say(&printed.trim_end());
    ExitCode::SUCCESS
}

/// The file keeps its name, unless the language wants another for it (Java's public classes).
fn name_in_box(languages: &Languages, language: &str, path: &Path, source: &[u8]) -> String {
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or("main");
    match languages.find(language) {
        Some(language) if language.renames(own) => language.name_for_code(source),
        _ => own.to_owned(),
    }
}
