//! What SQLite offers, asked of the SQLite that was compiled in: each function, pragma and module is either on a list
//! of the guard or refused, and no function on the list takes long, whatever its arguments are.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::caps::VALUE_BYTES_MAX;
use super::guard;
use super::memory::on_account;
use super::message::{DatabaseError, Profile, Reply, Rows, Value};
use super::session::{self, Opening, Request, Session};
use crate::limits;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Most CPU time of one call: none of them looks at the clock. What goes over a value some times takes a tenth of it on a
/// slow machine, and what is quadratic takes minutes.
const CALL_TIME_MAX: Duration = Duration::from_secs(1);

/// A database and a session of the profile on it.
struct Bench {
    session: Session,
    profile: Profile,
    _folder: TempDir,
}

impl Bench {
    fn new(profile: Profile) -> Result<Self> {
        super::start()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.db");
        session::create(&path)?;
        let opening = Opening { path, profile, bytes_max: 64 << 20, log: None };
        let session = Session::open(opening, Arc::new(AtomicBool::new(false)))?;
        Ok(Self { session, profile, _folder: folder })
    }

    fn run(&mut self, sql: &str, parameters: &[Value]) -> std::result::Result<Rows, DatabaseError> {
        let request = Request {
            sql: sql.to_owned(),
            parameters: parameters.to_vec(),
            result_bytes_max: 64 << 20,
            time_max: Duration::from_secs(60),
            may_write: true,
            in_transaction: false,
        };
        match on_account(&mut Session::account(self.profile), || self.session.execute(request))? {
            Reply::Executed(executed) => executed.outcome,
            _ => Err(DatabaseError::Closed),
        }
    }

    fn texts(&mut self, sql: &str) -> Result<BTreeSet<String>> {
        let rows = self.run(sql, &[])?.rows;
        Ok(rows.iter().flatten().filter_map(Value::as_text).map(str::to_owned).collect())
    }

    fn is_refused(&mut self, sql: &str) -> Result<()> {
        match self.run(sql, &[]) {
            Err(DatabaseError::Statement(message))
                if message.contains("not authorized")
                    || message.contains("not allowed")
                    || message.contains("no such table")
                    || message.contains("too many arguments on pragma_") =>
            {
                Ok(())
            }
            other => Err(format!("{sql}: {other:?}").into()),
        }
    }
}

#[test]
fn every_function_is_on_the_list_or_refused() -> Result<()> {
    let mut tenant = Bench::new(Profile::Tenant)?;
    let offered = Bench::new(Profile::Control)?
        .run("SELECT DISTINCT name, narg FROM pragma_function_list ORDER BY 1", &[])?
        .rows;
    assert!(offered.len() > 100, "{}", offered.len());
    for function in offered {
        let [Value::Text(name), Value::Integer(arguments)] = function.as_slice() else {
            return Err("not a function".into());
        };
        if guard::allows_function(name) {
            continue;
        }
        let arguments = vec!["a"; usize::try_from(*arguments).unwrap_or(1)].join(", ");
        let call = format!("SELECT \"{name}\"({arguments}) FROM (SELECT 1 AS a)");
        match tenant.run(&call, &[]) {
            Err(DatabaseError::Statement(message))
                if ["not authorized", "not allowed", "misuse of window function"]
                    .iter()
                    .any(|reason| message.contains(reason)) => {}
            other => return Err(format!("{call}: {other:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn every_pragma_is_on_the_list_or_refused() -> Result<()> {
    let mut tenant = Bench::new(Profile::Tenant)?;
    let offered = Bench::new(Profile::Control)?.texts("PRAGMA pragma_list")?;
    assert!(offered.len() > 50, "{offered:?}");
    for name in offered.iter().filter(|name| !guard::allows_pragma(name)) {
        for call in [
            format!("PRAGMA {name}"),
            format!("PRAGMA main.{name}"),
            format!("PRAGMA temp.{name}"),
            format!("PRAGMA {name} = 1"),
            format!("PRAGMA {name}('main')"),
            format!("SELECT * FROM pragma_{name}"),
            format!("SELECT * FROM pragma_{name}('main')"),
        ] {
            tenant.is_refused(&call)?;
        }
    }
    Ok(())
}

#[test]
fn no_module_makes_a_table_and_only_listed_ones_can_be_read() -> Result<()> {
    const READABLE: &[&str] = &["json_each", "json_tree"];
    let mut tenant = Bench::new(Profile::Tenant)?;
    let offered = Bench::new(Profile::Control)?.texts("PRAGMA module_list")?;
    assert!(offered.contains("json_each"), "{offered:?}");
    for name in &offered {
        tenant.is_refused(&format!("CREATE VIRTUAL TABLE v USING {name}"))?;
        tenant.is_refused(&format!("CREATE VIRTUAL TABLE temp.v USING {name}(a)"))?;
        let is_listed = READABLE.contains(&name.as_str())
            || name.strip_prefix("pragma_").is_some_and(guard::allows_pragma);
        if !is_listed {
            tenant.is_refused(&format!("SELECT * FROM {name}"))?;
        }
    }
    Ok(())
}

/// Arguments that make functions work: as long as a value may be, and shaped to be gone through again and again.
fn arguments() -> Vec<Value> {
    let cap = VALUE_BYTES_MAX;
    let text = |unit: &str| Value::Text(unit.repeat(cap / unit.len()));
    let nested = format!("{}{}", "[".repeat(900), "]".repeat(900));
    vec![
        text("a"),
        Value::Text(format!("{}b", "a".repeat(cap / 2))),
        text("%s"),
        text("ä"),
        Value::Text(format!("[{}0]", "0,".repeat(cap / 2 - 2))),
        Value::Text(format!("[{nested}{}]", format!(",{nested}").repeat(cap / 1_801 - 2))),
        Value::Text(format!("{{{}\"z\":0}}", "\"a\":0,".repeat(cap / 6 - 2))),
        Value::Text(format!("${}", "[0]".repeat(cap / 3 - 1))),
        Value::Blob(vec![0; cap]),
        Value::Blob(format!("${}", ".a".repeat(cap / 2 - 1)).into_bytes()),
        Value::Blob(nested_binary(cap)),
        Value::Integer(i64::MAX),
        Value::Text("x".to_owned()),
    ]
}

/// Arrays in arrays in SQLite's binary form of JSON (<https://sqlite.org/jsonb.html>), as deep as fits.
fn nested_binary(cap: usize) -> Vec<u8> {
    const ARRAY: u8 = 11;
    let mut reversed = Vec::with_capacity(cap);
    while reversed.len() + 5 < cap {
        let bytes = reversed.len();
        match bytes {
            0..12 => reversed.push((bytes as u8) << 4 | ARRAY),
            12..0x100 => reversed.extend([bytes as u8, 12 << 4 | ARRAY]),
            0x100..0x1_0000 => reversed.extend([bytes as u8, (bytes >> 8) as u8, 13 << 4 | ARRAY]),
            _ => {
                let size = bytes as u32;
                reversed.extend(size.to_le_bytes());
                reversed.push(14 << 4 | ARRAY);
            }
        }
    }
    reversed.reverse();
    reversed
}

/// Choices of `count` values: all for the first place, fewer for the next, because all of all would be thousands.
fn choices(count: usize) -> Vec<Vec<Value>> {
    let pool = arguments();
    let fewer: Vec<&Value> = pool.iter().filter(|value| is_for_second_place(value)).collect();
    let mut choices: Vec<Vec<Value>> = vec![Vec::new()];
    for place in 0..count {
        let values: Vec<&Value> = match place {
            0 => pool.iter().collect(),
            1 => fewer.clone(),
            _ => fewer.iter().copied().filter(|value| value.bytes() < 100).chain(pool.first()).collect(),
        };
        choices = choices
            .iter()
            .flat_map(|choice| {
                values.iter().map(|value| {
                    let mut longer = choice.clone();
                    longer.push((*value).clone());
                    longer
                })
            })
            .collect();
    }
    choices
}

/// Small values, paths, binary JSON, and one long text.
fn is_for_second_place(value: &Value) -> bool {
    let path_or_plain = |text: &str| text.starts_with('$') || text.starts_with("aa");
    value.bytes() < 100
        || value.as_text().is_some_and(path_or_plain)
        || matches!(value, Value::Blob(bytes) if bytes.last() != bytes.first())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[test]
fn no_function_takes_long_or_overflows_the_stack_on_values_at_the_cap() -> Result<()> {
    std::thread::Builder::new()
        .stack_size(limits::DATABASE_STACK_BYTES)
        .spawn(|| call_everything().map_err(|error| error.to_string()))?
        .join()
        .map_err(|_| "the thread panicked")??;
    Ok(())
}

fn call_everything() -> Result<()> {
    let mut tenant = Bench::new(Profile::Tenant)?;
    let offered = Bench::new(Profile::Control)?
        .run("SELECT DISTINCT name, narg FROM pragma_function_list ORDER BY 1", &[])?
        .rows;
    let mut slow = Vec::new();
    for function in offered {
        let [Value::Text(name), Value::Integer(arguments)] = function.as_slice() else {
            return Err("not a function".into());
        };
        if !guard::allows_function(name) {
            continue;
        }
        let counts = match *arguments {
            ..0 => 1..=3,
            count => {
                let count = usize::try_from(count)?.min(4);
                count..=count
            }
        };
        for count in counts {
            let places: Vec<_> = (1..=count).map(|place| format!("?{place}")).collect();
            let places = places.join(", ");
            for call in [
                format!("SELECT length(\"{name}\"({places}))"),
                format!("SELECT length(\"{name}\"({places}) OVER ())"),
            ] {
                for choice in choices(count) {
                    let begun = cpu_time();
                    let outcome = tenant.run(&call, &choice);
                    let taken = cpu_time() - begun;
                    if taken > CALL_TIME_MAX {
                        let sizes: Vec<_> = choice.iter().map(Value::bytes).collect();
                        slow.push(format!("{call} of {sizes:?}: {taken:?}"));
                    }
                    if matches!(&outcome, Err(DatabaseError::Statement(message)) if message.contains("may not be used as a window"))
                    {
                        break;
                    }
                }
            }
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
    Ok(())
}
