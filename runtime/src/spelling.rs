//! Spelling: the known word that a wrong one probably means.

/// Words that are less alike than this have nothing to do with each other. `sql` and `url` are at 0.33, `wach` and
/// `watch` at 0.8.
const LIKENESS_MIN: f64 = 0.6;

/// The known word that is most like `word`, if any is.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(word, known), *known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["build", "component", "watch"];
        assert_eq!(nearest("componnet", &known), Some("component"));
        assert_eq!(nearest("wach", &known), Some("watch"));
        assert_eq!(nearest("database", &known), None);
        assert_eq!(nearest("build", &[]), None);
    }
}
