//! Finds what `java` has to be told and Java's sources already say: the class that holds `main`, and the name
//! that a file must have for its public class. Reads tokens, not grammar: comments, strings, brackets and
//! the few words that matter.

use crate::protocol::File;

/// The types declared in a source file.
#[derive(Default)]
struct Types {
    package: String,
    list: Vec<Type>,
}

struct Type {
    name: String,
    /// The type around it.
    parent: Option<usize>,
    public: bool,
    has_main: bool,
}

/// The file name that javac demands, or that of the class with `main`.
pub fn file_name(source: &str) -> Option<String> {
    let types = types(source);
    let top = || types.list.iter().filter(|found| found.parent.is_none());
    let chosen = top().find(|found| found.public).or_else(|| top().find(|found| found.has_main))?;
    Some(format!("{}.java", chosen.name))
}

/// The class to start: the entry file's own if it has one, else the first of any file. `entrypoint` may only
/// be a file that exists. None when there is no class at all.
pub fn main_class(files: &[File], entrypoint: Option<&str>) -> Option<String> {
    let is_entry = |file: &&File| entrypoint.is_none_or(|name| file.name == name);
    let (entry, others): (Vec<&File>, Vec<&File>) =
        files.iter().filter(|file| file.name.ends_with(".java")).partition(is_entry);
    let sources = entry.into_iter().chain(others);
    let all: Vec<Types> =
        sources.map(|file| types(&String::from_utf8_lossy(file.content.as_bytes()))).collect();
    let find = |wanted: fn(&Type) -> bool| {
        all.iter().find_map(|types| Some(types.binary_name(types.list.iter().position(wanted)?)))
    };
    find(|found| found.has_main && found.parent.is_none())
        .or_else(|| find(|found| found.has_main))
        // Without any, `java` itself says what is wrong with the class that it is given.
        .or_else(|| find(|found| found.parent.is_none()))
}

/// All types that a source declares, in its order. One pass: sources are anybody's.
fn types(source: &str) -> Types {
    let tokens = tokens(source);
    let mut types = Types::default();
    // The types whose bodies we are in, each with the bracket depth of its body.
    let mut open: Vec<(usize, usize)> = Vec::new();
    // A type whose header we are in: the next bracket opens its body.
    let mut header = None;
    let mut depth: usize = 0;
    let (mut public, mut is_static) = (false, false);
    for (at, &token) in tokens.iter().enumerate() {
        let rest = &tokens[at + 1..];
        let next = rest.first().copied().unwrap_or_default();
        match token {
            "{" => {
                depth += 1;
                open.extend(header.take().map(|index| (index, depth)));
            }
            "}" => {
                depth = depth.saturating_sub(1);
                open.pop_if(|(_, body)| *body > depth);
            }
            "package" if types.package.is_empty() && types.list.is_empty() => {
                types.package = rest.iter().copied().take_while(|part| *part != ";").collect();
            }
            // `record` is a word like any other unless a name and a parameter list follow.
            "class" | "interface" | "enum" | "record"
                if is_name(next)
                    && (at == 0 || tokens[at - 1] != ".")
                    && (token != "record" || matches!(rest.get(1), Some(&"(" | &"<"))) =>
            {
                let parent = open.last().map(|&(index, _)| index);
                types.list.push(Type { name: next.to_owned(), parent, public, has_main: false });
                header = Some(types.list.len() - 1);
            }
            "main" if next == "(" && is_static => {
                if let Some(&(owner, body)) = open.last()
                    && body == depth
                    && takes_string_array(rest)
                {
                    types.list[owner].has_main = true;
                }
            }
            "public" => public = true,
            "static" => is_static = true,
            _ => {}
        }
        if matches!(token, ";" | "{" | "}") {
            (public, is_static) = (false, false);
        }
    }
    types
}

impl Types {
    /// As the JVM calls it: `package.Outer$Inner`.
    fn binary_name(&self, index: usize) -> String {
        let mut names = vec![self.list[index].name.as_str()];
        let mut outer = self.list[index].parent;
        while let Some(index) = outer {
            names.push(&self.list[index].name);
            outer = self.list[index].parent;
        }
        names.reverse();
        let name = names.join("$");
        if self.package.is_empty() { name } else { format!("{}.{name}", self.package) }
    }
}

/// More parameters than this no `main` has.
const LONGEST_PARAMETERS: usize = 64;

/// `String[] args`, `final String... args`, `java.lang.String args[]`.
fn takes_string_array(tokens: &[&str]) -> bool {
    let parameters = tokens.iter().copied().take(LONGEST_PARAMETERS).take_while(|token| *token != ")");
    let parameters: Vec<&str> = parameters.collect();
    parameters.contains(&"String")
        && !parameters.contains(&",")
        && (parameters.contains(&"[") || parameters.contains(&"."))
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$')
}

/// Words and single punctuation characters; comments, strings and character literals are left out.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.find("*/").map_or(rest.len(), |end| end + 4)
        } else if rest.starts_with("\"\"\"") {
            literal_length(rest, "\"\"\"")
        } else if first == '"' {
            literal_length(rest, "\"")
        } else if first == '\'' {
            literal_length(rest, "'")
        } else {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let length = if length == 0 { first.len_utf8() } else { length };
            tokens.push(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a literal that begins here and ends with the same quote, unless escaped.
fn literal_length(text: &str, quote: &str) -> usize {
    let mut at = quote.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(quote) {
            return at + quote.len();
        }
        at += c.len_utf8();
        if c == '\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main_of(sources: &[(&str, &str)], entrypoint: Option<&str>) -> Option<String> {
        let files: Vec<File> = sources
            .iter()
            .map(|(name, text)| File { name: (*name).into(), content: text.as_bytes().to_vec().into() })
            .collect();
        main_class(&files, entrypoint)
    }

    #[test]
    fn the_class_with_main_is_found_whatever_it_is_called() {
        let table = [
            ("class A { public static void main(String[] args) {} }", "A"),
            ("public class Ünï { static public void main(final String... a) {} }", "Ünï"),
            ("package a.b.c; class X { public static void main(java.lang.String args[]) {} }", "a.b.c.X"),
            ("class A {} class B { public static void main(String[] a) {} }", "B"),
            ("class A { static class In { public static void main(String[] a) {} } }", "A$In"),
            ("interface I { static void main(String[] a) {} }", "I"),
            ("enum E { X; public static void main(String[] a) {} }", "E"),
            ("record R(int x) { public static void main(String[] a) {} }", "R"),
            ("class G<T extends Comparable<T>> { public static void main(String[] a) {} }", "G"),
            ("class A { void f() { Runnable r = () -> {}; } public static void main(String[] a) {} }", "A"),
            (
                "@SuppressWarnings(\"x\") final class A { @Deprecated public static void main(String[] a) {} }",
                "A",
            ),
        ];
        for (source, expected) in table {
            let found = main_of(&[("x.java", source)], None);
            assert_eq!(found.as_deref(), Some(expected), "{source}");
        }
    }

    #[test]
    fn what_only_looks_like_main_is_passed_over() {
        let table = [
            "class A { /* public static void main(String[] a) {} */ }",
            "class A { // static void main(String[] a) {}\n }",
            "class A { String s = \"static void main(String[] a) {}\"; }",
            "class A { String s = \"\"\"\n static void main(String[] a) {} \\\"\"\" \"\"\"; }",
            "class A { void main(String[] a) {} }",
            "class A { static void main(int a) {} }",
            "class A { static { main(new String[0]); } }",
            "class A { char c = '\"'; char d = '\\''; }",
            "class",
            "",
        ];
        for source in table {
            assert!(types(source).list.iter().all(|found| !found.has_main), "{source}");
        }
    }

    #[test]
    fn hostile_sources_take_no_longer_than_others_of_their_length() {
        // Each of these took time or memory in the square of its length once; a megabyte would not come back.
        for word in ["class a{", "class a ", "package a ", "static main(", "public ", "{", "\"", "/*", "'"] {
            let source = word.repeat((1 << 20) / word.len());
            assert!(main_of(&[("x.java", &source)], None).is_none_or(|name| name.len() <= source.len()));
            file_name(&source);
        }
    }

    #[test]
    fn without_any_main_the_first_class_is_started() {
        let first = main_of(&[("x.java", "class A { class In {} } class B {}")], None);
        assert_eq!(first.as_deref(), Some("A"));
        assert_eq!(main_of(&[("x.java", "// nothing")], None), None);
    }

    #[test]
    fn the_entry_file_wins_over_the_others() {
        let a = "class A { public static void main(String[] a) {} }";
        let b = "class B { public static void main(String[] a) {} }";
        let files = [("A.java", a), ("B.java", b)];
        assert_eq!(main_of(&files, None).as_deref(), Some("A"));
        assert_eq!(main_of(&files, Some("B.java")).as_deref(), Some("B"));
    }

    #[test]
    fn a_file_is_named_after_its_public_class_else_after_main() {
        let both = "class A { public static void main(String[] a) {} } public class B {}";
        assert_eq!(file_name(both).as_deref(), Some("B.java"));
        let plain = "class Z {} class A { public static void main(String[] a) {} }";
        assert_eq!(file_name(plain).as_deref(), Some("A.java"));
        assert_eq!(file_name("int x = Foo.class;"), None);
    }
}
