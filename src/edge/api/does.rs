//! What a target does, in the words that page, terminal and logs share.

use crate::model::Verdict;

/// Why a decision is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A file stops all commands.
    Frozen,
    /// The policy's mode is Advise.
    Advises,
    /// The policy's mode is Off: nothing is decided.
    Off,
}

/// What a target does, in a word or a few: "scales out", "would scale out (advises)", "frozen (would scale out)", "off".
pub fn does(verdict: Option<Verdict>, held: Option<Held>) -> String {
    let (does, would) = match verdict {
        Some(Verdict::ScaleOut) => ("scales out", "would scale out"),
        Some(Verdict::ScaleIn) => ("scales in", "would scale in"),
        Some(Verdict::Hold) => ("holds", "would hold"),
        Some(Verdict::Blind) => ("blind", "blind"),
        Some(Verdict::Disabled) => ("left alone", "left alone"),
        Some(Verdict::Faulted) => ("faulted", "faulted"),
        Some(Verdict::Other) => ("unknown", "unknown"),
        None => ("undecided", "undecided"),
    };
    match held {
        Some(Held::Frozen) if matches!(verdict, Some(Verdict::ScaleOut | Verdict::ScaleIn)) => format!("frozen ({would})"),
        Some(Held::Frozen) => "frozen".to_owned(),
        Some(Held::Advises) if verdict.is_some() => format!("{would} (advises)"),
        Some(Held::Off) => "off".to_owned(),
        Some(Held::Advises) | None => does.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not carried out does not read as if it were.
    #[test]
    fn what_is_held_reads_so() {
        for (verdict, held, words) in [
            (Some(Verdict::ScaleOut), None, "scales out"),
            (Some(Verdict::ScaleOut), Some(Held::Advises), "would scale out (advises)"),
            (Some(Verdict::ScaleIn), Some(Held::Frozen), "frozen (would scale in)"),
            (Some(Verdict::Hold), Some(Held::Frozen), "frozen"),
            (Some(Verdict::Hold), Some(Held::Advises), "would hold (advises)"),
            (Some(Verdict::Blind), None, "blind"),
            (None, Some(Held::Advises), "undecided"),
            (None, None, "undecided"),
            (None, Some(Held::Off), "off"),
            (Some(Verdict::ScaleOut), Some(Held::Off), "off"),
        ] {
            assert_eq!(does(verdict, held), words);
        }
    }
}
