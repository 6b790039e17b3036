-- Functions that crash, tell of the host, or take quadratic time.
-- error: not authorized | no such function | unable to use function | wrong number of arguments | is not allowed
SELECT concat_ws(',', 'a', 'b')
SELECT json_patch('{}', '{}')
SELECT jsonb_patch('{}', '{}')
SELECT sqlite_source_id()
SELECT sqlite_log(1, 'x')
SELECT sqlite_compileoption_get(1)
SELECT sqlite_compileoption_used('X')
SELECT vector('[1,2]')
SELECT vector_distance_cos('[1]', '[1]')
SELECT libsql_vector_idx(a) FROM t
SELECT fts3_tokenizer('simple')
SELECT sqlite_rename_table(1,2,3,4,5,6,7,8)
SELECT * FROM t WHERE a MATCH 'x'
SELECT 'a' REGEXP 'b'
SELECT sqlite_offset(a) FROM t
SELECT subtype('x')
