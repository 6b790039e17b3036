;; Grows its memory until it is told that it cannot.
;; expect: memory-limit
;; limit: memory_bytes_max
(module
  (memory 0)
  (func (export "handle") (param i32 i32)
    (loop
      (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    unreachable))
