-- The node's own tables, shadow tables, and the schema itself.
-- error: not authorized | may not be modified | may not be dropped | may not be altered | reserved for internal use | no such table
CREATE TABLE _dormouse_x(a)
CREATE TABLE _DORMOUSE_x(a)
CREATE TEMP TABLE _dormouse_x(a)
CREATE VIEW _dormouse_v AS SELECT 1
CREATE INDEX _dormouse_i ON t(a)
ALTER TABLE t RENAME TO _dormouse_t
DROP TABLE sqlite_schema
UPDATE sqlite_schema SET sql = 'x'
UPDATE sqlite_master SET sql = 'x'
DELETE FROM sqlite_master
DELETE FROM sqlite_schema
INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'x')
CREATE TABLE sqlite_x(a)
ALTER TABLE sqlite_schema RENAME TO x
PRAGMA writable_schema = ON
PRAGMA schema_version = 1
PRAGMA legacy_alter_table = ON
PRAGMA trusted_schema = ON
PRAGMA ignore_check_constraints = ON
PRAGMA cell_size_check = OFF
-- error: not authorized | no such module | no such table | no such function
CREATE VIRTUAL TABLE x USING fts5(a)
CREATE VIRTUAL TABLE x USING fts3(a)
CREATE VIRTUAL TABLE temp.x USING fts4(a)
CREATE VIRTUAL TABLE x USING rtree(id, a, b)
CREATE VIRTUAL TABLE x USING json_each
SELECT * FROM dbstat
SELECT * FROM sqlite_dbpage
SELECT * FROM sqlite_stmt
SELECT * FROM bytecode('SELECT 1')
SELECT * FROM generate_series(1, 10)
CREATE INDEX w ON t(libsql_vector_idx(a))
CREATE INDEX x ON t(vector32(a))
CREATE TABLE t_idx_shadow(a FLOAT32(3), b AS (vector32(a)))
