//! The architecture, kept: a module imports only from lower layers or from lines above its own, no file is longer
//! than 500 lines.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first; within a layer, a module may use those before it.
const LAYERS: &[&[&str]] = &[
    &["id", "limits", "protocol", "verdict", "language", "config", "metrics", "output"],
    &["agent", "admission", "engine", "installation"],
    &["reaper", "pool"],
    &["submission", "input", "execution", "store", "health", "session", "runner", "service"],
    &["web"],
    &["server", "cli"],
];

/// All that the agent may use: it is copied into every container.
const VOCABULARY: usize = 0;

fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, modules)| {
        modules.iter().position(|name| *name == module).map(|line| (layer, line))
    })
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top-level modules that a file names by `crate::`, in its own code; tests may look anywhere.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => group.split('}').next().unwrap_or_default().split(',').collect(),
        })
        .map(|path| {
            path.trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|module| !module.is_empty())
        .collect()
}

#[test]
fn a_module_imports_only_what_lies_below_it() {
    let root = source_folder();
    let mut violations = Vec::new();
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        if first == "lib" || first == "main" {
            continue;
        }
        let own =
            place(&first).unwrap_or_else(|| panic!("{first} has no layer; add it to LAYERS and lib.rs"));
        for used in used(&fs::read_to_string(&path).expect("readable")) {
            let Some(other) = place(&used) else {
                violations.push(format!("{} uses crate::{used}, which is no module", relative.display()));
                continue;
            };
            let agent_alone = first != "agent" || other.0 == VOCABULARY;
            if used != first && !(other < own && agent_alone) {
                violations.push(format!("{} uses crate::{used}, which is not below it", relative.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_order_in_lib_is_the_order_that_is_checked() {
    let lib = fs::read_to_string(source_folder().join("lib.rs")).expect("readable");
    let listed: Vec<_> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(listed, LAYERS.concat());
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for path in sources(&source_folder()).into_iter().chain(sources(&tests)) {
        let lines = fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= 500, "{} has {lines} lines", path.display());
    }
}
