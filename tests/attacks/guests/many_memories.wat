;; Has three memories.
;; expect: refused
(module
  (memory 1)
  (memory 1)
  (memory 1)
  (func (export "handle") (param i32 i32)))
