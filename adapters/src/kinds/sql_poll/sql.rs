//! The statements of polling: pages behind a composite cursor, the same for every database.

use super::session::{Column, Dialect, Param, Relation, Statement};

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin<'a> {
    /// With the first row.
    First,
    /// With the first row whose first cursor column has this value or a later one.
    At(&'a str),
    /// Behind the row with these cursor values.
    After(&'a [String]),
}

/// What a page is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// From where.
    pub relation: &'a Relation,
    /// All columns.
    pub columns: &'a [Column],
    /// Which of them are the cursor, in order.
    pub cursor: &'a [usize],
    /// Where it begins.
    pub begin: Begin<'a>,
    /// The furthest row read before.
    pub furthest: Option<&'a [String]>,
    /// The first cursor column never lies before this value.
    pub floor: Option<&'a str>,
    /// Most rows.
    pub rows: u32,
}

struct Writer<'a> {
    dialect: &'a dyn Dialect,
    params: Vec<Param>,
}

impl Writer<'_> {
    fn value(&mut self, column: &Column, text: &str) -> Result<String, String> {
        let (expression, param) = self.dialect.value(column, text)?;
        self.params.push(param);
        Ok(expression.replace("{}", &self.dialect.placeholder(self.params.len())))
    }

    fn relation(&mut self, ask: &Ask<'_>) -> Result<String, String> {
        let first = ask.cursor.first().and_then(|c| ask.columns.get(*c));
        match ask.relation {
            Relation::Table(parts) => Ok(table(self.dialect, parts)),
            Relation::Query(query) => {
                let at = match ask.begin {
                    Begin::First => None,
                    Begin::At(value) => Some(value),
                    Begin::After(values) => values.first().map(String::as_str),
                };
                let mut text = String::new();
                for piece in pieces(query) {
                    match (piece, first, at) {
                        (Piece::Text(piece), _, _) => text.push_str(piece),
                        (Piece::Cursor, Some(column), Some(at)) => text.push_str(&self.value(column, at)?),
                        (Piece::Cursor, _, _) => text.push_str("NULL"),
                    }
                }
                Ok(format!("({text})"))
            }
        }
    }

    /// `(a, b) > (x, y)`, written so that an index is used.
    fn after(&mut self, ask: &Ask<'_>, values: &[String]) -> Result<String, String> {
        let columns: Vec<&Column> = ask.cursor.iter().filter_map(|c| ask.columns.get(*c)).collect();
        if columns.len() != values.len() {
            return Err(format!("the position has {} values, the cursor {} columns", values.len(), columns.len()));
        }
        let name = |c: &Column| format!("q.{}", self.dialect.quote(&c.name));
        let names: Vec<String> = columns.iter().map(|c| name(c)).collect();
        if self.dialect.compares_rows() {
            let mut list = Vec::new();
            for (column, value) in columns.iter().zip(values) {
                list.push(self.value(column, value)?);
            }
            return Ok(format!("({}) > ({})", names.join(", "), list.join(", ")));
        }
        let mut text = String::new();
        for (n, (column, value)) in columns.iter().zip(values).enumerate() {
            let (Some(name), last) = (names.get(n), n + 1 == columns.len()) else { continue };
            let at_least = self.value(column, value)?;
            if last {
                text.push_str(&format!("{name} > {at_least}"));
            } else {
                let (more, same) = (self.value(column, value)?, self.value(column, value)?);
                text.push_str(&format!("{name} >= {at_least} AND ({name} > {more} OR ({name} = {same} AND "));
            }
        }
        text.push_str(&"))".repeat(columns.len() - 1));
        Ok(text)
    }
}

/// A table's name, quoted.
pub(crate) fn table(dialect: &dyn Dialect, parts: &[String]) -> String {
    parts.iter().map(|p| dialect.quote(p)).collect::<Vec<_>>().join(".")
}

/// A statement that reads one page in the order of the cursor. The error is one sentence.
pub(crate) fn page(dialect: &dyn Dialect, ask: &Ask<'_>) -> Result<Statement, String> {
    let mut writer = Writer { dialect, params: Vec::new() };
    let mut cells = Vec::new();
    for column in ask.columns {
        cells.push(dialect.cell(column, &format!("q.{}", dialect.quote(&column.name))));
    }
    // The order of the placeholders is the order of the text: what is past, the relation, the condition.
    let past = match ask.furthest {
        Some(values) => writer.after(ask, values)?,
        None => "1 = 1".to_owned(),
    };
    let relation = writer.relation(ask)?;
    let names: Vec<String> = ask
        .cursor
        .iter()
        .filter_map(|c| ask.columns.get(*c))
        .map(|c| format!("q.{}", dialect.quote(&c.name)))
        .collect();
    let mut condition = match (ask.begin, ask.cursor.first().and_then(|c| ask.columns.get(*c))) {
        (Begin::After(values), _) => writer.after(ask, values)?,
        (Begin::At(value), Some(column)) => {
            let value = writer.value(column, value)?;
            format!("q.{} >= {value}", dialect.quote(&column.name))
        }
        _ => "1 = 1".to_owned(),
    };
    if let (Some(floor), Some(column)) = (ask.floor, ask.cursor.first().and_then(|c| ask.columns.get(*c))) {
        let floor = writer.value(column, floor)?;
        condition.push_str(&format!(" AND q.{} >= {floor}", dialect.quote(&column.name)));
    }
    for name in &names {
        condition.push_str(&format!(" AND {name} IS NOT NULL"));
    }
    let text = format!(
        "SELECT {}, CASE WHEN {past} THEN 1 ELSE 0 END FROM {relation} q WHERE {condition} ORDER BY {} LIMIT {}",
        cells.join(", "),
        names.join(", "),
        ask.rows
    );
    Ok(Statement { text, params: writer.params })
}

/// A statement that says, as 1 or 0, whether a row with the cursor values `at` lies behind `after` in the order of the
/// table's pages: the values take the table's types and collations. The error is one sentence.
pub(crate) fn behind(
    dialect: &dyn Dialect,
    relation: &Relation,
    columns: &[Column],
    cursor: &[usize],
    (at, after): (&[String], &[String]),
) -> Result<Statement, String> {
    let mut writer = Writer { dialect, params: Vec::new() };
    let ask = Ask { relation, columns, cursor, begin: Begin::First, furthest: None, floor: None, rows: 1 };
    let past = writer.after(&ask, after)?;
    let from = writer.relation(&ask)?;
    let named: Vec<&Column> = cursor.iter().filter_map(|c| columns.get(*c)).collect();
    let names: Vec<String> = named.iter().map(|c| dialect.quote(&c.name)).collect();
    let mut values = Vec::new();
    for (column, value) in named.into_iter().zip(at) {
        values.push(writer.value(column, value)?);
    }
    let text = format!(
        "SELECT CASE WHEN {past} THEN '1' ELSE '0' END FROM \
         (SELECT {} FROM {from} t WHERE 1 = 0 UNION ALL SELECT {}) q",
        names.join(", "),
        values.join(", ")
    );
    Ok(Statement { text, params: writer.params })
}

/// Text of a statement, or the place of the cursor in it.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Cursor,
}

const WORD: &str = ":cursor";

/// True when the statement names `:cursor`.
pub(crate) fn names_cursor(query: &str) -> bool {
    pieces(query).contains(&Piece::Cursor)
}

/// The statement with NULL where the cursor goes: for looking at its columns.
pub(crate) fn without_cursor(query: &str) -> String {
    let parts: Vec<&str> =
        pieces(query).iter().map(|p| if let Piece::Text(text) = p { text } else { "NULL" }).collect();
    parts.concat()
}

/// Splits a statement at `:cursor`, which is none within quotes and comments.
fn pieces(query: &str) -> Vec<Piece<'_>> {
    let bytes = query.as_bytes();
    let (mut out, mut from, mut at) = (Vec::new(), 0, 0);
    let skip_to = |at: usize, end: &str| {
        query.get(at..).and_then(|rest| rest.find(end)).map_or(bytes.len(), |n| at + n + end.len())
    };
    while let Some(b) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        at = match b {
            b'\'' => skip_to(at + 1, "'"),
            b'"' => skip_to(at + 1, "\""),
            b'`' => skip_to(at + 1, "`"),
            b'-' if rest.starts_with(b"--") => skip_to(at, "\n"),
            b'/' if rest.starts_with(b"/*") => skip_to(at + 2, "*/"),
            b':' if rest.starts_with(b"::") => at + 2,
            b':' if rest.starts_with(WORD.as_bytes()) => {
                let end = at + WORD.len();
                if bytes.get(end).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
                    end
                } else {
                    out.push(Piece::Text(query.get(from..at).unwrap_or_default()));
                    out.push(Piece::Cursor);
                    from = end;
                    end
                }
            }
            _ => at + 1,
        };
    }
    out.push(Piece::Text(query.get(from..).unwrap_or_default()));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{mysql::MYSQL, postgres::POSTGRES, session::Shape};
    use super::*;

    fn column(name: &str, type_name: &str) -> Column {
        Column { name: name.into(), type_name: type_name.into(), shape: Shape::Plain }
    }

    fn ask<'a>(relation: &'a Relation, columns: &'a [Column], begin: Begin<'a>) -> Ask<'a> {
        Ask { relation, columns, cursor: &[1, 0], begin, furthest: None, floor: None, rows: 9 }
    }

    #[test]
    fn a_composite_cursor_is_one_comparison_or_an_expanded_one() {
        let columns = [column("id", "bigint"), column("t\"s", "timestamp with time zone")];
        let after = ["2026".to_owned(), "7".to_owned()];
        let table = Relation::Table(vec!["public".into(), "load".into()]);
        let got = page(&POSTGRES, &ask(&table, &columns, Begin::After(&after))).unwrap();
        assert!(got.text.contains(r#"FROM "public"."load" q WHERE (q."t""s", q."id") > (CAST($1::text AS timestamp with time zone), CAST($2::text AS bigint))"#), "{}", got.text);
        assert!(got.text.ends_with(r#"ORDER BY q."t""s", q."id" LIMIT 9"#));
        assert_eq!(got.params, [Param::Text("2026".into()), Param::Text("7".into())]);
        let columns = [column("id", "bigint"), column("ts", "datetime")];
        let got = page(&MYSQL, &ask(&table, &columns, Begin::After(&after))).unwrap();
        assert!(got.text.contains("q.`ts` >= CAST(? AS DATETIME(6)) AND (q.`ts` > CAST(? AS DATETIME(6)) OR (q.`ts` = CAST(? AS DATETIME(6)) AND q.`id` > ?))"), "{}", got.text);
        assert_eq!(got.params.len(), 4);
        assert!(page(&POSTGRES, &ask(&table, &columns, Begin::After(&after[..1]))).is_err());
    }

    #[test]
    fn the_cursor_of_a_statement_stands_outside_of_quotes_and_comments() {
        let query = "select ':cursor', a::text, \":cursor\" -- :cursor\n /* :cursor */ from t where a >= :cursor and b > :cursors";
        assert!(names_cursor(query));
        assert_eq!(without_cursor(query), query.replace(">= :cursor", ">= NULL"));
        assert!(!names_cursor("select ':cursor'") && !names_cursor("select 1 -- :cursor"));
        let columns = [column("id", "bigint"), column("ts", "date")];
        let relation = Relation::Query("select * from t where ts >= :cursor".into());
        let got = page(&POSTGRES, &ask(&relation, &columns, Begin::At("2026-01-01"))).unwrap();
        assert!(
            got.text.contains(
                "FROM (select * from t where ts >= CAST($1::text AS date)) q WHERE q.\"ts\" >= CAST($2::text AS date)"
            ),
            "{}",
            got.text
        );
    }
}
