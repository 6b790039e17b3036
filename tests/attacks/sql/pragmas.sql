-- Pragmas that change the connection, or tell of the host.
-- error: not authorized | no such table
PRAGMA journal_mode=DELETE
PRAGMA journal_mode
PRAGMA synchronous=OFF
PRAGMA locking_mode=EXCLUSIVE
PRAGMA max_page_count=1000000000
PRAGMA hard_heap_limit=1
PRAGMA soft_heap_limit=1
PRAGMA cache_size=-1000000
PRAGMA mmap_size=1000000000
PRAGMA wal_autocheckpoint=1
PRAGMA writable_schema=ON
PRAGMA trusted_schema=ON
PRAGMA temp_store=1
PRAGMA temp_store_directory='/tmp'
PRAGMA page_size=512
PRAGMA encoding='UTF-16'
PRAGMA query_only=ON
PRAGMA busy_timeout=60000
PRAGMA case_sensitive_like=ON
PRAGMA compile_options
PRAGMA function_list
PRAGMA threads=8
PRAGMA key='x'
PRAGMA main.journal_mode=OFF
SELECT * FROM pragma_compile_options
EXPLAIN PRAGMA journal_mode=DELETE
