//! Bytes on their way to people: cut only between characters, compared as judges do.

/// Cuts a stream of bytes into pieces none of which ends inside a UTF-8 character. Whatever is not UTF-8 passes
/// unchanged: each piece decodes by itself to what the whole would decode to.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl Splitter {
    /// What can be passed on now.
    pub fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        if all.is_empty() {
            all = bytes;
        } else {
            all.extend_from_slice(&bytes);
        }
        self.held = all.split_off(all.len() - unfinished(&all));
        all
    }

    /// The stream has ended: what was held back is all there is.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// The number of bytes at the end that begin a character and do not finish it.
fn unfinished(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(_) => return 0,
            Err(error) => match error.error_len() {
                None => return rest.len() - error.valid_up_to(),
                Some(invalid) => rest = &rest[error.valid_up_to() + invalid..],
            },
        }
    }
}

/// How a test's output is held against what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compare {
    /// White space at the end of lines and of the whole does not count.
    #[default]
    Trimmed,
    Exact,
}

impl Compare {
    pub fn matches(self, actual: &[u8], expected: &[u8]) -> bool {
        match self {
            Compare::Exact => actual == expected,
            Compare::Trimmed => trimmed_lines(actual).eq(trimmed_lines(expected)),
        }
    }
}

fn trimmed_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.trim_ascii_end().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_at_every_byte(text: &[u8]) {
        let whole = String::from_utf8_lossy(text);
        for at in 0..=text.len() {
            let mut splitter = Splitter::default();
            let pieces =
                [splitter.push(text[..at].to_vec()), splitter.push(text[at..].to_vec()), splitter.finish()];
            let decoded: String = pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect();
            assert_eq!(decoded, whole, "cut at {at}");
            assert_eq!(pieces.concat(), text, "no byte is lost or added");
        }
    }

    #[test]
    fn no_cut_falls_into_a_character() {
        cut_at_every_byte("aäÄ€𝄞x".as_bytes());
        cut_at_every_byte(b"\xff\xfe\xc3");
        cut_at_every_byte(b"\xf0\x9f\x98 \xe2\x82");
        cut_at_every_byte(b"\xc3\xc3\xa4\x80\x80\x80\x80");
    }

    #[test]
    fn a_character_in_single_bytes_comes_out_whole() {
        let mut splitter = Splitter::default();
        let pieces: Vec<_> = "€".bytes().map(|byte| splitter.push(vec![byte])).collect();
        assert_eq!(pieces, [b"".to_vec(), b"".to_vec(), "€".as_bytes().to_vec()]);
    }

    #[test]
    fn outputs_are_compared_as_asked() {
        let table: [(&str, &str, bool, bool); 6] = [
            ("a\nb\n", "a\nb", true, false),
            ("a  \nb\t\r\n\n\n", "a\nb", true, false),
            ("a\nb", "a\nb", true, true),
            (" a", "a", false, false),
            ("a\n\nb", "a\nb", false, false),
            ("", "\n", true, false),
        ];
        for (actual, expected, trimmed, exact) in table {
            let (a, e) = (actual.as_bytes(), expected.as_bytes());
            assert_eq!(Compare::Trimmed.matches(a, e), trimmed, "{actual:?} {expected:?}");
            assert_eq!(Compare::Exact.matches(a, e), exact, "{actual:?} {expected:?}");
        }
    }
}
