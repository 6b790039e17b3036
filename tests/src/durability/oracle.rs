//! What must be there after the end of a node, what may be, and what must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::load::{Attempt, Control, Fate, Key, Moment, Seen, Tally, TenantChange, USED, Writes, value_of};
use crate::{Tenant, TestNode, guest, sqlite};

/// Tenants that are written to. More of them than the parking lot has room for.
const TENANTS: usize = 6;

/// Pairs of rows in the first two tables are written together.
const TABLES: [&str; 3] = ["one", "other", "single"];

/// A component of the tenant that is deployed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deployed {
    Hello,
    Guestbook,
}

/// What a node is known to hold.
#[derive(Debug, Clone)]
pub(super) struct Oracle {
    pub tenants: Vec<String>,
    hello: Vec<u8>,
    guestbook: Vec<u8>,
    deployed: Deployed,
    /// A database to import, and the number of the one that was imported last.
    import: Vec<u8>,
    imported: u32,
    /// For each tenant, the keys that it has by now.
    held: Vec<Held>,
}

#[derive(Debug, Clone, Default)]
struct Held {
    pairs: BTreeSet<Key>,
    singles: BTreeSet<Key>,
}

impl Oracle {
    /// The tenant that is deployed to.
    pub(super) const DEPLOYED: &str = "deployed";

    /// The tenant whose database is imported again and again.
    pub(super) const IMPORTED: &str = "imported";

    pub(super) fn set_up(node: &TestNode) -> Result<Self> {
        let tenants: Vec<String> = (0..TENANTS).map(|n| format!("durable-{n}")).collect();
        for name in &tenants {
            node.create_tenant(name)?;
            node.deploy(name, "fn", &guest("misbehave")?)?;
            for table in TABLES {
                let tenant = Tenant::new(node, name.clone());
                tenant
                    .sql(&format!("CREATE TABLE {table} (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"))?;
            }
        }
        node.create_tenant(Self::DEPLOYED)?;
        // Both are compiled by now, so that a deploy is a matter of files and of control data.
        node.deploy(Self::DEPLOYED, "fn", &guest("guestbook")?)?;
        node.deploy(Self::DEPLOYED, "fn", &guest("hello")?)?;
        node.create_tenant(Self::IMPORTED)?;
        let folder = tempfile::tempdir()?;
        let import = folder.path().join("import.db");
        sqlite::make(&import, &["CREATE TABLE filling AS SELECT randomblob(20000) AS b"])?;
        let import = fs::read(import)?;
        let (hello, guestbook) = (fs::read(guest("hello")?)?, fs::read(guest("guestbook")?)?);
        Ok(Self {
            tenants,
            hello,
            guestbook,
            deployed: Deployed::Hello,
            import,
            imported: 0,
            held: vec![Held::default(); TENANTS],
        })
    }

    pub(super) fn component(&self, which: Deployed) -> &[u8] {
        match which {
            Deployed::Hello => &self.hello,
            Deployed::Guestbook => &self.guestbook,
        }
    }

    /// The next database to import, with a number that none had.
    pub(super) fn import(&self, after: Option<u32>) -> (u32, Vec<u8>) {
        let number = after.unwrap_or(self.imported) + 1;
        let mut file = self.import.clone();
        // `user_version`, as the header has it.
        file.splice(60..64, number.to_be_bytes());
        (number, file)
    }

    /// Compares a node with what was seen of its last life, which ended at `end`.
    pub(super) fn check(&mut self, node: &TestNode, seen: &Seen, end: Moment) -> Result<Tally> {
        let mut tally = Tally::default();
        for (number, (name, held)) in self.tenants.iter().zip(&mut self.held).enumerate() {
            let tenant = Tenant::new(node, name.clone());
            let writes: Vec<&Writes> = seen.writes.iter().filter(|writes| writes.tenant == number).collect();
            let (one, single) = (keys(&tenant, "one")?, keys(&tenant, "single")?);
            ensure!(one == keys(&tenant, "other")?, "{name}: half of a transaction is there");
            tally += compare(&one, &mut held.pairs, writes.iter().flat_map(|writes| &writes.pairs), end)
                .with_context(|| format!("{name}: transactions"))?;
            tally +=
                compare(&single, &mut held.singles, writes.iter().flat_map(|writes| &writes.singles), end)
                    .with_context(|| format!("{name}: single statements"))?;
            let integrity = tenant.sql("PRAGMA integrity_check")?;
            ensure!(integrity == json!([["ok"]]), "{name} is damaged: {integrity}");
        }
        self.deployed = deployed(node, &seen.control, end, self.deployed)?;
        self.imported = imported(node, &seen.imports, end, self.imported)?;
        check_tenants(node, &seen.control.tenants, end)?;
        let changes = &seen.control;
        tally.control += changes.deploys.iter().filter(|deploy| deploy.is_before(end)).count() as u64;
        tally.control += seen.imports.iter().filter(|import| import.is_before(end)).count() as u64;
        tally.control += changes.tenants.iter().filter(|change| change.is_before(end)).count() as u64;
        Ok(tally)
    }

    /// Empties the tables: what was deleted must not come back either.
    pub(super) fn empty(&mut self, node: &TestNode) -> Result<()> {
        for (name, held) in self.tenants.iter().zip(&mut self.held) {
            let tenant = Tenant::new(node, name.clone());
            TABLES.iter().try_for_each(|table| tenant.sql(&format!("DELETE FROM {table}")).map(drop))?;
            *held = Held::default();
        }
        Ok(())
    }
}

/// The keys of a table, each with its value checked.
fn keys(tenant: &Tenant<'_>, table: &str) -> Result<BTreeSet<Key>> {
    let rows = tenant.sql(&format!("SELECT key, value FROM {table}"))?;
    let key = |row: &Value| -> Result<Key> {
        let text = |n: &str| row.pointer(n).and_then(Value::as_str).context("no text");
        let (key, value) = (text("/0")?, text("/1")?);
        ensure!(value == value_of(key), "{}: the value of {key} in {table} is another", tenant.name);
        Ok(key.to_owned())
    };
    rows.as_array().context("no rows")?.iter().map(key).collect()
}

/// Whether everything acknowledged was found, and nothing that was never sent. `held` becomes what was found.
fn compare<'a>(
    found: &BTreeSet<Key>,
    held: &mut BTreeSet<Key>,
    attempts: impl Iterator<Item = &'a Attempt<Key>>,
    end: Moment,
) -> Result<Tally> {
    let mut tally = Tally::default();
    for attempt in attempts {
        let is_found = found.contains(&attempt.what);
        if attempt.is_before(end) {
            tally.acknowledged += 1;
        } else {
            tally.unanswered += 1;
            tally.unanswered_found += u64::from(is_found);
        }
        if is_found || attempt.is_before(end) {
            held.insert(attempt.what.clone());
        }
    }
    let lost: Vec<_> = held.difference(found).collect();
    ensure!(
        lost.is_empty(),
        "{} acknowledged writes are lost, among them {:?}",
        lost.len(),
        lost.iter().take(5).collect::<Vec<_>>()
    );
    let unasked: Vec<_> = found.difference(held).take(5).collect();
    ensure!(unasked.is_empty(), "there are rows that nobody wrote, or that were deleted: {unasked:?}");
    Ok(tally)
}

/// The component that is deployed, if it may be.
fn imported(node: &TestNode, imports: &[Attempt<u32>], end: Moment, before: u32) -> Result<u32> {
    let tenant = Tenant::new(node, Oracle::IMPORTED.to_owned());
    let found = u32::try_from(tenant.number("PRAGMA user_version")?)?;
    let last = imports.iter().rposition(|import| import.is_before(end));
    let acknowledged = last.and_then(|last| imports.get(last)).map_or(before, |import| import.what);
    let mut later = imports.iter().skip(last.map_or(0, |last| last + 1));
    ensure!(
        found == acknowledged || later.any(|import| import.what == found),
        "import {found} is there, and {acknowledged} was acknowledged"
    );
    let integrity = tenant.sql("PRAGMA integrity_check")?;
    ensure!(integrity == json!([["ok"]]), "import {found} is damaged: {integrity}");
    ensure!(
        found == 0 || tenant.number("SELECT length(b) FROM filling")? == 20_000,
        "import {found} is empty"
    );
    Ok(found)
}

fn deployed(node: &TestNode, control: &Control, end: Moment, before: Deployed) -> Result<Deployed> {
    let answer = node.request("GET", &format!("/t/{}/fn", Oracle::DEPLOYED), &[], b"")?.expect(200)?;
    let found = match answer.text().as_str() {
        "Hello from Dormouse\n" => Deployed::Hello,
        "[]" => Deployed::Guestbook,
        other => bail!("neither component answers so: {other}"),
    };
    let last = control.deploys.iter().rposition(|deploy| deploy.is_before(end));
    let acknowledged = last.and_then(|last| control.deploys.get(last)).map_or(before, |deploy| deploy.what);
    let mut later = control.deploys.iter().skip(last.map_or(0, |last| last + 1));
    ensure!(
        found == acknowledged || later.any(|deploy| deploy.what == found),
        "{found:?} is deployed, and {acknowledged:?} was acknowledged"
    );
    Ok(found)
}

/// Whether the tenants that were made are there, whole and with what was written to them, and those that were deleted are
/// not.
fn check_tenants(node: &TestNode, changes: &[Attempt<TenantChange>], end: Moment) -> Result<()> {
    // What may have become of each: what was acknowledged last, or what was asked for after it.
    let mut possible: BTreeMap<&str, Vec<Fate>> = BTreeMap::new();
    for change in changes {
        let fates = possible.entry(&change.what.name).or_insert_with(|| vec![Fate::Gone]);
        if change.is_before(end) {
            fates.clear();
        }
        fates.push(change.what.fate);
    }
    for (name, possible) in possible {
        let found = fate(node, name)?;
        ensure!(possible.contains(&found), "{name} could be {possible:?}; it is {found:?}");
        if found != Fate::Gone {
            node.admin("DELETE", &format!("/v1/tenants/{name}"), b"")?.expect(204)?;
        }
    }
    Ok(())
}

fn fate(node: &TestNode, name: &str) -> Result<Fate> {
    match node.admin("GET", &format!("/v1/tenants/{name}"), b"")?.status {
        404 => return Ok(Fate::Gone),
        200 => {}
        status => bail!("{name} is there or not, and not {status}"),
    }
    let tenant = Tenant::new(node, name.to_owned());
    let tables = tenant.number(&format!("SELECT count(*) FROM sqlite_schema WHERE name = '{USED}'"))?;
    Ok(if tables == 0 { Fate::Made } else { Fate::Used })
}
