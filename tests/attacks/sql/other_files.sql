-- Every way to another file than the tenant's own.
-- error: not authorized
ATTACH '/tmp/dormouse-stolen.db' AS other
ATTACH 'dormouse-stolen.db' AS other
ATTACH 'file:/tmp/dormouse-stolen.db?mode=rwc' AS other
ATTACH ':memory:' AS other
ATTACH '' AS other
ATTACH 'a' || 'b' AS other
ATTACH (SELECT '/tmp/dormouse-stolen.db') AS other
ATTACH DATABASE x'2f746d70' AS other KEY 'k'
EXPLAIN ATTACH 'a' AS b
DETACH main
VACUUM
VACUUM main
VACUUM INTO '/tmp/dormouse-stolen.db'
VACUUM INTO 'dormouse-' || 'stolen.db'
PRAGMA temp_store_directory = '/tmp'
PRAGMA data_store_directory = '/tmp'
PRAGMA temp_store = 1
PRAGMA database_list
PRAGMA journal_mode = DELETE
PRAGMA wal_checkpoint(TRUNCATE)
PRAGMA mmap_size = 1000000000
-- error: not authorized | no such function | no such table
SELECT load_extension('/tmp/dormouse-stolen.so')
SELECT readfile('/etc/passwd')
SELECT writefile('/tmp/dormouse-stolen.db', 'x')
SELECT edit('x', 'sh')
SELECT file FROM pragma_database_list
SELECT * FROM fsdir('/')
SELECT * FROM zipfile('/tmp/x.zip')
SELECT * FROM csv('/etc/passwd')
SELECT * FROM other.t
ATTACH ? AS other
