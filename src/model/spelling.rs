//! Texts of others in messages of ours: the word that was probably meant, and what can be shown of any text.

/// The first characters of a value, so that no message repeats a whole file. Control characters, which would move the
/// cursor of a terminal or break a line of a log, become U+FFFD.
pub(crate) fn shorten(text: &str) -> String {
    beginning(text, 60)
}

/// A message that may repeat keys or values of any length and with any characters: all of it that helps anyone.
pub(crate) fn on_one_line(message: &str) -> String {
    beginning(message, 400)
}

fn beginning(text: &str, most: usize) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut short: String = characters.by_ref().take(most).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

/// The known word nearest to `word`: at most a third of its letters wrong, case and separators aside.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a name of a hundred letters; the bound keeps the table below small.
    const LONGEST: usize = 64;
    let plain = |w: &str| letters(w).take(LONGEST).collect::<Vec<char>>();
    let meant = plain(word);
    known
        .into_iter()
        .map(|k| (distance(&meant, &plain(k)), k))
        .filter(|(wrong, k)| *wrong <= (k.len().max(meant.len()) / 3).max(1) && *wrong < meant.len().max(1))
        .min_by_key(|(wrong, _)| *wrong)
        .map(|(_, k)| k)
}

/// Whether two words are the same but for case and separators.
pub(crate) fn same_letters(a: &str, b: &str) -> bool {
    letters(a).eq(letters(b))
}

fn letters(word: &str) -> impl Iterator<Item = char> {
    word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

/// Whether `word` is another word than `known` and so near to it that it was probably meant: the same but for case and
/// separators, or one letter in five wrong; of fewer than five two that are swapped, or one that is typed twice. Digits make a name
/// of their own.
pub(crate) fn is_slip_of(word: &str, known: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (letters(word).collect(), letters(known).collect());
    let digits = |w: &[char]| w.iter().filter(|c| c.is_ascii_digit()).count();
    if word == known || a.len() > 64 || digits(&a) != digits(&b) {
        return false;
    }
    let wrong = distance(&a, &b);
    wrong <= b.len() / 5 || (wrong == 1 && b.len() < 5 && (sorted(&a) == sorted(&b) || (a.len() > b.len() && once(&a) == once(&b))))
}

fn sorted(word: &[char]) -> Vec<char> {
    let mut sorted = word.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Without the second of two letters that are the same.
fn once(word: &[char]) -> Vec<char> {
    let mut once = word.to_vec();
    once.dedup();
    once
}

/// How many letters must be inserted, deleted, replaced or swapped with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{is_slip_of, nearest};

    #[test]
    fn a_slip_is_nearer_than_another_name() {
        for (word, known, slip) in [
            ("CPU", "cpu", true),
            ("responseTime", "response_time", true),
            ("response_tme", "response_time", true),
            ("queue_dept", "queue_depth", true),
            ("connection", "connections", true),
            ("memroy", "memory", true),
            ("cpu", "cpu", false),
            ("cpuu", "cpu", true),
            ("ccpu", "cpu", true),
            ("pcu", "cpu", true),
            ("rsp", "rps", true),
            ("cpux", "cpu", false),
            ("cp", "cpu", false),
            ("ops", "rps", false),
            ("gpu", "cpu", false),
            ("memory_rss", "memory", false),
            ("queue_length", "queue_depth", false),
            ("connections_2", "connections", false),
        ] {
            assert_eq!(is_slip_of(word, known), slip, "{word} {known}");
        }
    }

    #[test]
    fn plausible_slips_are_understood_and_others_are_not() {
        let known = ["window", "staleAfter", "threshold", "track", "whenBlind", "scaleInBelow", "scaleOutAbove", "min", "max"];
        for (word, meant) in [
            ("windw", Some("window")),
            ("wnidow", Some("window")),
            ("stale_after", Some("staleAfter")),
            ("StaleAfter", Some("staleAfter")),
            ("treshold", Some("threshold")),
            ("thresholds", Some("threshold")),
            ("scaleInBellow", Some("scaleInBelow")),
            ("mim", Some("min")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
