//! The named parameters of a statement, found in its text.

use crate::DatabaseError;

/// The names of the first statement's parameters without their sign, in SQLite's numbering: the order of their first
/// appearance.
///
/// # Errors
///
/// If it has parameters without a name.
pub(super) fn names_in(sql: &str) -> Result<Vec<&str>, DatabaseError> {
    let mut names: Vec<&str> = Vec::new();
    // With the sign: `:a` and `@a` are two parameters.
    let mut seen: Vec<&str> = Vec::new();
    let mut rest = sql;
    while let Some(start) = rest.find(SIGNIFICANT) {
        rest = rest.get(start..).unwrap_or_default();
        let length = match rest.as_bytes() {
            [b';', ..] => break,
            [b'?', ..] => {
                let message = "the statement has parameters without a name: give values by position";
                return Err(DatabaseError::Parameters(message.to_owned()));
            }
            [b':' | b'@' | b'$', ..] => {
                let length = name_length(rest);
                let name = rest.get(..length).filter(|name| name.len() > 1 && !seen.contains(name));
                seen.extend(name);
                names.extend(name.and_then(|name| name.get(1..)));
                length
            }
            _ => skipped(rest),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(names)
}

/// What may begin a parameter, hide one, or end the statement.
const SIGNIFICANT: [char; 11] = [':', '@', '$', '?', '\'', '"', '`', '[', '-', '/', ';'];

/// The length of a sign and the name behind it.
fn name_length(text: &str) -> usize {
    let is_part = |character: char| {
        character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
    };
    let signless = text.get(1..).unwrap_or_default();
    1 + signless.find(|character| !is_part(character)).unwrap_or(signless.len())
}

/// The length of a quoted text, a comment, or a single character that is neither.
fn skipped(text: &str) -> usize {
    let end = |from: usize, mark: &str| {
        let inner = text.get(from..).unwrap_or_default();
        inner.find(mark).map_or(text.len(), |at| from + at + mark.len())
    };
    match text.as_bytes() {
        // A doubled quote inside ends one text and begins the next, which comes to the same.
        [b'\'', ..] => end(1, "'"),
        [b'"', ..] => end(1, "\""),
        [b'`', ..] => end(1, "`"),
        [b'[', ..] => end(1, "]"),
        [b'-', b'-', ..] => end(2, "\n"),
        [b'/', b'*', ..] => end(2, "*/"),
        _ => 1,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_their_first_appearance() {
        assert_eq!(names_in("SELECT :b, @a, :b, $c_1 WHERE x=:größe").unwrap(), ["b", "a", "c_1", "größe"]);
        assert_eq!(names_in("SELECT :a, @a").unwrap(), ["a", "a"]);
        assert!(names_in("SELECT 1").unwrap().is_empty());
        assert!(names_in("").unwrap().is_empty());
    }

    #[test]
    fn what_is_quoted_or_commented_is_no_name() {
        let quoted = r#"SELECT ':a', 'it''s :b', ":c", `:d`, [:e] -- :f ?
            , /* :g ? */ 1 - 2 / :h"#;
        assert_eq!(names_in(quoted).unwrap(), ["h"]);
        assert!(names_in("SELECT 'never closed :a").unwrap().is_empty());
        assert!(names_in("SELECT 1 -- :a").unwrap().is_empty());
    }

    #[test]
    fn only_the_first_statement_counts() {
        assert_eq!(names_in("SELECT :a; SELECT :b, ?").unwrap(), ["a"]);
    }

    #[test]
    fn parameters_without_a_name_are_refused() {
        assert!(names_in("SELECT :a, ?").is_err());
        assert!(names_in("SELECT ?1").is_err());
    }
}
