;; Grows its memory, and does not care that it cannot.
;; expect: cpu-time-limit | memory-limit
(module
  (memory 0)
  (func (export "handle") (param i32 i32)
    (loop
      (drop (memory.grow (i32.const 1)))
      (br 0))))
