;; Tries to answer 64 KiB of arrays in arrays.
(module
  (memory (export "memory") 2 4)
  (func (export "holdfast_abi_v1") (result i32) (i32.const 0))
  (func (export "holdfast_alloc") (param $len i32) (result i32)
    (i32.const 4096))
  (func (export "holdfast_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.fill (i32.const 1037) (i32.const 0x81) (i32.const 65000))
    (i64.const 0x400_0000fdf5))
  (data (i32.const 1024) "\a2\65value\67verdict"))
