//! The schema of the control data, as the steps that lead to it.

/// The steps that bring the schema from each version to the next; each ends with the version that it makes. The
/// control data of a newer program, with more of them, is refused.
pub(super) const MIGRATIONS: &[&[&str]] =
    &[TENANTS, VARIABLES, MANIFESTS, MADE, ACTIVE_BY_VERSION, GENERATIONS, TOKENS, AUDIT];

const TENANTS: &[&str] = &[
    "CREATE TABLE tenants (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL DEFAULT (unixepoch())
     ) STRICT, WITHOUT ROWID",
    "CREATE TABLE environments (
        id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name TEXT NOT NULL, generation INTEGER NOT NULL, UNIQUE (tenant_id, name)
     ) STRICT, WITHOUT ROWID",
    "CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        function TEXT NOT NULL, component TEXT NOT NULL, bytes INTEGER NOT NULL,
        created_at INTEGER NOT NULL DEFAULT (unixepoch())
     ) STRICT",
    "CREATE INDEX versions_of_tenant ON versions (tenant_id, function)",
    "CREATE TABLE active_versions (
        environment_id TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE, function TEXT NOT NULL,
        version_id INTEGER NOT NULL REFERENCES versions (id), PRIMARY KEY (environment_id, function)
     ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 1",
];

/// `function` is empty for what holds for all functions of the environment.
const VARIABLES: &[&str] = &[
    "CREATE TABLE variables (
        environment_id TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE, name TEXT NOT NULL,
        function TEXT NOT NULL, secret INTEGER NOT NULL, sealed BLOB NOT NULL,
        changed_at INTEGER NOT NULL DEFAULT (unixepoch()), PRIMARY KEY (environment_id, name, function)
     ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 2",
];

const MANIFESTS: &[&str] = &["ALTER TABLE versions ADD COLUMN manifest TEXT", "PRAGMA user_version = 3"];

/// Earlier programs made a database with its environment.
const MADE: &[&str] =
    &["ALTER TABLE environments ADD COLUMN made INTEGER NOT NULL DEFAULT 1", "PRAGMA user_version = 4"];

/// Without it each version that goes with its tenant is looked for in all of them.
const ACTIVE_BY_VERSION: &[&str] =
    &["CREATE INDEX active_versions_by_version ON active_versions (version_id)", "PRAGMA user_version = 5"];

/// A generation without a name has files that are on their way in or out; at a start they go.
const GENERATIONS: &[&str] = &[
    "ALTER TABLE environments ADD COLUMN previous_generation INTEGER",
    "CREATE TABLE unnamed_generations (
        environment_id TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE, generation INTEGER NOT NULL,
        PRIMARY KEY (environment_id, generation)
     ) STRICT, WITHOUT ROWID",
    "PRAGMA user_version = 6",
];

/// `tenant_id` is NULL for a token of the whole node. A tenant's tokens end with it.
const TOKENS: &[&str] = &[
    "CREATE TABLE tokens (
        id TEXT PRIMARY KEY, sha256 BLOB NOT NULL, label TEXT NOT NULL,
        tenant_id TEXT REFERENCES tenants (id) ON DELETE CASCADE, read_only INTEGER NOT NULL,
        created_at INTEGER NOT NULL DEFAULT (unixepoch()), expires_at INTEGER
     ) STRICT, WITHOUT ROWID",
    "CREATE INDEX tokens_of_tenant ON tokens (tenant_id)",
    "PRAGMA user_version = 7",
];

/// Without references: an entry outlives what it is about.
const AUDIT: &[&str] = &[
    "CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, token_id TEXT, label TEXT NOT NULL,
        callers_tenant_id TEXT, address TEXT NOT NULL, request_id TEXT NOT NULL, method TEXT NOT NULL,
        path TEXT NOT NULL, tenant_id TEXT, object TEXT, outcome TEXT NOT NULL
     ) STRICT",
    "PRAGMA user_version = 8",
];

/// The version of the schema that this program makes.
pub(super) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
