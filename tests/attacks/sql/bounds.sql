-- What takes processor time, memory or stack without end. The last line shows that the session still works.
-- error: is larger than | too big | too large | at most | out of memory | too many | ran longer | overflow | too complex | may have | may not have
SELECT zeroblob(2000000)
SELECT json_set('[]', '$' || replace(hex(zeroblob(300000)), '00', '[0]'), 1)
SELECT json_insert('{}', '$' || replace(hex(zeroblob(400000)), '00', '.a'), 1)
SELECT jsonb_set('[]', '$' || replace(hex(zeroblob(300000)), '00', '[0]'), 1)
SELECT json_set('{}', CAST('$' || replace(hex(zeroblob(500000)), '00', '.a') AS BLOB), 1)
SELECT jsonb_insert('[]', CAST('$' || replace(hex(zeroblob(1001)), '00', '[0]') AS BLOB), 1)
SELECT jsonb_insert('[]', '$' || replace(hex(zeroblob(1001)), '00', '[0]'), 1)
SELECT randomblob(2000000000)
SELECT printf('%.*c', 100000000, 'x') || hex(zeroblob(500000))
SELECT replace(hex(zeroblob(200000)), '0', '0123456789')
SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9 UNION SELECT 10 UNION SELECT 11
SELECT 'x' LIKE '%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a%a'
SELECT * FROM t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t
WITH RECURSIVE n(x, y) AS (SELECT 1, randomblob(500000) UNION ALL SELECT x + 1, randomblob(500000) FROM n WHERE x < 2000) SELECT count(*) FROM (SELECT x FROM n ORDER BY y)
WITH RECURSIVE n(x) AS (SELECT zeroblob(500000) UNION ALL SELECT x FROM n) SELECT x FROM n
-- ok
SELECT count(*) FROM t
