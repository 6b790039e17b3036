;; Wants four gigabytes of memory from the start.
;; expect: refused
(module
  (memory 65536)
  (func (export "handle") (param i32 i32)))
