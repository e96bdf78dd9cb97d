;; Stores that an earlier mark seems to cover, on ways that did not pass it. The
;; input's first byte is 0.
(module
  (memory (export "memory") 2 2)
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param i32) (result i32) (i32.const 16))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $a i32) (local $turn i32)
    ;; a loop whose second turn stores elsewhere
    (local.set $a (i32.const 2048))
    (i32.store (local.get $a) (i32.const 1))
    (loop $again
      (i32.store offset=4 (local.get $a) (i32.const 1))
      (local.set $a (i32.const 10000))
      (br_if $again (i32.eqz (local.tee $turn (i32.add (local.get $turn) (i32.const 1)))))
      (br_if $again (i32.lt_u (local.get $turn) (i32.const 2))))
    ;; a mark that a branch passed by
    (local.set $a (i32.const 20000))
    (block $out
      (br_if $out (i32.eqz (i32.load8_u (local.get $ptr))))
      (i32.store (local.get $a) (i32.const 1)))
    (i32.store offset=4 (local.get $a) (i32.const 1))
    ;; a mark in the other arm
    (local.set $a (i32.const 30000))
    (if (i32.load8_u (local.get $ptr))
      (then (i32.store (local.get $a) (i32.const 1)))
      (else (i32.store offset=4 (local.get $a) (i32.const 1))))
    ;; a mark in an arm that was not taken
    (local.set $a (i32.const 40000))
    (if (i32.load8_u (local.get $ptr))
      (then (i32.store (local.get $a) (i32.const 1))))
    (i32.store offset=4 (local.get $a) (i32.const 1))
    ;; an address that moves while the value is made
    (local.set $a (i32.const 50000))
    (i32.store (local.get $a) (local.tee $a (i32.const 60000)))
    (i32.store (local.get $a) (i32.const 1))
    (i64.const 0x1000000008)))
