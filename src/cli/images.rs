//! `online-compiler images`: builds what is missing or outdated, showing docker's progress.

use std::process::ExitCode;

use super::{Chain, complain, say};
use crate::config::Config;
use crate::engine::images::{self, ImageState};
use crate::server;

pub async fn run(config: &Config) -> ExitCode {
    let rules = match server::rules(config) {
        Ok(rules) => rules,
        Err(error) => return complain(&Chain(&error)),
    };
    let mut failed = false;
    for language in rules.languages.iter() {
        let state = match images::state(&config.docker, language).await {
            Ok(state) => state,
            Err(error) => return complain(&Chain(&error)),
        };
        let (image, reason) = match state {
            ImageState::Ready => continue,
            ImageState::Missing => (&language.image, "is missing"),
            ImageState::Outdated => (&language.image, "is outdated"),
        };
        if !images::can_build(language) {
            failed = true;
            complain(&format!("{image} {reason}; get it with: {} pull {image}", config.docker));
            continue;
        }
        say(&format!("{image} {reason} and is built"));
        if let Err(error) = images::build(&config.docker, language, |line| say(&format!("  {line}"))).await {
            failed = true;
            complain(&Chain(&error));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
