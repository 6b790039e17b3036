;; Never comes out of its start function.
;; expect: cpu-time-limit
;; limit: cpu_time_max_ms
(module
  (func $start (loop (br 0)))
  (start $start)
  (func (export "handle") (param i32 i32)))
