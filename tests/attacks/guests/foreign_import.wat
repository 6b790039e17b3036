;; Imports what no node has.
;; expect: refused
;; says: acme:weather/forecast@1.2.3
(component
  (import "acme:weather/forecast@1.2.3" (instance (export "today" (func)))))
