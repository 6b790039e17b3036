;; Grows a table until it is told that it cannot.
;; expect: table-limit
;; limit: table_elements_max
(module
  (table $t 0 funcref)
  (func (export "handle") (param i32 i32)
    (loop
      (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
    unreachable))
