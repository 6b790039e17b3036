//! Splits a text into SQL statements, by the rules of `sqlite3_complete`
//! (<https://sqlite.org/c3ref/complete.html>): a statement ends at a semicolon outside quotes and comments, and a
//! trigger's at the semicolon behind its `END`. Pure, and no parser: SQLite judges the statements.

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// Its text, with its semicolon.
    pub(super) text: &'a str,
    /// The line that it begins in, from 1.
    pub(super) line: usize,
    /// Its first word.
    pub(super) keyword: &'a str,
}

impl Statement<'_> {
    /// Whether it begins or ends a transaction.
    pub(super) fn controls_transaction(&self) -> bool {
        let words = ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"];
        words.iter().any(|word| self.keyword.eq_ignore_ascii_case(word))
    }
}

/// The statements of a text, in order. Parts that are only space and comments are left out.
pub(super) fn split(text: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let mut state = State::Start;
    let mut keyword = "";
    let (mut begin, mut at) = (None, 0);
    while let Some(token) = Token::first_of(text.get(at..).unwrap_or_default()) {
        let end = at + token.text.len();
        if token.kind != Kind::Space && (begin.is_some() || token.kind != Kind::Semicolon) {
            if begin.is_none() {
                keyword = token.text;
            }
            let from = *begin.get_or_insert(at);
            state = state.after(&token);
            if state == State::Start {
                statements.extend(statement(text, from, end, keyword));
                begin = None;
            }
        }
        at = end;
    }
    statements
        .extend(begin.and_then(|from| statement(text.trim_end(), from, text.trim_end().len(), keyword)));
    statements
}

fn statement<'a>(text: &'a str, from: usize, end: usize, keyword: &'a str) -> Option<Statement<'a>> {
    let line = text.get(..from)?.bytes().filter(|byte| *byte == b'\n').count() + 1;
    Some(Statement { text: text.get(from..end)?, line, keyword })
}

/// Where in a statement the text is. A trigger's body holds semicolons that do not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Explain,
    Create,
    Other,
    Trigger,
    TriggerSemicolon,
    TriggerEnd,
}

impl State {
    fn after(self, token: &Token<'_>) -> Self {
        let is = |word: &str| token.kind == Kind::Word && token.text.eq_ignore_ascii_case(word);
        let semicolon = token.kind == Kind::Semicolon;
        match self {
            Self::Trigger | Self::TriggerSemicolon if semicolon => Self::TriggerSemicolon,
            Self::TriggerSemicolon if is("END") => Self::TriggerEnd,
            Self::TriggerEnd if semicolon => Self::Start,
            Self::Trigger | Self::TriggerSemicolon | Self::TriggerEnd => Self::Trigger,
            _ if semicolon => Self::Start,
            Self::Start if is("EXPLAIN") => Self::Explain,
            Self::Explain if is("QUERY") || is("PLAN") => Self::Explain,
            Self::Start | Self::Explain if is("CREATE") => Self::Create,
            Self::Create if is("TEMP") || is("TEMPORARY") => Self::Create,
            Self::Create if is("TRIGGER") => Self::Trigger,
            Self::Start | Self::Explain | Self::Create | Self::Other => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// White space and comments.
    Space,
    Semicolon,
    Word,
    /// Quoted texts and names, numbers, operators.
    Other,
}

struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

impl<'a> Token<'a> {
    fn first_of(rest: &'a str) -> Option<Self> {
        let first = rest.chars().next()?;
        let (kind, bytes) = match first {
            _ if first.is_ascii_whitespace() => (Kind::Space, first.len_utf8()),
            _ if rest.starts_with("--") => (Kind::Space, through(rest, 2, "\n")),
            _ if rest.starts_with("/*") => (Kind::Space, through(rest, 2, "*/")),
            ';' => (Kind::Semicolon, 1),
            // A doubled quote, which stands for one quote, reads as two quoted texts side by side.
            '\'' => (Kind::Other, through(rest, 1, "'")),
            '"' => (Kind::Other, through(rest, 1, "\"")),
            '`' => (Kind::Other, through(rest, 1, "`")),
            '[' => (Kind::Other, through(rest, 1, "]")),
            _ if is_of_word(first) => (Kind::Word, rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())),
            _ => (Kind::Other, first.len_utf8()),
        };
        Some(Self { kind, text: rest.get(..bytes)? })
    }
}

/// The length up to and with `end`, looked for behind the first bytes; all of it when there is no end.
fn through(rest: &str, opening_bytes: usize, end: &str) -> usize {
    let body = rest.get(opening_bytes..).unwrap_or_default();
    body.find(end).map_or(rest.len(), |at| opening_bytes + at + end.len())
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == '$' || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        split(text).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn one_statement_is_itself_with_or_without_a_semicolon() {
        assert_eq!(texts("SELECT 1"), ["SELECT 1"]);
        assert_eq!(texts(" SELECT 1 ; \n"), ["SELECT 1 ;"]);
        assert_eq!(texts("SELECT 1 -- why\n"), ["SELECT 1 -- why"]);
    }

    #[test]
    fn space_and_comments_are_no_statements() {
        for text in ["", " \n", ";", ";;\n;", "-- nothing", "/* a; b */ ;", "/* not closed; at all"] {
            assert!(split(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        for text in [
            "SELECT 'a;b', 'it''s; fine'",
            "SELECT \"a;b\"",
            "SELECT `a;b`, [c;d]",
            "SELECT 1 -- one; two\n+ 1",
            "SELECT /* ; ' */ 2",
            "SELECT 'not closed; at all",
        ] {
            assert_eq!(texts(text), [text]);
        }
    }

    #[test]
    fn statements_have_their_lines_and_keywords() {
        let statements = split("-- first\nSELECT 1;\n\n  insert into t values (';');SELECT 3");
        let parts: Vec<_> = statements.iter().map(|s| (s.line, s.keyword, s.text)).collect();
        assert_eq!(
            parts,
            [
                (2, "SELECT", "SELECT 1;"),
                (4, "insert", "insert into t values (';');"),
                (4, "SELECT", "SELECT 3"),
            ]
        );
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let trigger = "create temp trigger if not exists r after insert on t begin\n\
                       update t set n = case when n > 1 then 2 else 3 end;\n delete from u; end;";
        assert_eq!(texts(&format!("{trigger} SELECT 1;")), [trigger, "SELECT 1;"]);
        let explained = "EXPLAIN QUERY PLAN CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END;";
        assert_eq!(texts(explained), [explained]);
    }

    #[test]
    fn a_table_named_trigger_is_no_trigger() {
        let text = "CREATE TABLE \"trigger\" (a); SELECT 1;";
        assert_eq!(texts(text).len(), 2);
    }

    #[test]
    fn other_alphabets_are_cut_at_characters() {
        assert_eq!(texts("SELECT 'ä;漢' AS ö; SELECT €"), ["SELECT 'ä;漢' AS ö;", "SELECT €"]);
    }

    #[test]
    fn transaction_control_is_seen() {
        let control = |text| split(text).iter().any(Statement::controls_transaction);
        for text in [
            "BEGIN",
            "begin immediate;",
            "/* x */ Commit",
            "END;",
            "ROLLBACK TO a",
            "savepoint a",
            "RELEASE a",
        ] {
            assert!(control(text), "{text}");
        }
        for text in ["SELECT 'BEGIN'", "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;"] {
            assert!(!control(text), "{text}");
        }
    }
}
