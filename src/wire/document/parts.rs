//! A text cut into its documents, so that each is parsed on its own.

/// A piece of a text that holds one document.
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    /// How many lines of the whole text stand before it.
    pub(super) lines_before: usize,
}

/// Cuts a text into its documents. A line that begins with `---` begins one and a line that begins with `...` ends one, whatever
/// stands around them (YAML 1.2.2, rules 203 to 206): so a quote or a bracket that is not closed reaches no further.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let (mut parts, mut part) = (Vec::new(), Part { text, lines_before: 0 });
    // Where the next line begins in `part`, and whether something of a document stands before it.
    let (mut at, mut begun) = (0, false);
    for (number, line) in lines(text).enumerate() {
        let marks = |mark: &str| line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        let (begins, ends) = (marks("---"), marks("..."));
        if begins && begun {
            let (whole, rest) = part.text.split_at(at);
            parts.push(Part { text: whole, ..part });
            part = Part { text: rest, lines_before: number };
            at = 0;
        }
        at += line.len();
        // Comments and directives belong to what follows.
        begun |= begins || !(line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'));
        if ends {
            let (whole, rest) = part.text.split_at(at);
            parts.push(Part { text: whole, ..part });
            part = Part { text: rest, lines_before: number + 1 };
            (at, begun) = (0, false);
        }
    }
    parts.push(part);
    parts
}

/// The lines of a text with their ends, as the parser counts them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find(['\n', '\r']).map_or(rest.len(), |at| at + if rest[at..].starts_with("\r\n") { 2 } else { 1 });
        let (line, after) = rest.split_at(end);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}
