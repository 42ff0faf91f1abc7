//! Languages as data: an image, the commands that compile and run a file, and what a client is shown.
//! Adding one is an entry in a TOML file; code here knows only how to fill in the commands.

mod java;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::protocol::File;

/// The languages that come with the binary.
const BUILT_IN: &str = include_str!("languages.toml");

#[derive(Debug, Clone, PartialEq)]
pub struct Language {
    pub id: String,
    pub name: String,
    pub version: String,
    /// Prints the version, to be held against `version`.
    pub version_command: Vec<String>,
    pub aliases: Vec<String>,
    pub image: String,
    /// What `code` is called when the request does not say.
    pub file_name: String,
    compile: Option<Vec<String>>,
    run: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub sample: String,
    /// Default memory in bytes, where it is more than the server's own default.
    pub memory: Option<u64>,
    rule: Rule,
    /// Its image is one that this project builds.
    pub built_in: bool,
}

/// How the thing to start is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rule {
    /// The first file, or the one that the request names.
    #[default]
    File,
    /// The class that holds `main`.
    Java,
}

/// An entry of a TOML file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    version_command: Vec<String>,
    #[serde(default)]
    aliases: Vec<String>,
    image: String,
    file: String,
    compile: Option<Vec<String>>,
    run: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    sample: String,
    memory: Option<bytesize::ByteSize>,
    #[serde(default)]
    rule: Rule,
}

/// Why a request's files cannot be run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("entrypoint {0:?} is not one of the files")]
    UnknownEntrypoint(String),
}

/// The commands for one request's files.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub compile: Option<Vec<String>>,
    pub run: Vec<String>,
}

/// Why a languages file is refused.
#[derive(Debug, thiserror::Error)]
pub enum LanguagesError {
    #[error("{path} cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {source}")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("{path}: language {id:?} {problem}")]
    Entry { path: String, id: String, problem: String },
    #[error("LANGUAGES names {unknown:?}, which does not exist; there are: {known}")]
    Unknown { unknown: String, known: String },
    #[error("the name {name:?} belongs to both {first:?} and {second:?}")]
    Clash { name: String, first: String, second: String },
}

impl Language {
    /// What `code` is to be called. Java's compiler wants a public class in a file of its name.
    pub fn name_for_code(&self, code: &[u8]) -> String {
        match self.rule {
            Rule::File => self.file_name.clone(),
            Rule::Java => {
                java::file_name(&String::from_utf8_lossy(code)).unwrap_or_else(|| self.file_name.clone())
            }
        }
    }

    /// Whether a file on its own has to be given another name before it can be run.
    pub fn renames(&self, name: &str) -> bool {
        self.rule == Rule::Java || ending(name) != ending(&self.file_name)
    }

    pub fn compiled(&self) -> bool {
        self.compile.is_some()
    }

    /// The commands that compile and run these files. The first file is the one that is run, unless
    /// `entrypoint` names another. `memory` is the container's, in bytes.
    pub fn plan(&self, files: &[File], entrypoint: Option<&str>, memory: u64) -> Result<Plan, PlanError> {
        let entry = match entrypoint {
            None => files.first(),
            Some(name) => Some(
                files
                    .iter()
                    .find(|file| file.name == name)
                    .ok_or_else(|| PlanError::UnknownEntrypoint(name.to_owned()))?,
            ),
        };
        let entry_name = entry.map_or(self.file_name.as_str(), |file| file.name.as_str());
        let ending = ending(&self.file_name);
        // The entry comes first, as on a command line written by hand.
        let others = files.iter().map(|file| file.name.as_str()).filter(|name| *name != entry_name);
        let sources: Vec<&str> =
            std::iter::once(entry_name).chain(others.filter(|name| self::ending(name) == ending)).collect();
        let main = match self.rule {
            Rule::File => entry_name.to_owned(),
            Rule::Java => java::main_class(files, entrypoint).unwrap_or_else(|| stem(entry_name).to_owned()),
        };
        let fill = |command: &Vec<String>| fill(command, entry_name, &sources, &main, memory);
        Ok(Plan { compile: self.compile.as_ref().map(fill), run: fill(&self.run) })
    }
}

/// Fills in the placeholders. A file name that begins with a dash is no option, one with an at sign no list of
/// arguments.
fn fill(command: &[String], file: &str, sources: &[&str], main: &str, memory: u64) -> Vec<String> {
    let safe = |name: &str| match name.starts_with(['-', '@']) {
        true => format!("./{name}"),
        false => name.to_owned(),
    };
    let mut filled = Vec::new();
    for word in command {
        if word == "{sources}" {
            filled.extend(sources.iter().map(|name| safe(name)));
        } else {
            let word = word
                .replace("{memory_mib}", &(memory >> 20).to_string())
                .replace("{main}", main)
                .replace("{file}", &safe(file));
            filled.push(word);
        }
    }
    filled
}

fn ending(name: &str) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

/// The languages that are on, looked up by id or alias.
#[derive(Debug, Clone)]
pub struct Languages {
    list: Vec<std::sync::Arc<Language>>,
}

impl Languages {
    /// The built-in languages that `chosen` names, and all of the operator's own file. An entry there with
    /// the id of a built-in language replaces it.
    pub fn load(chosen: &[String], own_file: Option<&Path>) -> Result<Languages, LanguagesError> {
        let mut all = parse(BUILT_IN, "the built-in languages", true)?;
        let mut wanted: Vec<String> = chosen.to_vec();
        if let Some(path) = own_file {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|source| LanguagesError::Read { path: shown.clone(), source })?;
            for language in parse(&text, &shown, false)? {
                all.retain(|other| other.id != language.id);
                if !wanted.contains(&language.id) {
                    wanted.push(language.id.clone());
                }
                all.push(language);
            }
        }
        let mut list = Vec::new();
        for id in &wanted {
            match all.iter().position(|language| &language.id == id) {
                Some(place) => list.push(std::sync::Arc::new(all.remove(place))),
                None if list.iter().any(|on: &std::sync::Arc<Language>| &on.id == id) => {}
                None => {
                    let known: Vec<_> = all.iter().map(|language| language.id.as_str()).collect();
                    return Err(LanguagesError::Unknown { unknown: id.clone(), known: known.join(", ") });
                }
            }
        }
        let languages = Languages { list };
        languages.check_names()?;
        Ok(languages)
    }

    fn check_names(&self) -> Result<(), LanguagesError> {
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for language in &self.list {
            for name in std::iter::once(&language.id).chain(&language.aliases) {
                let name = name.to_lowercase();
                if let Some(first) = owners.insert(name.clone(), &language.id)
                    && first != language.id
                {
                    return Err(LanguagesError::Clash {
                        name,
                        first: first.to_owned(),
                        second: language.id.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    pub fn find(&self, name: &str) -> Option<&std::sync::Arc<Language>> {
        let is_named = |own: &String| own.eq_ignore_ascii_case(name);
        self.list.iter().find(|language| is_named(&language.id) || language.aliases.iter().any(is_named))
    }

    pub fn iter(&self) -> impl Iterator<Item = &std::sync::Arc<Language>> {
        self.list.iter()
    }

    /// For sentences: `javascript, python, java`.
    pub fn known(&self) -> String {
        let ids: Vec<_> = self.list.iter().map(|language| language.id.as_str()).collect();
        ids.join(", ")
    }
}

fn parse(text: &str, path: &str, built_in: bool) -> Result<Vec<Language>, LanguagesError> {
    // toml's tables do not keep the order of the file; nothing here depends on it.
    let entries: BTreeMap<String, Entry> = toml::from_str(text)
        .map_err(|source| LanguagesError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    entries
        .into_iter()
        .map(|(id, entry)| {
            check(&id, &entry).map_err(|problem| LanguagesError::Entry {
                path: path.to_owned(),
                id: id.clone(),
                problem,
            })?;
            Ok(Language {
                name: entry.name.unwrap_or_else(|| id.clone()),
                id,
                version: entry.version,
                version_command: entry.version_command,
                aliases: entry.aliases,
                image: entry.image,
                file_name: entry.file,
                compile: entry.compile,
                run: entry.run,
                env: entry.env,
                sample: entry.sample.trim_start_matches('\n').to_owned(),
                memory: entry.memory.map(|memory| memory.as_u64()),
                rule: entry.rule,
                built_in,
            })
        })
        .collect()
}

fn check(id: &str, entry: &Entry) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+#-_.".contains(c);
    if id.is_empty() || !id.chars().all(plain) {
        return Err("needs an id of lowercase letters, digits and + # - _ .".to_owned());
    }
    if entry.run.is_empty() || entry.compile.as_ref().is_some_and(Vec::is_empty) {
        return Err("has an empty command".to_owned());
    }
    if entry.image.is_empty() || entry.image.starts_with('-') {
        return Err("has no usable image name".to_owned());
    }
    if entry.file.is_empty() || entry.file.contains('/') {
        return Err("needs a plain file name in file".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Languages {
        let ids = ["javascript", "python", "java", "cpp", "c"].map(str::to_owned);
        Languages::load(&ids, None).expect("the built-in languages are valid")
    }

    fn file(name: &str, text: &str) -> File {
        File { name: name.into(), content: text.as_bytes().to_vec().into() }
    }

    #[test]
    fn the_languages_come_in_the_order_they_are_named() {
        assert_eq!(built_in().known(), "javascript, python, java, cpp, c");
    }

    #[test]
    fn a_language_is_found_by_id_and_alias_in_any_case() {
        for name in ["cpp", "C++", "CC"] {
            assert_eq!(built_in().find(name).expect(name).id, "cpp");
        }
        assert!(built_in().find("cobol").is_none());
    }

    #[test]
    fn commands_hold_all_sources_with_the_entry_first() {
        let languages = built_in();
        let c = languages.find("c").expect("c");
        let files = [file("util.h", ""), file("util.c", ""), file("main.c", ""), file("-x.c", "")];
        let plan = c.plan(&files, Some("main.c"), 256 << 20).expect("planned");
        let compile = plan.compile.expect("compiled").join(" ");
        assert!(compile.ends_with("-o main main.c util.c ./-x.c -lm"), "{compile}");
        assert_eq!(plan.run, ["./main"]);
    }

    #[test]
    fn an_entrypoint_that_is_not_there_is_refused() {
        let languages = built_in();
        let python = languages.find("python").expect("python");
        let error = python.plan(&[file("a.py", "")], Some("b.py"), 0);
        assert_eq!(error, Err(PlanError::UnknownEntrypoint("b.py".into())));
    }

    #[test]
    fn java_code_is_named_after_its_public_class() {
        let languages = built_in();
        let java = languages.find("java").expect("java");
        let code = "public class Hello { public static void main(String[] a) {} }";
        assert_eq!(java.name_for_code(code.as_bytes()), "Hello.java");
        let plan = java.plan(&[file("Hello.java", code)], None, 0).expect("planned");
        assert_eq!(plan.run.last().map(String::as_str), Some("Hello"));
    }

    #[test]
    fn four_lines_add_a_language() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("languages.toml");
        let text = "[ruby]\nimage = \"ruby:3.3-slim\"\nfile = \"main.rb\"\nrun = [\"ruby\", \"{file}\"]\n";
        std::fs::write(&path, text).expect("written");
        let languages = Languages::load(&["c".to_owned()], Some(&path)).expect("valid");
        assert_eq!(languages.known(), "c, ruby");
        std::fs::write(&path, text.replace("file", "fiel")).expect("written");
        let error = Languages::load(&[], Some(&path)).expect_err("misspelt").to_string();
        assert!(error.contains("fiel"), "{error}");
    }
}
