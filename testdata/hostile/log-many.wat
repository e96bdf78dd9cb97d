;; Tries to log a hundred messages and to answer.
(module
  (import "holdfast_v1" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $n i32)
    (loop $l
      (call $log (i32.const 1) (i32.const 1025) (i32.const 8))
      (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100))))
    (i64.const 0x400_0000000f)))
