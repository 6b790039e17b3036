;; Calls itself without end.
;; expect: stack-limit
;; limit: stack_bytes_max
(module
  (func $deeper (param i32) (result i32)
    (i32.add (local.get 0) (call $deeper (i32.add (local.get 0) (i32.const 1)))))
  (func (export "handle") (param i32 i32) (drop (call $deeper (i32.const 0)))))
