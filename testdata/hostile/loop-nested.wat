;; Tries a loop of loops, each of many turns.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $a i32) (local $b i32)
    (loop $outer
      (local.set $b (i32.const 0))
      (loop $inner
        (local.set $b (i32.add (local.get $b) (i32.const 1)))
        (br_if $inner (i32.lt_u (local.get $b) (i32.const 1000000))))
      (br $outer))
    (i64.const 0)))
