;; Tries to log at levels that do not exist, and bytes that are no text.
(module
  (import "holdfast_v1" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (call $log (i32.const 77) (i32.const 1024) (i32.const 3))
    (call $log (i32.const -9) (i32.const 1024) (i32.const 3))
    (i64.const 0x400_0000000f)))
