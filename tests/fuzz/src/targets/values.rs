//! Values: for each a byte that chooses its type, and its bytes. They go through SQLite and through the admin API's JSON.

use std::cell::OnceCell;

use anyhow::{Context, Result, ensure};
use dormouse::control::values::{from_json, to_json};
use dormouse::database::{Profile, Value};

use super::world::World;

/// SQLite's limit for tenants.
const COLUMNS_MAX: usize = 100;

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

/// What is given is what comes back: through a statement's parameters, a table, and JSON.
///
/// # Errors
/// When it is not.
pub fn run(data: &[u8]) -> Result<()> {
    WORLD.with(|cell| {
        if cell.get().is_none() {
            let world = World::start()?;
            world.create()?;
            ensure!(cell.set(world).is_ok(), "made twice");
        }
        let values = decode(data);
        in_sqlite(cell.get().context("no world")?, &values)?;
        values.iter().try_for_each(in_json)
    })
}

fn in_sqlite(world: &World, values: &[Value]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let tenant = world.open(Profile::Tenant)?;
    let list = |each: fn(usize) -> String| (0..values.len()).map(each).collect::<Vec<_>>().join(",");
    let marks = list(|_| "?".to_owned());
    tenant.rows("BEGIN")?;
    tenant.rows(&format!("CREATE TABLE t({})", list(|index| format!("c{index}"))))?;
    for sql in [format!("SELECT {marks}"), format!("INSERT INTO t VALUES ({marks}) RETURNING *")] {
        let rows = tenant.run(&sql, values.to_vec())?.with_context(|| sql.clone())?;
        ensure!(rows.rows.len() == 1, "{} rows", rows.rows.len());
        same(values, rows.rows.first().context("no row")?).context(sql)?;
    }
    same(values, tenant.rows("SELECT * FROM t")?.first().context("no row")?)?;
    tenant.reset()?;
    tenant.close()
}

fn same(given: &[Value], found: &[Value]) -> Result<()> {
    ensure!(given.len() == found.len());
    for (given, found) in given.iter().zip(found) {
        let is_same = match (given, found) {
            // SQLite has no NaN.
            (Value::Real(number), Value::Null) => number.is_nan(),
            // It stores a whole number as an integer, and so without the sign of a zero.
            (Value::Real(given), Value::Real(found)) => {
                given.to_bits() == found.to_bits() || (*given == 0.0 && *found == 0.0)
            }
            _ => given == found,
        };
        ensure!(is_same, "{given:?} came back as {found:?}");
    }
    Ok(())
}

fn in_json(value: &Value) -> Result<()> {
    if matches!(value, Value::Real(number) if !number.is_finite()) {
        return Ok(());
    }
    let text = to_json(value.clone()).to_string();
    let back = from_json(serde_json::from_str(&text)?).with_context(|| text.clone())?;
    ensure!(back == *value, "{value:?} came back from {text} as {back:?}");
    Ok(())
}

fn decode(mut data: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while let Some((kind, rest)) = data.split_first() {
        let length = match kind % 5 {
            0 => 0,
            1 | 2 => 8,
            _ => usize::from(kind / 5),
        };
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        values.push(match kind % 5 {
            0 => Value::Null,
            1 => Value::Integer(i64::from_le_bytes(word)),
            2 => Value::Real(f64::from_le_bytes(word)),
            3 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            _ => Value::Blob(bytes.to_vec()),
        });
        data = rest;
    }
    values.truncate(COLUMNS_MAX);
    values
}
