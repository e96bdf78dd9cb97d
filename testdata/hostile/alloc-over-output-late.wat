;; Tries to answer from the input's buffer, written after the input was read.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.copy (local.get $ptr) (i32.const 1024) (i32.const 15))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32)) (i64.const 15))))
