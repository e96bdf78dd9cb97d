;; Tries a tree of calls that is never deeper than sixty.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (call $tree (i64.const 60)))
  (func $tree (param i64) (result i64)
    (if (result i64) (i64.eqz (local.get 0)) (then (i64.const 1))
      (else (i64.add (call $tree (i64.sub (local.get 0) (i64.const 1))) (call $tree (i64.sub (local.get 0) (i64.const 1))))))))
