//! Tables of text, aligned for a terminal. Pure.

use serde_json::Value;

use super::text;

/// What lies between two columns.
const GAP: &str = "  ";

/// One field of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Null,
}

impl Cell {
    /// A text; what a terminal must not see in it is escaped.
    pub(super) fn text(text: &str) -> Self {
        Self { text: text::escaped(text), kind: Kind::Text }
    }

    /// A number or a size, aligned to the right.
    pub(super) fn number(text: String) -> Self {
        Self { text, kind: Kind::Number }
    }

    /// A value of the admin API: `NULL`, a number, a text, or a blob as `x'…'`.
    pub(super) fn value(value: &Value) -> Self {
        match value {
            Value::Null => Self { text: "NULL".to_owned(), kind: Kind::Null },
            Value::Number(number) => Self::number(number.to_string()),
            Value::String(text) => Self::text(text),
            other => match other.get("base16").and_then(Value::as_str) {
                Some(digits) => Self::text(&format!("x'{digits}'")),
                None => Self::text(&other.to_string()),
            },
        }
    }
}

/// The lines of a table: the columns' names, a rule, one line per row. Columns of numbers are aligned to the right.
pub(super) fn layout(columns: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let names: Vec<Cell> = columns.iter().map(|name| Cell::text(name)).collect();
    let mut shapes: Vec<Shape> = names.iter().map(Shape::of_name).collect();
    for row in rows {
        for (shape, cell) in shapes.iter_mut().zip(row) {
            shape.admit(cell);
        }
    }
    let rule = shapes.iter().map(|shape| Cell::text(&"-".repeat(shape.width))).collect();
    [&names, &rule].into_iter().chain(rows).map(|row| line(&shapes, row)).collect()
}

/// What is known of a column when all its cells have been seen.
struct Shape {
    width: usize,
    has_number: bool,
    has_text: bool,
}

impl Shape {
    fn of_name(name: &Cell) -> Self {
        Self { width: text::width(&name.text), has_number: false, has_text: false }
    }

    fn admit(&mut self, cell: &Cell) {
        self.width = self.width.max(text::width(&cell.text));
        self.has_number |= cell.kind == Kind::Number;
        self.has_text |= cell.kind == Kind::Text;
    }

    fn padded(&self, cell: &Cell) -> String {
        let padding = " ".repeat(self.width.saturating_sub(text::width(&cell.text)));
        if self.has_number && !self.has_text {
            format!("{padding}{}", cell.text)
        } else {
            format!("{}{padding}", cell.text)
        }
    }
}

fn line(shapes: &[Shape], cells: &[Cell]) -> String {
    let padded: Vec<String> = shapes.iter().zip(cells).map(|(shape, cell)| shape.padded(cell)).collect();
    padded.join(GAP).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(columns: &[&str], rows: Value) -> Vec<String> {
        let rows: Vec<Vec<Cell>> = rows
            .as_array()
            .into_iter()
            .flatten()
            .map(|row| row.as_array().into_iter().flatten().map(Cell::value).collect())
            .collect();
        layout(columns, &rows)
    }

    #[test]
    fn columns_are_aligned() {
        let lines = table(&["id", "name", "n"], json!([[1, "Ada", 1.5], [20, "漢字", null], [3, "", -10]]));
        assert_eq!(
            lines,
            [
                "id  name     n", //
                "--  ----  ----",
                " 1  Ada    1.5",
                "20  漢字  NULL",
                " 3         -10",
            ]
        );
    }

    #[test]
    fn a_column_of_numbers_and_texts_is_aligned_to_the_left() {
        assert_eq!(table(&["a"], json!([[1], ["long"]])), ["a", "----", "1", "long"]);
    }

    #[test]
    fn blobs_are_hexadecimal_and_escapes_are_escaped() {
        let lines = table(&["a\u{1b}"], json!([[{"base16": "00ff"}], ["\u{1b}]0;x\u{7}\n"]]));
        assert_eq!(lines, ["a\\u{1b}", "-----------------", "x'00ff'", "\\u{1b}]0;x\\u{7}\\n"]);
    }

    #[test]
    fn a_table_without_rows_has_its_columns() {
        assert_eq!(table(&["id", "name"], json!([])), ["id  name", "--  ----"]);
    }
}
