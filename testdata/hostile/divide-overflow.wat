;; Tries to divide the smallest integer by -1.
(module
  (memory (export "memory") 2 4)
  (data (i32.const 1024) "\a1\67verdict\65allow")
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (i64.div_s (i64.const 0x8000000000000000) (i64.load (i32.const 8))))
  (data (i32.const 8) "\ff\ff\ff\ff\ff\ff\ff\ff"))
