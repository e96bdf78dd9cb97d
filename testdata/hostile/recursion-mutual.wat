;; Tries two functions that call each other for ever.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (call $even (i64.const 0)))
  (func $even (param i64) (result i64) (i64.add (call $odd (local.get 0)) (i64.const 1)))
  (func $odd (param i64) (result i64) (i64.add (call $even (local.get 0)) (i64.const 1))))
