//! A docker command as data: one value that is executed and, for people, printed so that it can be pasted into a
//! shell.

use std::fmt;

/// A command line, program first.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    program: String,
    words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// Executed and printed.
    Plain(String),
    /// Executed only: names and labels, so that a paste neither clashes with a container of ours nor is swept
    /// away as one.
    Unprinted(String),
}

impl Invocation {
    pub fn new(program: &str) -> Self {
        Invocation { program: program.to_owned(), words: Vec::new() }
    }

    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(Word::Plain(word.into()));
        self
    }

    pub fn args<W: Into<String>>(self, words: impl IntoIterator<Item = W>) -> Self {
        words.into_iter().fold(self, Invocation::arg)
    }

    /// `--name value`, executed but not printed.
    pub fn unprinted(mut self, option: &str, value: impl Into<String>) -> Self {
        self.words.push(Word::Unprinted(option.to_owned()));
        self.words.push(Word::Unprinted(value.into()));
        self
    }

    pub fn program(&self) -> &str {
        &self.program
    }

    /// Everything after the program, as it is executed.
    pub fn argv(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| match word {
            Word::Plain(word) | Word::Unprinted(word) => word.as_str(),
        })
    }

    /// The line for a shell, with `input` as its standard input.
    pub fn with_input(&self, input: &str) -> String {
        // The end mark must not be a line of the document; JSON on one line cannot be one.
        format!("{self} <<'OC_JOB'\n{input}\nOC_JOB\n")
    }
}

/// The line for a shell, on one line.
impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.program))?;
        for word in &self.words {
            if let Word::Plain(word) = word {
                write!(f, " {}", quoted(word))?;
            }
        }
        Ok(())
    }
}

/// One word for a POSIX shell: as it is where that is safe, else in single quotes.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_executed_less_names_and_labels() {
        let invocation = Invocation::new("docker").args(["run", "--rm"]).unprinted("--name", "oc-1").args([
            "--env",
            "A=it's $HOME",
            "",
        ]);
        assert_eq!(
            invocation.argv().collect::<Vec<_>>(),
            ["run", "--rm", "--name", "oc-1", "--env", "A=it's $HOME", ""]
        );
        assert_eq!(invocation.to_string(), r"docker run --rm --env 'A=it'\''s $HOME' ''");
    }
}
