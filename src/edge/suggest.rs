//! "Did you mean": the known name that is nearest to a wrong one.

/// The one of `known` that is nearest to `name`, where it is near enough to be meant: at most two edits
/// (a swap of neighbours is one), or one in three letters of a long name; capitals do not count.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_a_guess_is_not() {
        let known = ["listen", "pane", "policies"];
        for (name, near) in [("lisen", Some("listen")), ("Pane", Some("pane")), ("polices", Some("policies")), ("port", None), ("x", None)] {
            assert_eq!(closest(name, known), near, "{name}");
        }
    }
}
