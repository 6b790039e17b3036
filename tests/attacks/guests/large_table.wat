;; Wants a table of a million elements from the start.
;; expect: refused
(module
  (table 1000000 funcref)
  (func (export "handle") (param i32 i32)))
