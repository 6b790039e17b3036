;; Grows a table to more than its manifest allows.
;; expect: table-limit
;; limit: table_elements_max
;; allowed: 5000
;; manifest: {"limits": {"table_elements_max": 5000}}
(module
  (table $t 0 funcref)
  (func (export "handle") (param i32 i32)
    (br_if 0 (i32.eq (table.grow $t (ref.null func) (i32.const 5000)) (i32.const -1)))
    (drop (table.grow $t (ref.null func) (i32.const 1)))
    unreachable))
